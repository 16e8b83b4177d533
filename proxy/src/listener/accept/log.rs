//! The line of a TCP connection in the access log.

use std::{
    net::IpAddr,
    time::{Instant, SystemTime},
};

use maesh_config::ServiceName;

use crate::{
    reason::Reason,
    state::{InFlight, Shared},
    telemetry::AccessRecord,
    worker::Worker,
};

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
    pub(super) fn end(&self, shared: &Shared, carried: &InFlight, (received, sent): (u64, u64)) {
        let (backend, endpoint) = (Some(carried.service().clone()), carried.endpoint());
        self.log(shared, AccessRecord { backend, endpoint, received, sent, ..self.record(None) });
    }

    /// No endpoint takes it, for this reason.
    pub(super) fn refused(&self, shared: &Shared, reason: Reason) {
        self.log(shared, self.record(Some(reason)));
    }

    fn log(&self, shared: &Shared, record: AccessRecord) {
        if let Some(log) = &shared.access_log {
            log.log(record);
        }
    }

    /// What is known of a connection that came nowhere.
    fn record(&self, reason: Option<Reason>) -> AccessRecord {
        AccessRecord {
            caller: self.caller,
            called: Some((self.service.clone(), self.port)),
            backend: None,
            endpoint: None,
            reason,
            received: 0,
            sent: 0,
            began: self.began.1,
            took: self.began.0.elapsed(),
            request: None,
        }
    }
}
