use std::{net::IpAddr, sync::Arc};

use serde::Serialize;

use crate::NodeName;

/// One node proxy, as callers may be sent to it.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize)]
pub struct Proxy {
    /// Its stable identity: the pod's name.
    pub id: Arc<str>,
    /// Node it serves.
    pub node: NodeName,
    /// Addresses at which callers reach it. Sorted; at most one of each family is answered.
    pub addresses: Vec<IpAddr>,
    /// It takes new work: it serves and is not draining.
    pub ready: bool,
    /// Shared ports (TCP) it acknowledged to listen on. Sorted. A name is answered with this proxy only when all its
    /// listen ports are among them.
    pub listening: Vec<u16>,
    /// Shared ports it could not bind, with the reason. Sorted.
    pub failed: Vec<(u16, Arc<str>)>,
}
