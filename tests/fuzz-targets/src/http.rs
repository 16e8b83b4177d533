//! The place of a file of the proxy that is visible to its server only.

pub(crate) mod server;
