//! What is remembered of the last sessions with one endpoint, so that the next handshake is a short one.
//!
//! Of one endpoint, because the keys of tickets are mostly made by each pod for itself. Few, because a ticket is used once and
//! a connection brings new ones.

use std::{
    collections::VecDeque,
    time::{Duration, Instant},
};

use parking_lot::Mutex;
use rustls::{
    NamedGroup,
    client::{ClientSessionStore, Tls12ClientSessionValue, Tls13ClientSessionValue},
    pki_types::ServerName,
};

/// Tickets that are kept.
const TICKETS: usize = 4;

/// How long sessions are resumed. No certificate is looked at then, so one is looked at at least this often.
const LONGEST: Duration = Duration::from_secs(3600);

/// The sessions with one endpoint, under one name.
#[derive(Debug, Default)]
pub(super) struct Sessions(Mutex<Remembered>);

#[derive(Debug, Default)]
struct Remembered {
    group: Option<NamedGroup>,
    tls12: Option<Tls12ClientSessionValue>,
    tls13: VecDeque<Tls13ClientSessionValue>,
    /// When a certificate was last verified.
    verified: Option<Instant>,
}

impl Sessions {
    /// A certificate was verified, at `now`.
    pub(super) fn verified(&self, now: Instant) {
        self.0.lock().verified = Some(now);
    }
}

impl Remembered {
    fn may_resume(&self) -> bool {
        self.verified.is_some_and(|at| at.elapsed() < LONGEST)
    }
}

impl ClientSessionStore for Sessions {
    fn set_kx_hint(&self, _: ServerName<'static>, group: NamedGroup) {
        self.0.lock().group = Some(group);
    }

    fn kx_hint(&self, _: &ServerName<'_>) -> Option<NamedGroup> {
        self.0.lock().group
    }

    fn set_tls12_session(&self, _: ServerName<'static>, value: Tls12ClientSessionValue) {
        self.0.lock().tls12 = Some(value);
    }

    fn tls12_session(&self, _: &ServerName<'_>) -> Option<Tls12ClientSessionValue> {
        let remembered = self.0.lock();
        remembered.tls12.clone().filter(|_| remembered.may_resume())
    }

    fn remove_tls12_session(&self, _: &ServerName<'static>) {
        self.0.lock().tls12 = None;
    }

    fn insert_tls13_ticket(&self, _: ServerName<'static>, value: Tls13ClientSessionValue) {
        let mut remembered = self.0.lock();
        remembered.tls13.truncate(TICKETS - 1);
        remembered.tls13.push_front(value);
    }

    fn take_tls13_ticket(&self, _: &ServerName<'static>) -> Option<Tls13ClientSessionValue> {
        let mut remembered = self.0.lock();
        if !remembered.may_resume() {
            remembered.tls13.clear();
        }
        remembered.tls13.pop_front()
    }
}
