//! What `maesh status` says. Fields are added, never renamed or taken away: scripts read it.

use std::collections::BTreeMap;

use serde::Serialize;

/// The state of a mesh.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Report {
    /// Who was asked, for people.
    pub mesh: String,
    /// Nothing needs attention.
    pub healthy: bool,
    /// What needs attention.
    pub problems: Vec<Problem>,
    /// Each controller.
    pub controllers: Vec<Controller>,
    /// All dns.
    pub dns: Group,
    /// All proxies.
    pub proxies: Group,
    /// Services in the mesh.
    pub services: Option<usize>,
    /// Mistakes in objects.
    pub diagnostics: Diagnostics,
    /// The stanza in the cluster's DNS, where a controller that leads keeps it.
    pub stanza: Option<Stanza>,
    /// `off`, `dry-run` or `on`.
    pub access_control: Option<String>,
    /// Every name answers plain addresses.
    pub bypass: Option<bool>,
}

/// Something that needs attention.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Problem {
    /// What it is.
    pub message: String,
    /// What to do.
    pub next: String,
}

/// One controller.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Controller {
    /// The pod's name.
    pub name: String,
    /// Node it runs on.
    pub node: Option<String>,
    /// It answers, and its pod is ready.
    pub ready: bool,
    /// Why it does not answer.
    pub error: Option<String>,
    /// Version of its program.
    pub version: Option<String>,
    /// It writes to the cluster; `None` where it never does.
    pub leads: Option<bool>,
    /// It has read everything once.
    pub synced: bool,
    /// Revision of its configuration. Each controller counts for itself.
    pub revision: Option<u64>,
    /// How long ago that came into force.
    pub seconds_since_change: Option<f64>,
    /// Kinds of objects that it watches, where it watches a cluster.
    pub watches: Option<Watches>,
}

/// The watches of one controller.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Watches {
    /// Kinds that were delivered in full once.
    pub synced: usize,
    /// All kinds.
    pub total: usize,
    /// Those that something is wrong with, by kind.
    pub failing: BTreeMap<String, String>,
}

/// All dns, or all proxies.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Group {
    /// Those that work.
    pub ready: usize,
    /// All of them.
    pub total: usize,
    /// How many there are of each version.
    pub versions: BTreeMap<String, usize>,
    /// Those that are not ready, without those below.
    pub not_ready: Vec<String>,
    /// Those that are connected to no controller.
    pub not_connected: Vec<String>,
    /// Those that have not put the newest configuration in force for some seconds.
    pub behind: Vec<String>,
    /// Those that could not put a resource in force.
    pub rejecting: Vec<String>,
    /// Those that could not open a port.
    pub failed_ports: Vec<String>,
}

/// Mistakes in objects, by severity.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Diagnostics {
    /// Objects that could not be used at all.
    pub errors: Option<usize>,
    /// Values in place of which something else is used.
    pub warnings: Option<usize>,
}

/// The stanza in the cluster's DNS.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Stanza {
    /// Where it is in its life.
    pub phase: String,
    /// What there is to know, or to do.
    pub message: String,
}
