//! The discovery stream: how resources get from the controller to the dns and proxy roles, and how they rest on disk.
//!
//! It is Envoy's incremental aggregated discovery service, message by message ([`xds`]), because that
//! protocol already has what a mesh needs: names, versions, resume, acknowledgement, subscriptions to everything or to
//! single names. What is ours and where it travels:
//!
//! - `system_version_info` is the revision of the server's state; the response that finishes an initial set, or a set
//!   of names just asked for, says `complete:<revision>` ([`RevisionMark`]).
//! - `control_plane.identifier` says which replica speaks and how far its watches are ([`Progress`]).
//! - `node.metadata` says role, node, addresses, version and readiness. A later request may carry the node
//!   again, to report a change of readiness.
//! - `node.metadata` of a proxy's streams to the other replicas, which configure it not, also says what it listens on.
//! - `error_detail.details` names each resource that was not put in force ([`xds::Rejection`]).
//!
//! Any other client or server of the protocol does without these.

pub mod auth;
mod connections;
mod io;
mod log_limit;
mod node;
mod progress;
mod server;
mod small_file;
mod store;
mod subscriber;
pub mod tls;
pub mod update;
pub mod xds;

pub use connections::{ConnectionLimits, ConnectionSlot, ConnectionTable};
pub use io::InProcess;
pub use log_limit::{AcceptFailures, LogLimit, LogLimits, LogNote};
pub use progress::{Progress, RevisionMark};
pub use server::{Counters, Server, ServerOptions, Subscriber, Verdict};
pub use store::{Opaque, Store};
pub use subscriber::{Connect, Subscribed, SubscriberConfig, SubscriberStatus, Timing, Token, start};

#[cfg(test)]
mod tests;
