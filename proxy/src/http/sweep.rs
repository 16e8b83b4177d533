//! Ending connections of callers whose time is up. The worker looks at each of them twice a second.

use std::{net::IpAddr, time::Duration};

use super::caller::{Caller, Stage};
use crate::{
    config::Limits,
    reason::Reason,
    worker::{CallerConnection, Held},
};

/// How long a connection of HTTP/2 that was asked to end may take for it.
const GOAWAY_GRACE: Duration = Duration::from_secs(10);

impl CallerConnection for Caller {
    /// Ends the connection if its head takes too long, or it was idle for too long. What was admitted on it is asked about again
    /// if access control has changed.
    fn sweep(&self, limits: &Limits, leaving: bool) {
        if leaving {
            self.sees_leaving();
        }
        self.identity.sweep(&self.shared);
        // A connection that was busy while a port was leaving has the shorter limit too, once it is idle.
        let idle = if self.saw_leaving() { limits.keep_alive_leaving } else { Duration::MAX };
        match self.stage() {
            Stage::Idle if self.since() > limits.keep_alive.min(idle) => self.dismiss(),
            Stage::Idle if self.since() > limits.park_after => self.park(),
            Stage::Head if self.since() > limits.head_timeout => self.end(),
            // Neither side has moved a byte for as long as the backend's policy allows.
            Stage::Busy if self.activity.left() == Some(Duration::ZERO) => self.end(),
            Stage::Busy if self.is_cut_off() => self.end(),
            Stage::Free if self.http2 && self.partial_head().is_some_and(|partial| partial > limits.head_timeout) => {
                self.end();
            }
            // Its streams go on; GOAWAY is sent only once, however often it is asked for.
            Stage::Free if self.http2 && self.quiet() > idle => self.send_away(),
            Stage::Free if self.http2 => end_unused(self, limits.keep_alive),
            _ => {}
        }
    }

    fn held(&self, caller: IpAddr) -> Option<Held> {
        // A connection of HTTP/2 with streams gives up those.
        let has_streams = self.http2 && self.without_streams().is_none();
        let bytes = if self.address == caller && !has_streams { Self::held(self) } else { 0 };
        (bytes > 0).then(|| Held { bytes, is_given_up: self.is_ended() })
    }

    fn give_up(&self) {
        self.shared.telemetry.refused(Reason::Overloaded);
        self.end();
    }

    fn end_idle(&self, quiet: Duration) {
        if self.stage() == Stage::Idle && self.since() >= quiet {
            self.dismiss();
        }
    }
}

/// Asks a connection of HTTP/2 without streams to end, and ends it if it did not in a while.
fn end_unused(caller: &Caller, keep_alive: Duration) {
    match caller.without_streams() {
        Some(unused) if unused > keep_alive + GOAWAY_GRACE => caller.end(),
        Some(unused) if unused > keep_alive => caller.send_away(),
        _ => {}
    }
}
