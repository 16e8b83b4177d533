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

/// Ready once the exchange has been silent for longer than it may.
///
/// The timer is made when the exchange has a limit, and set anew only when it fires: bytes that move cost nothing but a
/// note of the time. A limit is set by the task that polls this, so that it is seen.
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
        while let Some(left) = this.activity.left() {
            if left == Duration::ZERO {
                return Poll::Ready(());
            }
            let timer = this.timer.get_or_insert_with(|| Box::pin(sleep(left)));
            if timer.as_mut().poll(cx).is_pending() {
                return Poll::Pending;
            }
            timer.as_mut().reset(Instant::now() + left);
        }
        Poll::Pending
    }
}
