//! Logs: for people or for machines, on standard error, with a level that can change while the program runs.

use std::sync::Arc;

use anyhow::Context as _;
use parking_lot::Mutex;
use tracing_subscriber::{
    EnvFilter, Registry, filter::LevelFilter, layer::SubscriberExt, reload, util::SubscriberInitExt,
};

use crate::args::{LogArgs, LogFormat};

/// Changes what is logged while the program runs.
#[derive(Clone)]
pub struct LogLevel {
    handle: reload::Handle<EnvFilter, Registry>,
    filter: Arc<Mutex<String>>,
}

impl LogLevel {
    /// The filter in force.
    pub fn get(&self) -> String {
        self.filter.lock().clone()
    }

    /// Puts another filter in force; a bad one leaves the old.
    pub fn set(&self, filter: &str) -> anyhow::Result<()> {
        self.handle.reload(parse(filter)?).context("the log filter could not be replaced")?;
        filter.clone_into(&mut self.filter.lock());
        Ok(())
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
    Ok(LogLevel { handle, filter: Arc::new(Mutex::new(args.log_level.clone())) })
}

/// What libraries log of errors that they return too (we say those once, with the object and the next step), and of
/// folders that went away with what watched them.
const NOISE: &str = "kube_client::client::builder=off,notify=error";

fn parse(filter: &str) -> anyhow::Result<EnvFilter> {
    let bad = || {
        anyhow::anyhow!(
            "log level {filter:?} is not a filter; use off, error, warn, info, debug, trace, or info,maesh_proxy=debug"
        )
    };
    if !filter.split(',').all(is_directive) {
        return Err(bad());
    }
    // Later directives win, so that whoever names it sees it.
    EnvFilter::builder().parse(format!("{NOISE},{filter}")).map_err(|_| bad())
}

/// Whether this is a level, or says what it is about and at which level. To the library a single word that is no level is a
/// target, of which everything is logged, and nothing of all others: a misspelt level would turn logging off.
fn is_directive(directive: &str) -> bool {
    let directive = directive.trim();
    !directive.is_empty()
        && (directive.contains(['=', '[', '{', '}', ']', '"']) || directive.parse::<LevelFilter>().is_ok())
}

/// Colours only for a person's terminal who did not object (<https://no-color.org>).
fn colours() -> bool {
    std::io::IsTerminal::is_terminal(&std::io::stderr()) && std::env::var_os("NO_COLOR").is_none_or(|v| v.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn which_filters_are_taken() {
        for (filter, taken) in [
            ("info", true),
            ("WARN", true),
            ("off", true),
            ("info,maesh_proxy=debug", true),
            ("maesh_proxy::http=trace", true),
            ("info,maesh_dns[query{kind=a}]=debug", true),
            ("verbose", false),
            ("info,verbose", false),
            ("maesh_proxy", false),
            ("info,maesh_proxy=loud", false),
            ("", false),
        ] {
            let said = parse(filter).map(drop).map_err(|error| error.to_string());
            assert_eq!(said.is_ok(), taken, "{filter:?}");
            assert!(said.err().is_none_or(|error| error.contains(&format!("{filter:?}"))), "{filter:?}");
        }
    }
}
