//! Hedging: a second attempt while the first one is slow.

use std::{
    future::{Future, poll_fn},
    pin::pin,
    task::Poll,
    time::Duration,
};

use maesh_config::policy::Hedge;
use tokio::time::timeout;

use crate::policy::CalledRuntime;

/// How long to wait before a second attempt begins, at `now`; `None` while too little is known for that.
pub(in crate::http) fn delay(hedge: &Hedge, runtime: &CalledRuntime, now: u32) -> Option<Duration> {
    match hedge {
        Hedge::After(time) => Some(*time),
        Hedge::Quantile(percent) => runtime.latency.quantile(*percent, now),
    }
}

/// Runs `first`, and after `after` what `second` makes as well, if it makes anything. The first success wins, and the other one
/// is dropped; a failure is waited over while the other one runs. Returns what came with the second one if that won.
pub(in crate::http) async fn race<R, E, H, S>(
    first: impl Future<Output = Result<R, E>>,
    after: Duration,
    second: impl FnOnce() -> Option<S>,
) -> (Result<R, E>, Option<H>)
where
    S: Future<Output = (Result<R, E>, H)>,
{
    let mut first = pin!(first);
    if let Ok(result) = timeout(after, first.as_mut()).await {
        return (result, None);
    }
    let Some(second) = second() else { return (first.await, None) };
    let mut second = pin!(second);
    let (mut failed, mut second_failed) = (None, false);
    poll_fn(|cx| {
        if failed.is_none()
            && let Poll::Ready(result) = first.as_mut().poll(cx)
        {
            match result {
                Ok(_) => return Poll::Ready((result, None)),
                Err(_) if second_failed => return Poll::Ready((result, None)),
                Err(error) => failed = Some(error),
            }
        }
        if !second_failed && let Poll::Ready((result, held)) = second.as_mut().poll(cx) {
            if result.is_ok() {
                return Poll::Ready((result, Some(held)));
            }
            second_failed = true;
        }
        // What the caller is told is why the first one failed.
        match failed.take_if(|_| second_failed) {
            Some(error) => Poll::Ready((Err(error), None)),
            None => Poll::Pending,
        }
    })
    .await
}

#[cfg(test)]
mod tests {
    use tokio::time::{Instant, sleep};

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn the_first_success_wins() {
        type Way = (u64, Result<&'static str, &'static str>);
        let slow: Way = (1_000, Ok("slow"));
        for (case, first, second, want, after_all, of_second) in [
            ("the first is in time", (50, Ok("first")), Some(slow), Ok("first"), 50, false),
            ("the first fails in time", (50, Err("first")), Some(slow), Err("first"), 50, false),
            ("the second is faster", slow, Some((20, Ok("second"))), Ok("second"), 120, true),
            ("the first is faster after all", (110, Ok("first")), Some(slow), Ok("first"), 110, false),
            ("no second is made", slow, None, Ok("slow"), 1_000, false),
            ("the second fails", (300, Ok("first")), Some((20, Err("second"))), Ok("first"), 300, false),
            ("the first fails late", (110, Err("first")), Some((50, Ok("second"))), Ok("second"), 150, true),
            ("both fail", (300, Err("first")), Some((20, Err("second"))), Err("first"), 300, false),
            ("both fail, the first one earlier", (110, Err("first")), Some((500, Err("x"))), Err("first"), 600, false),
        ] {
            let began = Instant::now();
            let run = |(millis, result): Way| async move {
                sleep(Duration::from_millis(millis)).await;
                result
            };
            let second = || second.map(|way: Way| async move { (run(way).await, ()) });
            let (result, held) = race(run(first), Duration::from_millis(100), second).await;
            assert_eq!((result, held.is_some()), (want, of_second), "{case}");
            assert_eq!(began.elapsed(), Duration::from_millis(after_all), "{case}");
        }
    }
}
