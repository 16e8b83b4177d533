//! A timer that ends an exchange which has been silent for too long.

use std::{
    future::Future,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use tokio::time::{Instant, Sleep, sleep};

use super::exchange::Activity;

/// How often it is looked whether an exchange has got a limit.
const LOOK: Duration = Duration::from_secs(5);

/// Ready once the exchange has been silent for longer than it may.
///
/// The timer is made with the first poll, and set anew only when it fires: bytes that move cost nothing but a note of the
/// time.
pub(crate) struct Silence {
    activity: Arc<Activity>,
    timer: Option<Pin<Box<Sleep>>>,
}

impl Silence {
    pub(crate) fn new(activity: &Arc<Activity>) -> Self {
        Self { activity: activity.clone(), timer: None }
    }
}

impl Future for Silence {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        let this = &mut *self;
        loop {
            let left = this.activity.left();
            if left == Some(Duration::ZERO) {
                return Poll::Ready(());
            }
            // A limit may be set later, and be shorter than the time until the next look.
            let wait = left.unwrap_or(LOOK).min(LOOK);
            let timer = this.timer.get_or_insert_with(|| Box::pin(sleep(wait)));
            if timer.as_mut().poll(cx).is_pending() {
                return Poll::Pending;
            }
            timer.as_mut().reset(Instant::now() + wait);
        }
    }
}
