//! Policies: what may change a request's fate besides its route. One file each.
//!
//! A policy's values come from the model ([`maesh_config::policy`]). What it counts lives with the port that is called
//! ([`CalledRuntime`](crate::policy::CalledRuntime)), or with the backend port ([`BackendPort`](crate::balance::BackendPort)),
//! so that a new configuration does not reset it.

pub(super) mod breaker;
pub(super) mod concurrency;
pub(super) mod deadline;
pub(super) mod fault;
pub(super) mod hedge;
pub(super) mod mirror;
pub(super) mod rate_limit;
pub(super) mod retry;
