//! The node proxy: takes what callers send to Services' ports and carries it to endpoints.
//!
//! A request passes these modules: [`listener`] accepts its connection, `http` routes and forwards it, [`balance`]
//! picks an endpoint, [`upstream`] sends it there and reads the response. [`tcp`] carries opaque streams, `udp` datagrams.
//! `reason` lists the answers that the mesh makes by itself, `telemetry` and `metrics` count, `drain` ends the proxy, and
//! `sockets` lets listening sockets outlive the process. `state` applies the discovery stream and publishes immutable
//! snapshots. Nothing on the data path waits for it, except the first request for a Service.

mod access;
mod admission;
mod balance;
mod buffers;
mod clock;
mod config;
mod connect;
mod drain;
pub mod explain;
mod fields;
#[cfg(test)]
mod fixtures;
mod host;
mod http;
mod http2;
#[cfg(feature = "instructions")]
#[doc(hidden)]
pub mod instructions;
mod listener;
mod local_ports;
mod loops;
mod metrics;
mod policy;
mod proxy;
mod reason;
mod routes;
mod socket;
mod sockets;
mod state;
pub mod tcp;
mod telemetry;
pub mod tls;
mod udp;
mod upstream;
mod worker;

pub use admission::TooFewFiles;
pub use config::{
    AccessLogForm, AccessLogSettings, BadTraceEndpoint, Config, Limits, TraceEndpoint, TracePropagation, TraceProtocol,
    TraceSettings,
};
pub use proxy::{Bound, Proxy, StartError, Status, start};
pub use reason::Reason;
#[doc(hidden)]
pub use sockets::Keeper;
#[doc(hidden)]
pub use upstream::{Response, read_response};

use maesh_config::Kind;

/// The kinds of resources of which a proxy needs all.
pub const WILDCARD_KINDS: [Kind; 3] = [Kind::Mesh, Kind::Listener, Kind::Name];
/// The kinds of which it asks for what its callers use.
pub const ON_DEMAND_KINDS: [Kind; 3] = [Kind::Workload, Kind::Endpoints, Kind::Service];
