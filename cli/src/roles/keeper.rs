//! `maesh keeper`

use std::process::ExitCode;

use anyhow::{Context as _, anyhow};
use maesh_proxy::Keeper;
use tokio::sync::oneshot;

use crate::{args::KeeperArgs, signals::Signals};

/// Keeps a proxy's listening sockets until a signal. The proxy beside it has them still, and closes them when it is told
/// to end too.
pub async fn run(args: KeeperArgs) -> anyhow::Result<ExitCode> {
    let mut signals = Signals::install()?;
    let socket = args.socket.display();
    let keeper = Keeper::bind(&args.socket, args.hold).with_context(|| {
        format!("cannot listen on {socket}; name with --socket a path that nothing else has, in a folder that can be written")
    })?;
    let (ended, end) = oneshot::channel();
    std::thread::Builder::new().name("keeper".into()).spawn(move || ended.send(keeper.run()))?;
    tracing::info!(%socket, "keeping sockets");
    tokio::select! {
        code = signals.first() => Ok(code),
        error = end => Err(error.map_or_else(|_| anyhow!("the keeper's thread ended"), Into::into)),
    }
}
