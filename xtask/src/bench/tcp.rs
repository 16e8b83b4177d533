//! TCP streams beside HAProxy.

use anyhow::{Result, bail};
use clap::Args;

use crate::measure::Rounds;

/// What can be chosen.
#[derive(Args)]
pub(crate) struct Options {
    #[command(flatten)]
    rounds: Rounds,
}

/// Runs the bench and prints its table.
pub(crate) fn run(options: &Options) -> Result<()> {
    bail!("bench tcp does not exist yet (asked for {} rounds)", options.rounds.rounds)
}
