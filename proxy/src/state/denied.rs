//! What is said of callers that access control denies, or would deny: a dry run counts and logs them, and delays nobody.

use std::{collections::HashMap, net::IpAddr, sync::Arc, time::Instant};

use maesh_config::{
    ServiceName,
    model::{AccessControl, Account},
};
use maesh_discovery::{LogLimits, LogNote};

use super::{BackendPort, Shared};
use crate::{
    access::AskedRequest,
    reason::Reason,
    telemetry::{METHOD, PATH, bounded},
};

/// Most requests, connections and flows of a dry run that wait for the word who their caller is. Those beyond are counted as if
/// nobody were there.
pub(super) const MOST_WAITING: usize = 1024;

impl Shared {
    /// A caller is denied a backend, or would be in a dry run.
    ///
    /// # Errors
    /// It is denied.
    pub(super) fn denied(
        self: &Arc<Self>,
        called: &ServiceName,
        denied: &Arc<BackendPort>,
        caller: (IpAddr, Option<&Account>),
        request: Option<AskedRequest<'_>>,
    ) -> Result<(), Reason> {
        if self.access_control().denies() {
            self.log_denied(called, denied, caller, request);
            return Err(denied.upstreams.load().access.refusal(request));
        }
        if !(self.is_unsettled(caller.0) && self.tried_out_later(called, denied, caller.0, request)) {
            self.would_deny(called, denied, caller, request);
        }
        Ok(())
    }

    /// Says so in a dry run where `caller` would be denied a backend that a request or connection comes to besides its own: one
    /// that access control leaves out.
    pub(crate) fn try_out(
        self: &Arc<Self>,
        called: &ServiceName,
        further: &Arc<BackendPort>,
        caller: (IpAddr, Option<&Account>),
        request: Option<AskedRequest<'_>>,
    ) {
        if self.access_control() == AccessControl::DryRun && self.is_denied(further, caller.1, request) {
            // A dry run denies nothing.
            let _ = self.denied(called, further, caller, request);
        }
    }

    fn is_denied(&self, backend: &BackendPort, account: Option<&Account>, request: Option<AskedRequest<'_>>) -> bool {
        let upstreams = backend.upstreams.load();
        !self.is_switching(&upstreams.access) && upstreams.access.admits(account, request) == Some(false)
    }

    /// Access control would hold this until it is known who the caller is. A dry run lets it pass, and looks at it then. Whether
    /// there is room for one more.
    fn tried_out_later(
        self: &Arc<Self>,
        called: &ServiceName,
        denied: &Arc<BackendPort>,
        caller: IpAddr,
        request: Option<AskedRequest<'_>>,
    ) -> bool {
        let Ok(room) = self.tried_out.clone().try_acquire_owned() else { return false };
        let (shared, called, denied) = (self.clone(), called.clone(), denied.clone());
        let head = request.map(|request| Box::new(request.with_host()));
        tokio::spawn(async move {
            shared.settle(caller).await;
            let (account, request) = (shared.account_of(caller), head.as_deref().map(AskedRequest::of));
            let is_admitted = denied.upstreams.load().access.admits(account.as_ref(), request) == Some(true);
            if shared.access_control() == AccessControl::DryRun && !is_admitted {
                shared.would_deny(&called, &denied, (caller, account.as_ref()), request);
            }
            drop(room);
        });
        true
    }

    fn would_deny(
        &self,
        called: &ServiceName,
        denied: &BackendPort,
        caller: (IpAddr, Option<&Account>),
        request: Option<AskedRequest<'_>>,
    ) {
        self.log_denied(called, denied, caller, request);
        self.telemetry.would_deny(called);
    }

    /// Says who is denied what, or would be in a dry run: once in a while of each ServiceAccount and Service.
    fn log_denied(
        &self,
        called: &ServiceName,
        denied: &BackendPort,
        (caller, account): (IpAddr, Option<&Account>),
        request: Option<AskedRequest<'_>>,
    ) {
        let note = self.logs.denied.lock().note((caller, account), &denied.service, Instant::now());
        let account = account.map_or_else(|| "none".to_owned(), |account| account.to_string());
        let left_out = match note {
            LogNote::Log(left_out) => left_out,
            LogNote::Further(left_out) => {
                tracing::warn!(
                    %caller, account, left_out,
                    "access control denies, or would deny, this ServiceAccount more Services than have a line of their own each; \
                     see maesh_http_requests_total by reason"
                );
                return;
            }
            LogNote::Nothing => return,
        };
        let method = request.map(|request| bounded(request.head.method.as_str().as_bytes(), METHOD));
        let path = request.map(|request| bounded(request.head.uri.path().as_bytes(), PATH));
        if self.access_control().denies() {
            tracing::info!(
                service = %called, backend = %denied.service, %caller, account, method, path, left_out,
                "access control denies this; no TrafficTarget admits it"
            );
        } else {
            tracing::warn!(
                service = %called, backend = %denied.service, %caller, account, method, path, left_out,
                "access control would deny this; it is a dry run, so nothing is denied. Write a TrafficTarget that admits it, if it \
                 is meant to pass"
            );
        }
    }
}

/// ServiceAccounts of which denials are logged. There are hardly more, except where somebody makes them for that.
const ACCOUNTS: usize = 1024;
/// Services of which denials of one ServiceAccount are logged in a while, so that no one fills the log, or keeps others out of it.
const SERVICES: usize = 64;

/// Which denials were logged lately. Those without a ServiceAccount have the room of one, with an entry for each address.
#[derive(Default)]
pub(crate) struct DenialLog(HashMap<Option<Account>, LogLimits<(Option<IpAddr>, ServiceName)>>);

impl DenialLog {
    fn note(&mut self, (caller, account): (IpAddr, Option<&Account>), denied: &ServiceName, now: Instant) -> LogNote {
        let key = account.cloned();
        if self.0.len() >= ACCOUNTS && !self.0.contains_key(&key) {
            self.0.retain(|_, denials| !denials.is_silent(now));
            if self.0.len() >= ACCOUNTS {
                return LogNote::Nothing;
            }
        }
        let address = account.is_none().then_some(caller);
        self.0.entry(key).or_insert_with(|| LogLimits::of(SERVICES)).note((address, denied.clone()), now)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Who calls everything takes no line of anybody else, and that there is more is said.
    #[test]
    fn nobody_keeps_others_out_of_the_log() {
        let (mut log, now) = (DenialLog::default(), Instant::now());
        let (evil, other) = (Account::new("shop", "evil"), Account::new("shop", "other"));
        let from = IpAddr::from([10, 0, 0, 1]);
        let service = |number: usize| ServiceName::new("shop", format!("s{number}"));
        let mut notes = |account, number| log.note((from, account), &service(number), now);
        let all: Vec<_> = (0..2000).map(|number| notes(Some(&evil), number)).collect();
        assert_eq!(all.iter().filter(|note| **note == LogNote::Log(0)).count(), SERVICES);
        assert_eq!(all.iter().filter(|note| **note == LogNote::Further(0)).count(), 1);
        assert_eq!(notes(Some(&other), 0), LogNote::Log(0));
        assert_eq!(notes(None, 0), LogNote::Log(0));
        assert_eq!(notes(None, 0), LogNote::Nothing);
    }
}
