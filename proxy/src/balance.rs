//! Which endpoint a request or a stream goes to.
//!
//! [`pick()`] narrows the endpoints of a backend to those that fit the caller, and lets the backend's strategy choose among
//! them: [`p2c`] by cost, [`least`] by what is in flight, [`hash`] by what the request says ([`affinity`]). [`backend`] is what the proxy has learnt of a backend port and
//! its endpoints ([`latency`]), and what is in flight there, in all and of each caller ([`share`]). Time and chance are
//! arguments.

mod affinity;
mod backend;
mod hash;
#[cfg(feature = "instructions")]
pub(crate) mod instructions;
mod latency;
mod least;
mod p2c;
mod pick;
mod queue;
mod share;
mod spill;

pub(crate) use affinity::Affinity;
pub(crate) use backend::{BackendPort, Candidate, Endpoint, InFlight, Locality, Upstreams};
pub(crate) use latency::{FAILURE, Latency};
pub(crate) use pick::{fitting, pick};
pub(crate) use queue::WaitingRequests;
pub(crate) use share::{LastShare, Share, Shares};

#[cfg(test)]
mod tests;
