//! Policies: what may change a request's fate besides its route. One file each.
//!
//! A policy's values come from the model (`maesh_config::model::BackendPolicy`); what it counts lives with the backend
//! port ([`BackendPort`](crate::balance::BackendPort)), so that a new configuration does not reset it.

pub(super) mod concurrency;
pub(super) mod retry;
