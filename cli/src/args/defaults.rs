//! Values that flags of several commands have when they are not given. Those of one flag stand there.

/// DNS zones of the mesh.
pub(super) const ZONES: [&str; 2] = ["maesh", "traefik.mesh"];
/// Namespace of the mesh.
pub(super) const NAMESPACE: &str = "maesh";
/// The cluster's DNS domain.
pub(super) const CLUSTER_DOMAIN: &str = "cluster.local";
/// Name of the controller's Deployment and of its Lease.
pub(super) const CONTROLLER: &str = "maesh-controller";
/// How the stanza in the cluster's DNS is looked after.
pub(super) const COREDNS_MODE: &str = "manual";
/// How long the cluster's DNS may take to read its configuration.
pub(super) const DNS_DEADLINE: &str = "240s";
/// How long callers may use an address that the DNS no longer answers.
pub(super) const HORIZON: &str = "45s";
