//! Who the caller on a connection is for access control, remembered for as long as nothing changes that it depends on.
//!
//! Whatever changes grants or identities counts [`Shared::access_version`] up. The worker's sweep compares, and wakes what
//! was admitted on the connection; so no request needs a timer of its own.

use std::{
    net::IpAddr,
    sync::atomic::{AtomicU64, Ordering},
};

use maesh_config::model::Account;
use parking_lot::Mutex;
use tokio::{
    pin,
    sync::{Notify, futures::Notified},
};

use crate::state::Shared;

/// Who the caller is.
#[derive(Default)]
pub(crate) struct CallerIdentity {
    /// Of a caller that is somebody. Of nobody it is asked again each time: it may be too early to know.
    known: Mutex<Option<KnownIdentity>>,
    changed: Notify,
    /// The version that the last sweep saw.
    swept: AtomicU64,
}

struct KnownIdentity {
    version: u64,
    account: Account,
}

impl CallerIdentity {
    /// It is known, and nothing has changed since.
    pub(crate) fn is_known(&self, shared: &Shared) -> bool {
        self.known.lock().as_ref().is_some_and(|known| known.version == shared.access_version())
    }

    /// Notes who `caller` is, of which it is known.
    pub(crate) fn identified(&self, shared: &Shared, caller: IpAddr) {
        // Read first: what changes meanwhile makes this look old.
        let version = shared.access_version();
        *self.known.lock() = shared.account_of(caller).map(|account| KnownIdentity { version, account });
    }

    /// The ServiceAccount of `caller`; `None` for nobody.
    pub(crate) fn account(&self, shared: &Shared, caller: IpAddr) -> Option<Account> {
        match &*self.known.lock() {
            Some(known) if known.version == shared.access_version() => Some(known.account.clone()),
            _ => shared.account_of(caller),
        }
    }

    /// Wakes what waits, if anything has changed since this was called last.
    pub(super) fn sweep(&self, shared: &Shared) {
        let version = shared.access_version();
        if self.swept.swap(version, Ordering::Relaxed) != version {
            self.changed.notify_waiters();
        }
    }

    /// What [`Self::revoked`] waits with, from before something is admitted on.
    pub(crate) fn change(&self) -> Notified<'_> {
        self.changed.notified()
    }

    /// Until `holds` does not any more; it is asked once grants or identities have changed.
    pub(crate) async fn revoked(&self, change: Notified<'_>, holds: impl Fn() -> bool) {
        pin!(change);
        loop {
            change.as_mut().await;
            change.set(self.changed.notified());
            if !holds() {
                return;
            }
        }
    }
}
