use std::net::SocketAddr;

use serde::Serialize;

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
    /// Access control is enforced: what nobody allowed is denied.
    pub access_control: bool,
    /// Where the replicas of the controller serve, sorted; empty where nothing says so.
    pub controllers: Vec<SocketAddr>,
}
