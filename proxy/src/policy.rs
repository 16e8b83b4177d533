//! What policies count and learn, apart from how a request meets them.
//!
//! Each is a small state machine that many workers share: time and chance are arguments, and nothing here knows HTTP. They
//! outlive every change of the configuration: [`CalledRuntime`] belongs to a port that is called, a [`Breaker`] to a backend port,
//! [`Ejection`] to an endpoint.

mod breaker;
mod budget;
mod counts;
mod eject;
mod histogram;
#[cfg(feature = "instructions")]
pub(crate) mod instructions;
mod limiter;
mod recent;
mod window;

use std::sync::atomic::AtomicU32;

pub(crate) use self::{
    breaker::{Breaker, BreakerState},
    budget::Budget,
    counts::{BackendEvent, CalledEvent, Counts},
    eject::{EjectedUntil, Ejection},
    limiter::{Limiter, Rate, TooMany},
    recent::RecentLatency,
};

/// What is learnt of the requests to a port of a Service that is called.
#[derive(Debug, Default)]
pub(crate) struct CalledRuntime {
    /// Bounds what retries and hedges add.
    pub(crate) budget: Budget,
    /// Bounds how many requests pass.
    pub(crate) limiter: Limiter,
    /// When a second attempt is worth making.
    pub(crate) latency: RecentLatency,
    /// Copies of requests that are under way.
    pub(crate) mirrored: AtomicU32,
    /// How often policies acted.
    pub(crate) counts: Counts,
}

impl CalledRuntime {
    /// Counts what a policy did.
    pub(crate) fn count(&self, event: CalledEvent) {
        self.counts.add(event);
    }
}
