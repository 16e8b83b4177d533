//! What runs in the pods of the test cluster, as one static program that knows nothing of the mesh.
//!
//! `pause` holds a pod's namespaces, `echo` tells every caller what it sees, `get` asks once and prints the answer,
//! `lookup` asks the DNS alone, `load` asks at a fixed rate and logs every request, and `hold` opens connections and says
//! nothing.

mod call;
mod get;
mod hold;
mod load;
mod resolve;
mod seen;
mod serve;

use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context, Result};
use clap::Parser;

use load::Plan;

#[derive(Parser)]
#[command(name = "pod")]
enum Command {
    /// Hold a pod's namespaces
    Pause,
    /// Tell every caller what it sees: HTTP/1.1, h2c, gRPC and WebSocket on 8080, TLS on 8443, TCP on 9000, UDP on 9001
    Echo {
        /// Seconds to go on serving after SIGTERM, as a backend must while others hear of its end
        #[arg(long, default_value_t = 5)]
        grace: u64,
        #[command(flatten)]
        behaviour: serve::Behaviour,
    },
    /// Answer every DNS query on port 5353 with other bytes
    Garbage,
    /// Ask once and print what came as one line of JSON: http, h2c, https, grpc, ws, tcp or udp ://HOST:PORT/PATH
    Get {
        url: String,
        /// Seconds it may take
        #[arg(long, default_value_t = 10)]
        patience: u64,
        #[command(flatten)]
        names: get::Names,
    },
    /// Ask the DNS for a name's addresses and print what came as one line of JSON
    Lookup {
        name: String,
        #[command(flatten)]
        names: get::Names,
    },
    /// Ask at fixed rates until SIGTERM, and log every request as one line of JSON
    Load {
        /// The log's file
        #[arg(long)]
        log: PathBuf,
        /// `KIND RATE HOST:PORT [PLAIN_HOST:PORT]` in one word each; see [`Plan`]
        #[arg(required = true)]
        plans: Vec<Plan>,
    },
    /// Keep silent connections open to HOST:PORTs, and print how many there were as one line of JSON
    Hold {
        /// Connections to each
        #[arg(long, default_value_t = 100)]
        count: usize,
        /// Seconds
        #[arg(long, default_value_t = 10)]
        time: u64,
        #[arg(required = true)]
        targets: Vec<SocketAddr>,
    },
    /// Print the lines of a log from a time on
    Read {
        log: PathBuf,
        /// Milliseconds since 1970
        #[arg(long, default_value_t = 0)]
        since: u64,
    },
}

fn main() -> ExitCode {
    match start(Command::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn start(command: Command) -> Result<()> {
    let runtime =
        tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().context("a runtime")?;
    runtime.block_on(async {
        match command {
            Command::Pause => ended().await,
            Command::Echo { grace, behaviour } => {
                let server = serve::start(&serve::PORTS, &behaviour).await?;
                ended().await?;
                tokio::time::sleep(Duration::from_secs(grace)).await;
                server.stop().await;
                Ok(())
            }
            Command::Garbage => serve::garbage(5353).await,
            Command::Get { url, patience, names } => get::print(&url, Duration::from_secs(patience), &names).await,
            Command::Lookup { name, names } => get::print_lookup(&name, &names).await,
            Command::Load { log, plans } => load::run(&log, plans, ended()).await,
            Command::Hold { count, time, targets } => hold::run(&targets, count, Duration::from_secs(time)).await,
            Command::Read { log, since } => load::read(&log, since),
        }
    })
}

/// Until SIGTERM or SIGINT. The first process of a pod has no default for them.
async fn ended() -> Result<()> {
    use tokio::signal::unix::{SignalKind, signal};
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    tokio::select! {
        _ = terminate.recv() => {}
        _ = interrupt.recv() => {}
    }
    Ok(())
}
