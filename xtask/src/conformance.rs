//! `cargo xtask conformance`: what protocols ask for, asked of the built binary, mostly by programs of others.
//!
//! Each suite has a page in `docs/conformance/` that says what came of it, and what is otherwise on purpose. A run that comes to
//! another result than its page fails; with `MAESH_WRITE` set, it writes the page.

mod grpc;
mod h2spec;
mod mesh;
mod peers;
mod smuggling;
mod websocket;

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use clap::Args;
use maesh_test_support::{TOOLS, generated::WRITE, repository};

/// Which suite, and of what.
#[derive(Args)]
pub(crate) struct Options {
    /// Its name; all are listed when none is given
    name: Option<String>,
    /// Ask this binary of maesh instead of building one
    #[arg(long, value_name = "FILE")]
    maesh: Option<PathBuf>,
}

/// One suite.
struct Suite {
    name: &'static str,
    shows: &'static str,
    /// What it needs and `cargo xtask tool` can build.
    tools: &'static [&'static str],
    /// Runs it against a binary, and returns its page.
    run: fn(&Path) -> Result<String>,
}

const SUITES: &[Suite] = &[
    Suite { name: "h2spec", shows: "what HTTP/2 asks of a server", tools: &["h2spec"], run: h2spec::run },
    Suite {
        name: "grpc",
        shows: "that gRPC between programs of others goes through",
        tools: &[grpc::CLIENT, grpc::SERVER],
        run: grpc::run,
    },
    Suite {
        name: "smuggling",
        shows: "that no request hides another one",
        tools: smuggling::TOOLS,
        run: smuggling::run,
    },
    Suite {
        name: "websocket",
        shows: "that WebSockets between programs of others go through",
        tools: websocket::TOOLS,
        run: websocket::run,
    },
];

/// Runs a suite, or lists them.
pub(crate) fn run(options: &Options) -> Result<()> {
    let Some(name) = &options.name else {
        for suite in SUITES {
            println!("{:<12} {}", suite.name, suite.shows);
        }
        return Ok(());
    };
    let Some(suite) = SUITES.iter().find(|suite| suite.name == name) else {
        bail!("no suite is called {name}; cargo xtask conformance lists them");
    };
    let maesh = match &options.maesh {
        Some(file) => file.clone(),
        None => crate::bench::rivals::built("dev", "maesh", &["--bin", "maesh"], "maesh")?,
    };
    for wanted in TOOLS.iter().filter(|tool| suite.tools.contains(&tool.name)) {
        crate::tool::ensure(wanted)?;
    }
    suite.compare(&maesh)
}

/// Runs every suite: its name, and what came of it. The error is a [`maesh_test_support::ToolError`] where a program that it
/// needs is missing.
pub(crate) fn check(maesh: &Path) -> Vec<(&'static str, Result<()>)> {
    SUITES.iter().map(|suite| (suite.name, suite.compare(maesh))).collect()
}

impl Suite {
    /// Runs it, and compares what came of it with its page.
    fn compare(&self, maesh: &Path) -> Result<()> {
        let page = (self.run)(maesh)?;
        let file = format!("docs/conformance/{}.md", self.name);
        let path = repository().join(&file);
        if std::env::var_os(WRITE).is_some() {
            fs::write(&path, page).with_context(|| format!("writing {file}"))?;
        } else if fs::read_to_string(&path).unwrap_or_default() != page {
            let name = self.name;
            bail!(
                "{file} says otherwise than this:\n\n{page}\nIf it is meant: {WRITE}=1 cargo xtask conformance {name}"
            );
        }
        println!("{file} is what {} comes to", self.name);
        Ok(())
    }
}
