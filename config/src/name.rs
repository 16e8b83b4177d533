//! Names of things: Services, nodes, mesh zones.
//!
//! They are cheap to clone, because every table of every role is keyed by them.

use std::{fmt, str::FromStr, sync::Arc};

use serde::{Deserialize, Serialize};

/// Namespace and name of a Kubernetes Service, written `namespace/name`.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ServiceName {
    /// Namespace of the Service.
    pub namespace: Arc<str>,
    /// Name of the Service within its namespace.
    pub name: Arc<str>,
}

impl ServiceName {
    /// A name from its two parts, taken as they are.
    pub fn new(namespace: impl Into<Arc<str>>, name: impl Into<Arc<str>>) -> Self {
        Self { namespace: namespace.into(), name: name.into() }
    }

    /// The name this Service has in `zone`, without trailing dot: `web.shop.maesh`.
    pub fn in_zone(&self, zone: &Zone) -> String {
        format!("{}.{}.{}", self.name, self.namespace, zone)
    }
}

impl fmt::Display for ServiceName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.namespace, self.name)
    }
}

impl fmt::Debug for ServiceName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl Serialize for ServiceName {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

/// A text that is not `namespace/name`.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is not namespace/name")]
pub struct BadServiceName(String);

impl FromStr for ServiceName {
    type Err = BadServiceName;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text.split_once('/') {
            Some((namespace, name)) if !namespace.is_empty() && !name.is_empty() && !name.contains('/') => {
                Ok(Self::new(namespace, name))
            }
            _ => Err(BadServiceName(text.to_owned())),
        }
    }
}

/// Name of a Kubernetes node.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct NodeName(pub Arc<str>);

impl fmt::Display for NodeName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl From<&str> for NodeName {
    fn from(text: &str) -> Self {
        Self(text.into())
    }
}

/// A DNS zone that the mesh answers for: lower case, no trailing dot (`maesh`, `traefik.mesh`).
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize)]
pub struct Zone(Arc<str>);

impl Zone {
    /// The zone's text, without trailing dot.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Zone {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Why a text cannot be a mesh zone.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{text:?} cannot be a mesh zone: {why}")]
pub struct BadZone {
    text: String,
    why: &'static str,
}

impl FromStr for Zone {
    type Err = BadZone;

    /// Accepts letters, digits and inner hyphens in labels of 1 to 63 bytes, with or without a trailing dot.
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let bad = |why| Err(BadZone { text: text.to_owned(), why });
        let zone = text.strip_suffix('.').unwrap_or(text).to_ascii_lowercase();
        if zone.is_empty() || zone.len() > 120 {
            return bad("it must have 1 to 120 characters, to leave room for service and namespace");
        }
        for label in zone.split('.') {
            let inner = |b: u8| b.is_ascii_alphanumeric() || b == b'-';
            if label.is_empty() || label.len() > 63 {
                return bad("every label must have 1 to 63 characters");
            }
            if !label.bytes().all(inner) || label.starts_with('-') || label.ends_with('-') {
                return bad("labels are letters, digits and inner hyphens");
            }
        }
        if zone == "cluster.local" || zone == "local" {
            return bad("it belongs to the cluster or to multicast DNS");
        }
        Ok(Self(zone.into()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn zones() {
        for (text, want) in [
            ("maesh", Some("maesh")),
            ("Traefik.Mesh.", Some("traefik.mesh")),
            ("", None),
            (".", None),
            ("a..b", None),
            ("-a", None),
            ("a_b", None),
            ("cluster.local", None),
        ] {
            assert_eq!(text.parse::<Zone>().ok().as_ref().map(Zone::as_str), want, "{text:?}");
        }
    }

    #[test]
    fn service_names() {
        for (text, ok) in [("shop/web", true), ("web", false), ("/web", false), ("shop/", false), ("a/b/c", false)] {
            let parsed = text.parse::<ServiceName>();
            assert_eq!(parsed.is_ok(), ok, "{text:?}");
            if let Ok(name) = parsed {
                assert_eq!(name.to_string(), text);
            }
        }
    }
}
