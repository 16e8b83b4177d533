//! The mesh on a real Kubernetes of three nodes.
//!
//! Every test's name begins with `cluster_`: `cargo xtask test --only cluster` runs them, and the stage of the other
//! tests leaves them out. They share one cluster, one after the other; a test that needs it without a
//! mesh says so.

#![allow(clippy::unwrap_used, reason = "all of it is tests")]

mod access;
mod addressing;
mod auto;
mod away;
mod dns;
mod dual_stack;
mod footprint;
mod hostile;
mod hung;
mod install;
mod leader;
mod migrate;
mod node_death;
mod pods;
mod policies;
mod rollouts;
mod shapes;
mod shared;
mod splits;
mod stanza;
mod tls;
mod traces;
mod traffic_type;
mod udp;
mod under_load;
