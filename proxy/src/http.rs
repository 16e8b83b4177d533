//! HTTP: from the bytes of a caller's connection to an endpoint and back.
//!
//! A request passes `route` (which port of which Service), then the policies, then [`forward`]: [`crate::balance`] picks an
//! endpoint, [`attempt`] exchanges the request for a response over [`crate::upstream`], `retry` decides whether a failure may
//! be tried again. `body` is what streams through: [`body::replay`] keeps the beginning of an upload while it may be needed
//! again. `headers` is what a proxy must change on the way, `answer` what the mesh says by itself.
//!
//! A policy that may refuse a request is one module with one function, called from [`server`]'s `pipeline` between
//! routing and sending.

mod answer;
mod attempt;
mod body;
mod caller;
mod forward;
mod headers;
mod hops;
mod retry;
mod route;
mod server;
mod upgrade;
mod wire;

use crate::socket;
use forward as send;

pub(crate) use answer::last_words;
pub(crate) use caller::{Caller, Stage};
pub(crate) use forward::speaks_http2;
pub(crate) use route::{Host, find as find_called, named, port_on};
pub(crate) use server::serve;
