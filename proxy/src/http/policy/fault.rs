//! Faults made on purpose: requests that wait, and requests that are refused.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use http::StatusCode;
use maesh_config::policy::Fault;

use crate::{http::answer::LocalAnswer, reason::Reason};

/// What a request has to bear.
#[derive(Debug, Default)]
pub(in crate::http) struct Injected {
    /// It waits so long before anything else happens.
    pub(in crate::http) delay: Option<Duration>,
    /// It is refused then.
    pub(in crate::http) abort: Option<LocalAnswer>,
}

/// Draws whether one request has to bear the faults; `draws` are uniformly random.
pub(in crate::http) fn draw(fault: &Fault, now: SystemTime, draws: [u64; 2]) -> Injected {
    let seconds = now.duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs());
    if seconds >= fault.until {
        return Injected::default();
    }
    let [of_delay, of_abort] = draws;
    Injected {
        delay: fault.delay.filter(|delay| delay.share.takes(of_delay)).map(|delay| delay.time),
        abort: fault.abort.filter(|abort| abort.share.takes(of_abort)).map(|abort| {
            let status = StatusCode::from_u16(abort.status).unwrap_or(StatusCode::SERVICE_UNAVAILABLE);
            LocalAnswer { status, ..LocalAnswer::from(Reason::FaultInjected) }
        }),
    }
}

#[cfg(test)]
mod tests {
    use maesh_config::policy::{FaultAbort, FaultDelay};

    use super::*;

    #[test]
    fn faults_end_and_take_their_share() {
        let delay: FaultDelay = "200ms 25%".parse().expect("a delay");
        let abort: FaultAbort = "418 50%".parse().expect("an abort");
        let fault = Fault { delay: Some(delay), abort: Some(abort), until: 1_000 };
        let at = |seconds| UNIX_EPOCH + Duration::from_secs(seconds);
        let (mut delayed, mut refused) = (0, 0);
        for i in 0..10_000_u64 {
            let injected = draw(&fault, at(999), [i, i]);
            delayed += usize::from(injected.delay == Some(Duration::from_millis(200)));
            refused += usize::from(injected.abort.is_some_and(|answer| answer.status.as_u16() == 418));
            let after = draw(&fault, at(1_000), [i, i]);
            assert!(after.delay.is_none() && after.abort.is_none(), "it has ended");
        }
        assert_eq!((delayed, refused), (2_500, 5_000));
    }
}
