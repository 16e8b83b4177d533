//! When a connection that is to end says so.
//!
//! A GOAWAY that crosses a request ends only streams that the caller opens later (RFC 9113 section 6.8), and many callers take
//! it for a failure of that request all the same. So it is sent at a moment in which no request is under way and none has just
//! begun. A connection that has no such moment, or no request at all, hears it after [`Limits::leave_within`].
//!
//! [`Limits::leave_within`]: crate::Limits::leave_within

use std::time::Duration;

use tokio::{
    select,
    time::{sleep, timeout},
};

use crate::http::caller::Caller;

/// How long no request has to be under way.
const QUIET: Duration = Duration::from_millis(20);

/// Waits until the connection is to end, and then for a good moment to say so.
pub(super) async fn time_to_leave(caller: &Caller) {
    let mut closing = caller.worker.closing();
    select! {
        // An error means that the proxy is ending, and the connection with it.
        _ = closing.wait_for(|closing| *closing) => {}
        () = caller.is_sent_away() => {}
    }
    // The result does not matter: after the time, the moment is as good as any other.
    let _ = timeout(caller.shared.config.limits.leave_within, is_quiet(caller)).await;
}

/// Waits for a moment without requests, or until the caller was refused one because it is in the wrong place.
async fn is_quiet(caller: &Caller) {
    let mut before = None;
    while !caller.is_misplaced() {
        let begun = caller.begun();
        let at_rest = begun > 0 && caller.without_streams().is_some();
        if at_rest && before == Some(begun) {
            return;
        }
        before = at_rest.then_some(begun);
        select! {
            () = sleep(QUIET) => {}
            () = caller.is_sent_away() => {}
        }
    }
}
