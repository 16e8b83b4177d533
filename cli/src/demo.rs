//! `maesh demo`: the whole mesh on one machine with toy backends, and what to type to see it work.
//!
//! It is `maesh dev` on a temporary folder of ordinary manifests, so everything a user tries here holds for their own.
//! `--self-test` does what the demo proposes and checks every answer.

mod backend;
mod lookup;
mod manifests;
mod self_test;
mod view;

use std::{
    net::SocketAddr,
    path::{Path, PathBuf},
    process::ExitCode,
};

use anyhow::Context as _;

use self::backend::Backend;
use crate::{
    args::{DemoArgs, Output},
    dev::{self, Dev, print::Printer},
    logs::LogLevel,
    signals::Signals,
    terminal,
};

/// The toy backends; they end when this is dropped.
struct Backends {
    v1: Backend,
    v2: Backend,
    flaky: Backend,
    echo: Backend,
}

impl Backends {
    fn start() -> anyhow::Result<Self> {
        Ok(Self {
            v1: backend::steady("v1")?,
            v2: backend::steady("v2")?,
            flaky: backend::flaky("flaky")?,
            echo: backend::echo("echo")?,
        })
    }

    fn endpoints(&self) -> manifests::Endpoints {
        manifests::Endpoints {
            v1: self.v1.address,
            v2: self.v2.address,
            flaky: self.flaky.address,
            echo: self.echo.address,
        }
    }

    fn all(&self) -> [&Backend; 4] {
        [&self.v1, &self.v2, &self.flaky, &self.echo]
    }
}

/// Runs the demo until a signal, or until its self-test ends.
pub async fn run(args: DemoArgs, log_level: LogLevel) -> anyhow::Result<ExitCode> {
    let mut signals = Signals::install()?;
    let folder = TemporaryFolder::create()?;
    let backends = Backends::start()?;
    manifests::write(folder.path(), &backends.endpoints())?;
    let options = dev::Options::of_demo(&args, folder.path());
    let drain = options.listen.drain_timeout;
    let mut mesh = Dev::start(options, log_level).await?;
    let services = mesh.ready(Printer(Output::Text)).await?;

    let code = if args.self_test {
        tokio::select! {
            result = self_test::run(&mut mesh, &services, folder.path(), &backends) => self_test::report(result),
            code = signals.first() => code,
        }
    } else {
        terminal::out(format_args!("{}\n", what_to_type(&mesh, &services, folder.path())));
        let view = tokio::spawn(view::run(backends.all().map(view::Counter::of).into()));
        let code = dev::follow(&mut mesh, &mut signals, Printer(Output::Text)).await;
        view.abort();
        code
    };
    signals.end_at_next();
    mesh.stop(drain).await;
    Ok(code)
}

/// A folder that goes away with the demo, however it ends but for a kill.
struct TemporaryFolder(PathBuf);

impl TemporaryFolder {
    fn create() -> anyhow::Result<Self> {
        let path = std::env::temp_dir().join(format!("maesh-demo-{}", std::process::id()));
        std::fs::create_dir(&path).with_context(|| format!("cannot create {}", path.display()))?;
        Ok(Self(path))
    }

    fn path(&self) -> &Path {
        &self.0
    }
}

impl Drop for TemporaryFolder {
    fn drop(&mut self) {
        if let Err(error) = std::fs::remove_dir_all(&self.0) {
            tracing::warn!(folder = %self.0.display(), %error, "the demo's folder stays; remove it by hand");
        }
    }
}

/// Where the first port of a service is served.
fn served_at(services: &[dev::print::Entry], name: &str) -> anyhow::Result<SocketAddr> {
    let entry =
        services.iter().find(|entry| entry.name == name).with_context(|| format!("{name} is not in the table"))?;
    let address = entry.address.as_deref().with_context(|| format!("{name} has no address"))?;
    let port = entry.ports.first().with_context(|| format!("{name} has no port"))?;
    Ok(SocketAddr::new(address.parse()?, port.listen))
}

fn what_to_type(mesh: &Dev, services: &[dev::print::Entry], folder: &Path) -> String {
    let at = |name: &str| served_at(services, name).map_or_else(|_| "ADDRESS:PORT".into(), |at| at.to_string());
    // Port 80 goes without saying.
    let url = |name: &str| format!("http://{}/", at(name).trim_end_matches(":80"));
    let (web, flaky, echo) = (url("web.demo.maesh"), url("flaky.demo.maesh"), at("echo.demo.maesh"));
    let (echo_host, echo_port) = echo.rsplit_once(':').unwrap_or((&echo, ""));
    let (dns, admin) = (mesh.dns(), mesh.admin());
    let this = std::env::current_exe().map_or_else(|_| "maesh".into(), |path| path.display().to_string());
    let commands = [
        ("the name", format!("dig @{} -p {} web.demo.maesh +short", dns.ip(), dns.port())),
        ("v1 and v2", format!("for i in 1 2 3 4 5 6; do curl -s {web} -H 'Host: web.demo.maesh'; done")),
        (
            "a backend that is away every other second: the proxy tries the other one",
            format!("for i in 1 2 3 4 5 6; do curl -s {flaky} -H 'Host: flaky.demo.maesh'; sleep 0.5; done"),
        ),
        ("a TCP stream", format!("echo hello | nc -q1 {echo_host} {echo_port}")),
        (
            "a release: take v1 or v2 out, save, and curl again",
            format!("edit {}", folder.join(manifests::WEB_ENDPOINTS).display()),
        ),
        (
            "why a name is answered so, and where its requests go",
            format!("{this} explain web.demo.maesh --admin {admin}"),
        ),
        ("the numbers", format!("curl -s http://{admin}/metrics | grep maesh_http_requests")),
    ];
    let shown = commands.iter().map(|(what, command)| format!("  {what}\n    {command}\n"));
    format!("\nTry, in another terminal:\n\n{}", shown.collect::<String>())
}
