//! Logs: for people or for machines, on standard error, with a level that can change while the program runs.

use anyhow::Context as _;
use tracing_subscriber::{EnvFilter, Registry, layer::SubscriberExt, reload, util::SubscriberInitExt};

use crate::args::{LogArgs, LogFormat};

/// Changes what is logged while the program runs.
#[derive(Clone)]
pub struct LogLevel(reload::Handle<EnvFilter, Registry>);

impl LogLevel {
    /// The filter in force.
    pub fn get(&self) -> String {
        self.0.with_current(ToString::to_string).unwrap_or_default()
    }

    /// Puts another filter in force; a bad one leaves the old.
    pub fn set(&self, filter: &str) -> anyhow::Result<()> {
        self.0.reload(parse(filter)?).context("the log filter could not be replaced")
    }
}

/// Starts logging. Call it once.
pub fn start(args: &LogArgs) -> anyhow::Result<LogLevel> {
    let (filter, handle) = reload::Layer::new(parse(&args.log_level)?);
    let registry = tracing_subscriber::registry().with(filter);
    let stderr = tracing_subscriber::fmt::layer().with_writer(std::io::stderr);
    match args.log_format {
        LogFormat::Text => registry.with(stderr.with_ansi(colours())).try_init(),
        LogFormat::Json => registry.with(stderr.json().flatten_event(true)).try_init(),
    }
    .context("logging was started twice")?;
    Ok(LogLevel(handle))
}

fn parse(filter: &str) -> anyhow::Result<EnvFilter> {
    EnvFilter::builder().parse(filter).with_context(|| {
        format!("log level {filter:?} is not a filter; use error, warn, info, debug, trace, or info,maesh_proxy=debug")
    })
}

/// Colours only for a person's terminal who did not object (<https://no-color.org>).
fn colours() -> bool {
    std::io::IsTerminal::is_terminal(&std::io::stderr()) && std::env::var_os("NO_COLOR").is_none_or(|v| v.is_empty())
}
