use std::{net::IpAddr, sync::Arc};

use serde::Serialize;

use super::{Protocol, Scheme};
use crate::ServiceName;

/// DNS facts of one Service, and the ports under which callers know it.
///
/// dns answers from it; a proxy finds with it which Service a `Host` means and, on first use while the controller is
/// away, the plain address to send to.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize)]
pub struct Name {
    /// The Service.
    pub service: ServiceName,
    /// How the mesh name is answered.
    pub answer: Answer,
    /// The plain addresses: the ClusterIPs, or the ready endpoints of a headless Service. Sorted.
    pub plain: Vec<IpAddr>,
    /// The Service has no ClusterIP.
    pub headless: bool,
    /// Its meshed ports, sorted by number, then protocol.
    pub ports: Vec<NamePort>,
}

/// How a mesh name is answered.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Answer {
    /// The ready proxy on the caller's own node that listens on all of the name's ports; else up to three others.
    Node,
    /// These addresses for everybody: own addresses, or the Service of addressing mode `service`. Sorted.
    Fixed(Vec<IpAddr>),
    /// The plain addresses: bypassed on purpose.
    Plain,
    /// No proxy serves this name, or not yet: the plain addresses where these are allowed, and otherwise none.
    Unserved,
}

/// One meshed port of a Service.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize)]
pub struct NamePort {
    /// The Service's port number.
    pub number: u16,
    /// What it carries.
    pub protocol: Protocol,
    /// The port's name, if it has one; SRV records exist for named ports only.
    pub name: Option<Arc<str>>,
    /// The port on which the address in the answer listens: `number`, but for `maesh dev` without the right to it.
    pub listen: u16,
    /// What endpoints of an HTTP port are spoken to in; `None` for other ports, and where the controller does not say.
    pub scheme: Option<Scheme>,
}
