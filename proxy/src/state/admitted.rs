//! Streams that outlive the grant by which they were admitted.
//!
//! Access is asked when a stream begins. One that goes on for long is asked again when grants or identities changed, and ends
//! within a second if it is admitted no more.

use std::{
    net::{IpAddr, SocketAddr},
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

use http::request;

use super::{BackendPort, Shared};
use crate::access::AskedRequest;

/// How often a stream looks whether anything changed.
const LOOK: Duration = Duration::from_millis(500);

/// A stream to an endpoint, and what it was admitted with.
pub(crate) struct AdmittedStream {
    pub(crate) shared: Arc<Shared>,
    pub(crate) caller: IpAddr,
    pub(crate) backend: Arc<BackendPort>,
    pub(crate) endpoint: SocketAddr,
    /// The head of the request that it began with.
    pub(crate) request: Option<Box<request::Parts>>,
}

impl AdmittedStream {
    /// Until it is admitted no more.
    pub(crate) async fn revoked(self) {
        revoked(&self.shared, || self.holds()).await;
    }

    /// Whether it is admitted now.
    pub(crate) fn holds(&self) -> bool {
        let upstreams = self.backend.upstreams.load();
        let request = self.request.as_deref().map(AskedRequest::of);
        let admitted = self.shared.admitted(&upstreams, || self.shared.account_of(self.caller), request);
        admitted.is_all() || upstreams.account_of(self.endpoint).is_some_and(|account| admitted.has(account))
    }
}

/// Until this does not hold any more; it is asked once grants or identities have changed.
async fn revoked(shared: &Shared, holds: impl Fn() -> bool) {
    let mut seen = shared.access_version();
    loop {
        tokio::time::sleep(LOOK).await;
        let version = shared.access_version();
        if version != seen && !holds() {
            return;
        }
        seen = version;
    }
}

impl Shared {
    /// How often grants or identities have changed.
    pub(crate) fn access_version(&self) -> u64 {
        self.access_version.load(Ordering::Acquire)
    }

    /// Grants or identities have changed.
    pub(super) fn access_changed(&self) {
        self.access_version.fetch_add(1, Ordering::AcqRel);
    }
}
