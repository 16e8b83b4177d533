//! SIGINT, SIGTERM and SIGHUP: the first drains, the second ends at once. There is nothing to reload: files are read
//! again when they change.

use std::process::ExitCode;

use anyhow::Context as _;
use tokio::signal::unix::{Signal, SignalKind, signal};

/// What a process that was told to end twice exits with.
const ENDED_AT_ONCE: i32 = 130;

/// The signals that end a process.
pub struct Signals {
    interrupt: Signal,
    terminate: Signal,
    hangup: Signal,
}

impl Signals {
    /// Takes them over; from here on they no longer end the process by themselves.
    pub fn install() -> anyhow::Result<Self> {
        let take = |kind| signal(kind).context("cannot take over signals");
        Ok(Self {
            interrupt: take(SignalKind::interrupt())?,
            terminate: take(SignalKind::terminate())?,
            hangup: take(SignalKind::hangup())?,
        })
    }

    /// Waits for one of them. Cancel safe.
    pub async fn first(&mut self) -> ExitCode {
        self.any().await;
        ExitCode::SUCCESS
    }

    /// From now on the next one ends the process at once.
    pub fn end_at_next(mut self) {
        tokio::spawn(async move {
            self.any().await;
            std::process::exit(ENDED_AT_ONCE);
        });
    }

    async fn any(&mut self) {
        tokio::select! {
            _ = self.interrupt.recv() => {}
            _ = self.terminate.recv() => {}
            _ = self.hangup.recv() => {}
        }
    }
}
