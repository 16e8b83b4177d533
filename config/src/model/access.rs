use std::{fmt, str::FromStr, sync::Arc};

use serde::Serialize;

use crate::{ServiceName, rule::Rule};

/// Namespace and name of a ServiceAccount, written `namespace/name`: who a workload is.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Account {
    /// Namespace of the ServiceAccount.
    pub namespace: Arc<str>,
    /// Name of the ServiceAccount within its namespace.
    pub name: Arc<str>,
}

/// Who may reach the endpoints of one ServiceAccount on one port of a Service.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize)]
pub struct AccountAccess {
    /// Whom the endpoints belong to.
    pub account: Arc<Account>,
    /// One of them has to admit the caller.
    pub grants: Vec<Grant>,
}

/// Callers that are admitted, and with what.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize)]
pub struct Grant {
    /// Name of the TrafficTarget that says so, in the namespace of the ServiceAccount.
    pub target: Arc<str>,
    /// Who is admitted. Sorted.
    pub sources: Vec<Arc<Account>>,
    /// What a request has to be: one of these. Empty for everything, and always for connections and flows.
    pub rules: Vec<Rule>,
}

impl Account {
    /// A ServiceAccount from its two parts, taken as they are.
    pub fn new(namespace: impl Into<Arc<str>>, name: impl Into<Arc<str>>) -> Self {
        Self { namespace: namespace.into(), name: name.into() }
    }
}

impl fmt::Display for Account {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.namespace, self.name)
    }
}

impl fmt::Debug for Account {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl Serialize for Account {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl FromStr for Account {
    type Err = crate::name::BadServiceName;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        text.parse::<ServiceName>().map(|it| Self { namespace: it.namespace, name: it.name })
    }
}
