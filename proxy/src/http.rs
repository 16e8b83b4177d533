//! HTTP: from the bytes of a caller's connection to an endpoint and back.
//!
//! [`server`] turns a connection into exchanges, [`pipeline`] is the way of one, step by step: `check`, `route`, the policies,
//! [`forward`]. There [`crate::balance`] picks an endpoint, [`attempt`] exchanges the request for a response over
//! [`crate::upstream`], [`policy::retry`] decides whether a failure may be tried again. `body` is what streams through:
//! [`body::replay`] keeps the beginning of an upload while it may be needed again. `headers` is what a proxy must change on
//! the way, `answer` what the mesh says by itself, `exchange` the record of it all.
//!
//! A policy is one file of [`policy`]. One that may refuse a request is called from [`pipeline`].

mod answer;
mod attempt;
mod body;
mod caller;
mod charge;
mod check;
mod cut_off;
mod exchange;
mod forward;
mod headers;
mod hops;
mod pipeline;
mod policy;
mod request;
mod route;
mod server;
mod silence;
mod sweep;
mod upgrade;

pub(crate) use answer::final_response;
pub(crate) use caller::Caller;
pub(crate) use forward::speaks_http2;
pub(crate) use route::{Host, find as find_called, named, port_on};
pub(crate) use server::serve;
