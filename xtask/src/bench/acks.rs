//! What acknowledgements cost a controller with many proxies: a proxy that leaves and comes back must cost the compiler's
//! thread little, and what all proxies have said must fit into little memory.

use std::process::Command;

use anyhow::{Context as _, Result};
use clap::Args;
use serde_json::Value;

use super::rivals::built;
use crate::{Reported, command::quietly};

/// Longest time of the compiler's thread for one reconnect, in milliseconds: the must and the goal.
const RECONNECT: (f64, f64) = (20.0, 5.0);
/// Most memory for what all proxies said, in MiB: the must and the goal.
const HELD: (f64, f64) = (200.0, 100.0);

/// What can be chosen.
#[derive(Args)]
pub(crate) struct Options {
    /// Proxies
    #[arg(long, default_value_t = 1_000)]
    proxies: usize,
    /// Listeners, all of which each proxy has
    #[arg(long, default_value_t = 10_000)]
    listeners: usize,
}

/// Runs the bench and prints its table; fails when a must is missed.
pub(crate) fn run(options: &Options) -> Result<()> {
    let program = built("dist", "maesh-controller", &["--example", "acks"], "acks")?;
    let text = quietly(Command::new(program).args([options.proxies.to_string(), options.listeners.to_string()]))?;
    let said: Value = serde_json::from_str(text.trim()).context("what the program says")?;
    let number = |name: &str| said[name].as_f64().with_context(|| format!("{name} is missing in {said}"));
    let (reconnect, held) = (number("reconnectLongestMillis")?, number("heldMiB")?);
    println!("{} proxies with {} listeners each", options.proxies, options.listeners);
    println!("| figure | measured | must | goal |");
    println!("|---|---|---|---|");
    println!("| all acknowledged for the first time | {:.1} ms | | |", number("firstMillis")?);
    println!("| one proxy leaves and comes back, median | {:.1} ms | | |", number("reconnectMedianMillis")?);
    println!("| the same, longest of 50 | {reconnect:.1} ms | {} ms | {} ms |", RECONNECT.0, RECONNECT.1);
    println!("| memory of what they said | {held:.1} MiB | {} MiB | {} MiB |", HELD.0, HELD.1);
    if reconnect <= RECONNECT.0 && held <= HELD.0 { Ok(()) } else { Err(anyhow::Error::msg(Reported)) }
}
