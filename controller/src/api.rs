//! Clients of the Kubernetes API whose requests cannot hang.
//!
//! A connection can die without a word: the other end is gone, and nothing says so. Every request made here therefore
//! has an end. The head of an answer must come within [`Limits::answer`], and the body must not be silent for longer
//! than [`Limits::silence`]. A watch may be silent for long, so it is bounded as a whole: the server ends it after the
//! time that the request names, and [`Limits::slack`] later the connection counts as dead.

mod error;
mod limits;

use std::time::Duration;

use kube::{Client, Config, client::ClientBuilder, runtime::watcher};
use tower::ServiceExt as _;

pub use self::error::ApiError;
pub(crate) use self::error::said;
use self::limits::Bounded;

/// The server ends watches after this many seconds, so a connection that died silently is noticed soon after.
const WATCH_SECONDS: u32 = 60;

/// How long the API server may take.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// From the request to the head of the answer, connecting included.
    pub answer: Duration,
    /// Between two parts of an answer's body.
    pub silence: Duration,
    /// After the end of a watch that the request asked for.
    pub slack: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self { answer: Duration::from_secs(30), silence: Duration::from_secs(30), slack: Duration::from_secs(10) }
    }
}

/// A client that keeps to `limits`.
///
/// # Errors
/// If `config` names no usable way to the API server. Its state does not matter.
pub fn client(config: Config, limits: Limits) -> kube::Result<Client> {
    let builder = ClientBuilder::try_from(config)?;
    let layer = tower::layer::layer_fn(|inner| Bounded::new(inner, limits).boxed());
    Ok(builder.with_layer(&layer).build())
}

/// What is wrong, with its causes: `error trying to connect: tcp connect error: Connection refused`.
pub(crate) fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(inner) = cause {
        let inner_text = inner.to_string();
        if !text.ends_with(&inner_text) {
            text = format!("{text}: {inner_text}");
        }
        cause = inner.source();
    }
    text
}

/// How a watch by `kube`'s own watcher begins; add labels or fields.
pub(crate) fn watching() -> watcher::Config {
    watcher::Config::default().timeout(WATCH_SECONDS)
}
