//! The demo does by itself what it proposes to its user, and checks every answer.

use std::{
    collections::BTreeSet,
    net::{IpAddr, SocketAddr},
    path::Path,
    process::ExitCode,
    time::Duration,
};

use anyhow::{Context as _, ensure};
use http::StatusCode;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
    time::Instant,
};

use super::{Backends, backend, lookup, manifests, served_at};
use crate::{
    dev::{Dev, print::Entry},
    fetch, terminal,
};

/// Requests of the steady service; enough that both versions answer some.
const STEADY_REQUESTS: usize = 40;
/// Two downs and ups of the flaky backend.
const FLAKY_PHASES: u32 = 4;
/// Pause between requests to the flaky service.
const FLAKY_PAUSE: Duration = Duration::from_millis(20);
/// Longest wait for a saved manifest.
const CHANGE_PATIENCE: Duration = Duration::from_secs(5);

/// Runs every step; the first that fails ends it.
pub async fn run(mesh: &mut Dev, services: &[Entry], folder: &Path, backends: &Backends) -> anyhow::Result<()> {
    let web = served_at(services, "web.demo.maesh")?;
    names(mesh, services).await.context("names")?;
    both_versions_answer(web).await.context("balancing")?;
    a_backend_that_goes_away(served_at(services, "flaky.demo.maesh")?).await.context("failover")?;
    a_tcp_stream(served_at(services, "echo.demo.maesh")?).await.context("TCP")?;
    a_release(web, folder, backends).await.context("a release")?;
    refusals(web).await.context("refusals")
}

/// Says how it went.
pub fn report(result: anyhow::Result<()>) -> ExitCode {
    match result {
        Ok(()) => {
            terminal::out(format_args!("self-test passed\n"));
            ExitCode::SUCCESS
        }
        Err(error) => {
            terminal::out(format_args!("self-test failed: {error:#}\n"));
            ExitCode::FAILURE
        }
    }
}

fn passed(what: &str) {
    terminal::out(format_args!("ok  {what}\n"));
}

async fn names(mesh: &Dev, services: &[Entry]) -> anyhow::Result<()> {
    for entry in services {
        let got = lookup::a_records(mesh.dns(), &entry.name).await?;
        let want: IpAddr = entry.address.as_deref().context("the table has no address")?.parse()?;
        ensure!(got == [want], "{} answered {got:?}, the table says {want}", entry.name);
        passed(&format!("{} is {want}", entry.name));
    }
    let missing = lookup::a_records(mesh.dns(), "missing.demo.maesh").await;
    ensure!(missing.is_err(), "missing.demo.maesh answered {missing:?}");
    passed("a name that does not exist is NXDOMAIN");
    Ok(())
}

async fn both_versions_answer(web: SocketAddr) -> anyhow::Result<()> {
    let mut seen = BTreeSet::new();
    for _ in 0..STEADY_REQUESTS {
        let (status, body) = fetch::get(web, "web.demo.maesh", "/").await?;
        ensure!(status == StatusCode::OK, "status {status}: {body}");
        seen.insert(body.split(' ').next().unwrap_or_default().to_owned());
    }
    ensure!(seen.iter().eq(["v1", "v2"]), "{STEADY_REQUESTS} requests were answered by {seen:?}, not by v1 and v2");
    passed(&format!("{STEADY_REQUESTS} requests to web.demo.maesh answered by v1 and v2"));
    Ok(())
}

async fn a_backend_that_goes_away(flaky: SocketAddr) -> anyhow::Result<()> {
    let end = Instant::now() + backend::FLAKY_PHASE * FLAKY_PHASES;
    let (mut sent, mut by_flaky) = (0, 0);
    while Instant::now() < end {
        let (status, body) = fetch::get(flaky, "flaky.demo.maesh", "/").await?;
        sent += 1;
        by_flaky += usize::from(body.starts_with("flaky"));
        ensure!(status == StatusCode::OK, "request {sent}: status {status}: {body}");
        tokio::time::sleep(FLAKY_PAUSE).await;
    }
    ensure!(by_flaky > 0, "the flaky backend answered none of {sent} requests");
    passed(&format!("{sent} requests while a backend kept going away, {by_flaky} of them answered by it, 0 failed"));
    Ok(())
}

async fn a_tcp_stream(echo: SocketAddr) -> anyhow::Result<()> {
    let exchange = async {
        let mut stream = TcpStream::connect(echo).await?;
        stream.write_all(b"hello").await?;
        stream.shutdown().await?;
        let mut back = String::new();
        stream.read_to_string(&mut back).await?;
        anyhow::Ok(back)
    };
    let back = tokio::time::timeout(CHANGE_PATIENCE, exchange).await.context("no echo in time")??;
    ensure!(back == "hello", "sent \"hello\", got {back:?}");
    passed("a TCP stream through echo.demo.maesh");
    Ok(())
}

async fn a_release(web: SocketAddr, folder: &Path, backends: &Backends) -> anyhow::Result<()> {
    manifests::web_leads_to(folder, &[backends.v2.address])?;
    let saved = Instant::now();
    let mut in_a_row = 0;
    while in_a_row < 10 {
        let (status, body) = fetch::get(web, "web.demo.maesh", "/").await?;
        ensure!(status == StatusCode::OK, "status {status}: {body}");
        in_a_row = if body.starts_with("v2") { in_a_row + 1 } else { 0 };
        ensure!(saved.elapsed() < CHANGE_PATIENCE, "v1 still answers {CHANGE_PATIENCE:?} after it was taken out");
    }
    passed(&format!("v1 taken out of the manifest: only v2 answers, {} ms later", saved.elapsed().as_millis()));
    Ok(())
}

async fn refusals(web: SocketAddr) -> anyhow::Result<()> {
    let (status, _) = fetch::get(web, "nobody.demo.maesh", "/").await?;
    ensure!(status == StatusCode::NOT_FOUND, "a host that nobody has got {status}, not 404");
    passed("a host that nobody has is 404");
    Ok(())
}
