//! As many open files as the process may have.

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
