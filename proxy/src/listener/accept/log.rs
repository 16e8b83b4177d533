//! The line of a TCP connection in the access log.

use std::{
    net::{IpAddr, SocketAddr},
    time::{Instant, SystemTime},
};

use maesh_config::ServiceName;

use crate::{reason::Reason, state::Shared, telemetry::AccessRecord, worker::Worker};

/// A connection that is logged when it ends. Boxed where it is kept, because most are not.
pub(super) struct StreamLog {
    caller: IpAddr,
    service: ServiceName,
    port: u16,
    began: (Instant, SystemTime),
}

impl StreamLog {
    /// A connection of `caller` to this port; `None` if it is not logged.
    pub(super) fn begin(worker: &Worker, caller: IpAddr, service: &ServiceName, port: u16) -> Option<Box<Self>> {
        let log = worker.shared.access_log.as_ref()?;
        let logged = || Self { caller, service: service.clone(), port, began: (Instant::now(), SystemTime::now()) };
        log.takes(worker.draw()).then(|| Box::new(logged()))
    }

    /// It has ended, after so many bytes from the caller and to it.
    pub(super) fn end(
        &self,
        shared: &Shared,
        endpoint: Option<SocketAddr>,
        (received, sent): (u64, u64),
        reason: Option<Reason>,
    ) {
        let Some(log) = &shared.access_log else { return };
        log.log(AccessRecord {
            caller: self.caller,
            called: Some((self.service.clone(), self.port)),
            backend: None,
            endpoint,
            reason,
            received,
            sent,
            began: self.began.1,
            took: self.began.0.elapsed(),
            request: None,
        });
    }
}
