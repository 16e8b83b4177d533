//! Waiting for something outside of this process, which can only be asked again and again.

use std::time::{Duration, Instant};

/// Asks `ready` every ten milliseconds until it says so, at most for `limit`; says whether it did.
pub fn until(limit: Duration, mut ready: impl FnMut() -> bool) -> bool {
    let deadline = Instant::now() + limit;
    loop {
        if ready() {
            return true;
        }
        if Instant::now() > deadline {
            return false;
        }
        pause();
    }
}

#[allow(clippy::disallowed_methods, reason = "other programs' state can only be polled")]
fn pause() {
    std::thread::sleep(Duration::from_millis(10));
}
