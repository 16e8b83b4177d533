//! The node proxy: takes what callers send to Services' ports and carries it to endpoints.

pub mod tcp;
pub mod tls;
