//! The DNS responder beside other servers, and asked by clients that are not ours.
//!
//! Everything here serves the zone `maesh` with the same names, so that answers can be compared: [`Responder`] from
//! resources as they come from a controller, Knot and NSD ([`Rival`]) from [`zone_file`].

mod packet;
mod probe;
mod responder;
mod rival;

pub use packet::{ask_tcp, ask_tls, ask_udp, message, opt, question, subnet};
pub use probe::{Probe, odd, probes};
pub use responder::{Responder, by_node, fixed, pod, proxy, zone_file};
pub use rival::{Process, Rival};
