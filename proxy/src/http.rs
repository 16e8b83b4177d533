//! HTTP: from the bytes of a caller's connection to an endpoint and back.
//!
//! [`server`] turns a connection into exchanges, [`pipeline`] is the way of one, step by step: `check`, `route`, the policies
//! of the Service that was called, [`forward`]. There the policies of the backend act, [`crate::balance`] picks an endpoint,
//! [`attempt`] exchanges the request for a response over [`crate::upstream`], and [`policy::retry`] decides whether another
//! attempt follows, after a failure or a response. `body` is what streams through:
//! [`body::replay`] keeps the beginning of an upload while it may be needed again. `headers` is what a proxy must change on
//! the way, `answer` what the mesh says by itself, `exchange` the record of it all.
//!
//! A policy is one file of [`policy`], called from [`pipeline`] or [`forward`]; what it counts is in [`crate::policy`].

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
mod identity;
#[cfg(feature = "instructions")]
pub(crate) mod instructions;
mod pipeline;
mod policy;
mod request;
mod route;
mod server;
mod shape;
mod silence;
mod sweep;
mod upgrade;

pub(crate) use answer::final_response;
pub(crate) use caller::Caller;
pub(crate) use check::check_head;
pub(crate) use pipeline::route_facts;
pub(crate) use route::{find as find_called, named, port_on};
#[cfg(feature = "instructions")]
pub(crate) use server::instructions as server_instructions;
pub(crate) use server::serve;
