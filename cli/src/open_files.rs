//! As many open files as the process may have, and what the roles make of them.
//!
//! Whoever can reach a port can open connections to it. What each port may hold follows from the limit, so that together
//! they leave room for the process itself, whatever is connected.

use maesh_discovery::{ConnectionLimits, ServerOptions};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// Raises the soft limit to the hard one. Container runtimes leave it at 1,024 for the sake of programs that use
/// `select`; a connection is a file, so that would be the limit of a proxy's connections.
pub fn raise() {
    let Rlimit { current, maximum } = getrlimit(Resource::Nofile);
    // A process may always do so; should it be forbidden after all, the limit stays as it was.
    let raised = setrlimit(Resource::Nofile, Rlimit { current: maximum, maximum });
    tracing::debug!(?current, ?maximum, ?raised, "limit of open files");
}

/// How many files this process may have open.
pub fn limit() -> usize {
    getrlimit(Resource::Nofile).current.and_then(|limit| usize::try_from(limit).ok()).unwrap_or(usize::MAX)
}

/// The limits of the admin port, which every role has.
pub fn admin() -> ConnectionLimits {
    let all = (limit() / 8).clamp(16, 256);
    ConnectionLimits { all, per_source: (all / 8).max(4) }
}

/// The limits of the discovery port.
pub fn discovery() -> ServerOptions {
    ServerOptions::within(limit())
}

/// Connections to dns over TCP and over TLS, of which there are at most so many.
pub fn dns(tcp: usize, tls: usize) -> (usize, usize) {
    ((limit() / 2).clamp(16, tcp), (limit() / 8).clamp(16, tls))
}

/// Connections over TCP to dns where a proxy is in the same process.
pub fn dns_beside_proxy(tcp: usize) -> usize {
    (limit() / 16).clamp(16, tcp)
}
