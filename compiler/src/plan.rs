//! What objects mean to the mesh, without time, without proxies, and without what was before: a function of objects alone.

pub mod annotations;
pub(crate) mod endpoints;
pub(crate) mod port_limit;
pub(crate) mod service;
pub(crate) mod workload;
