//! An open-loop client: requests start by the clock, however slow the answers are, and every one is logged with its time
//! and outcome. So "0 failed" is a count of any span of time, and a failure has its reason.
//!
//! Another name is tried only when the DNS said that this one is not served (NXDOMAIN, SERVFAIL): whoever was given an
//! address and then refused, reset or left waiting has a failed request.

mod cache;
mod client;
mod line;
mod long;
mod plan;

use std::future::Future;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Result;
use tokio::task::JoinSet;
use tokio::time::{Instant, MissedTickBehavior, interval_at, timeout};

use cache::Cache;
use client::Client;
use line::Log;
pub(crate) use line::read;
pub(crate) use plan::Plan;

use crate::resolve::Resolver;

/// Longest time that requests in flight may take once the load ends.
const LAST_REQUESTS: Duration = Duration::from_secs(15);

/// Carries out all plans until `end`, and logs to the file `log`.
pub(crate) async fn run(log: &Path, plans: Vec<Plan>, end: impl Future<Output = Result<()>>) -> Result<()> {
    let (log, writing) = Log::start(log)?;
    let resolver = Arc::new(Resolver::of_the_pod()?);
    let mut running = JoinSet::new();
    for plan in plans {
        let cache = Cache::new(resolver.clone(), plan.names);
        running.spawn(Client::new(plan, cache, log.clone()).run());
    }
    end.await?;
    running.abort_all();
    drop(running);
    // Requests hold the log until they have been written; long streams are written by what they did so far.
    log.end();
    drop(log);
    let _ = timeout(LAST_REQUESTS, writing).await;
    Ok(())
}

/// Ticks `rate` times a second; a tick that is late is made up for, as the load is open.
fn clock(rate: u32) -> tokio::time::Interval {
    let period = Duration::from_secs(1) / rate.max(1);
    // Not all plans and pods at the same moment.
    let mut clock = interval_at(Instant::now() + period.mul_f64(rand::random()), period);
    clock.set_missed_tick_behavior(MissedTickBehavior::Burst);
    clock
}
