//! Logs: for people or for machines, on standard error, with a level that can change while the program runs.

use std::{borrow::Cow, sync::Arc};

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

/// The filter as it was given, for the command line.
pub fn checked(filter: &str) -> anyhow::Result<String> {
    parse(filter).map(|_| filter.to_owned())
}

fn parse(filter: &str) -> anyhow::Result<EnvFilter> {
    let bad = || {
        anyhow::anyhow!(
            "log level {filter:?} is not a filter; use off, error, warn, info, debug, trace, or info,maesh_proxy=debug"
        )
    };
    if !filter.split(',').all(is_directive) {
        return Err(bad());
    }
    let directives: Vec<_> = filter.split(',').map(|directive| of_the_mesh(directive.trim())).collect();
    // Later directives win, so that whoever names a library sees what it logs.
    EnvFilter::builder().parse(format!("{NOISE},{}", directives.join(","))).map_err(|_| bad())
}

/// `info` and `warn` are about the mesh's own crates; of libraries they let errors through only. Libraries warn of what a
/// single connection did, and quote it: any peer could write our log. Whoever sets `debug` or `trace` asks for details,
/// and gets those of libraries too.
fn of_the_mesh(directive: &str) -> Cow<'_, str> {
    match directive.parse::<LevelFilter>() {
        Ok(level @ (LevelFilter::INFO | LevelFilter::WARN)) => format!("error,maesh={level}").into(),
        _ => directive.into(),
    }
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
    /// Which of these lines are written under `filter`: one of ours and one of a library at each level.
    fn written(filter: &str) -> Vec<String> {
        let lines = Arc::new(Mutex::new(Vec::new()));
        let writer = Lines(lines.clone());
        let format =
            tracing_subscriber::fmt::layer().with_writer(move || writer.clone()).with_ansi(false).without_time();
        let subscriber = tracing_subscriber::registry().with(parse(filter).expect("a filter")).with(format);
        tracing::subscriber::with_default(subscriber, || {
            tracing::error!(target: "maesh_dns::listen", "");
            tracing::warn!(target: "maesh_dns::listen", "");
            tracing::info!(target: "maesh_dns::listen", "");
            tracing::debug!(target: "maesh_dns::listen", "");
            tracing::error!(target: "rustls::msgs::handshake", "");
            tracing::warn!(target: "rustls::msgs::handshake", "");
            tracing::warn!(target: "h2::proto::streams::recv", "");
            tracing::info!(target: "h2::proto::streams::recv", "");
            tracing::debug!(target: "h2::proto::streams::recv", "");
        });
        let text = String::from_utf8(lines.lock().clone()).expect("text");
        let short = |line: &str| {
            let (level, target) = line.trim().split_once(' ').expect("a level and a target");
            format!("{} {}", target.trim().split("::").next().unwrap_or_default(), level.to_lowercase())
        };
        text.lines().map(short).collect()
    }

    #[derive(Clone)]
    struct Lines(Arc<Mutex<Vec<u8>>>);

    impl std::io::Write for Lines {
        fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
            self.0.lock().extend_from_slice(bytes);
            Ok(bytes.len())
        }

        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn what_libraries_log_is_written_when_it_is_asked_for() {
        for (filter, want) in [
            ("off", ""),
            ("error", "maesh_dns error, rustls error"),
            ("warn", "maesh_dns error, maesh_dns warn, rustls error"),
            ("info", "maesh_dns error, maesh_dns warn, maesh_dns info, rustls error"),
            (" INFO ", "maesh_dns error, maesh_dns warn, maesh_dns info, rustls error"),
            ("info,rustls=warn", "maesh_dns error, maesh_dns warn, maesh_dns info, rustls error, rustls warn"),
            ("info,maesh_dns=debug", "maesh_dns error, maesh_dns warn, maesh_dns info, maesh_dns debug, rustls error"),
            ("info,maesh=error", "maesh_dns error, rustls error"),
            (
                "debug",
                "maesh_dns error, maesh_dns warn, maesh_dns info, maesh_dns debug, rustls error, rustls warn, h2 warn, h2 \
                 info, h2 debug",
            ),
        ] {
            assert_eq!(written(filter).join(", "), want, "{filter:?}");
        }
    }
}
