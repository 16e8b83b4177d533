use std::{fmt, net::SocketAddr};

use ipnet::IpNet;
use serde::Serialize;

use super::Account;
use crate::Zone;

/// What holds for the whole mesh and can change while it runs.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize)]
pub struct Mesh {
    /// Zones answered, the first one is the mesh's own.
    pub zones: Vec<Zone>,
    /// The cluster's DNS domain, `cluster.local` in most.
    pub cluster_domain: String,
    /// Without any ready proxy, names answer the plain addresses.
    pub fail_to_plain: bool,
    /// The global switch: every name answers the plain addresses.
    pub bypass: bool,
    /// Whether what nobody allowed is denied.
    pub access_control: AccessControl,
    /// Callers that are no pods, and who they count as.
    pub access_sources: Vec<AccessSource>,
    /// Where the replicas of the controller serve, sorted; empty where nothing says so.
    pub controllers: Vec<SocketAddr>,
}

/// Addresses outside of the pods that count as a ServiceAccount, such as those of an ingress controller on the network of its
/// node.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize)]
pub struct AccessSource {
    /// The addresses. Of several ranges that hold one, the narrowest counts.
    pub range: IpNet,
    /// Who they are.
    pub account: Account,
}

/// What becomes of a caller that nobody admits.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum AccessControl {
    /// Everybody is admitted.
    #[default]
    Off,
    /// Everybody is admitted, and who would be denied is counted and logged.
    DryRun,
    /// It is denied.
    On,
}

impl fmt::Display for AccessControl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Off => "off",
            Self::DryRun => "dry-run",
            Self::On => "on",
        })
    }
}

impl AccessControl {
    /// Whether who is not admitted is denied.
    pub fn denies(self) -> bool {
        self == Self::On
    }

    /// Whether anybody asks who is admitted.
    pub fn is_asked(self) -> bool {
        self != Self::Off
    }
}
