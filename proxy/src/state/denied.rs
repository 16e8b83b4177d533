//! What is said of callers that access control denies, or would deny: a dry run counts and logs them, and delays nobody.

use std::{collections::HashMap, hash::Hash, net::IpAddr, sync::Arc, time::Instant};

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

/// A caller whom no grant admits to a backend.
#[derive(Clone, Copy)]
pub(crate) struct Denial<'a> {
    /// The Service that was called.
    pub(crate) called: &'a ServiceName,
    /// Where the request, connection or flow would have gone.
    pub(crate) backend: &'a Arc<BackendPort>,
    /// The caller's address, and its ServiceAccount if one is known.
    pub(crate) caller: IpAddr,
    pub(crate) account: Option<&'a Account>,
    /// The request, where it is one.
    pub(crate) request: Option<AskedRequest<'a>>,
}

impl Shared {
    /// Denies, or in a dry run counts and logs.
    ///
    /// # Errors
    /// It is denied.
    pub(super) fn deny(self: &Arc<Self>, denial: Denial<'_>) -> Result<(), Reason> {
        if self.access_control().denies() {
            self.log_denied(denial);
            return Err(denial.backend.upstreams.load().access.refusal(denial.request));
        }
        if !(self.is_unsettled(denial.caller) && self.tried_out_later(denial)) {
            self.would_deny(denial);
        }
        Ok(())
    }

    /// Says so in a dry run where the caller would be denied a backend that a request or connection comes to besides its own: one
    /// that access control leaves out.
    pub(crate) fn try_out(self: &Arc<Self>, possible: Denial<'_>) {
        if self.access_control() == AccessControl::DryRun && self.is_denied(possible) {
            // A dry run denies nothing.
            let _ = self.deny(possible);
        }
    }

    fn is_denied(&self, Denial { backend, account, request, .. }: Denial<'_>) -> bool {
        let upstreams = backend.upstreams.load();
        !self.is_switching(&upstreams.access) && upstreams.access.admits(account, request) == Some(false)
    }

    /// Access control would hold this until it is known who the caller is. A dry run lets it pass, and looks at it then. Whether
    /// there is room for one more.
    fn tried_out_later(self: &Arc<Self>, denial: Denial<'_>) -> bool {
        let Ok(room) = self.tried_out.clone().try_acquire_owned() else { return false };
        let (shared, called, backend, caller) =
            (self.clone(), denial.called.clone(), denial.backend.clone(), denial.caller);
        let head = denial.request.map(|request| Box::new(request.with_host()));
        tokio::spawn(async move {
            shared.settle(caller).await;
            let (account, request) = (shared.account_of(caller), head.as_deref().map(AskedRequest::of));
            let is_admitted = backend.upstreams.load().access.admits(account.as_ref(), request) == Some(true);
            if shared.access_control() == AccessControl::DryRun && !is_admitted {
                let (called, backend, account) = (&called, &backend, account.as_ref());
                shared.would_deny(Denial { called, backend, caller, account, request });
            }
            drop(room);
        });
        true
    }

    fn would_deny(&self, denial: Denial<'_>) {
        self.log_denied(denial);
        self.telemetry.would_deny(denial.called);
    }

    /// Says who is denied what, or would be in a dry run: once in a while of each ServiceAccount and Service.
    fn log_denied(&self, Denial { called, backend, caller, account, request }: Denial<'_>) {
        let backend = &backend.service;
        let note = self.logs.denied.lock().note((caller, account), backend, Instant::now());
        let name = || account.map_or_else(|| "none".to_owned(), Account::to_string);
        let left_out = match note {
            LogNote::Log(left_out) => left_out,
            LogNote::Further(left_out) if account.is_none() => {
                tracing::warn!(
                    %backend, left_out,
                    "access control denies this Service, or would deny it, to more than 16 callers without a ServiceAccount; the \
                     others are not logged"
                );
                return;
            }
            LogNote::Further(left_out) => {
                tracing::warn!(
                    account = name(),
                    left_out,
                    "access control denies, or would deny, this ServiceAccount more than 64 Services; the others are not logged"
                );
                return;
            }
            LogNote::Nothing => return,
        };
        let account = name();
        let method = request.map(|request| bounded(request.head.method.as_str().as_bytes(), METHOD));
        let path = request.map(|request| bounded(request.head.uri.path().as_bytes(), PATH));
        if self.access_control().denies() {
            tracing::info!(
                service = %called, %backend, %caller, account, method, path, left_out,
                "access control denies this; no TrafficTarget admits it"
            );
        } else {
            tracing::warn!(
                service = %called, %backend, %caller, account, method, path, left_out,
                "access control would deny this; it is a dry run, so nothing is denied. Write a TrafficTarget that admits it, if it \
                 is meant to pass"
            );
        }
    }
}

/// ServiceAccounts of which denials are logged, and Services of which those to callers without one are. There are hardly more,
/// except where somebody makes them for that.
const GROUPS: usize = 1024;
/// Services of which denials of one ServiceAccount are logged in a while, so that no one fills the log, or keeps others out of it.
const SERVICES: usize = 64;
/// Callers without a ServiceAccount of which denials of one Service are logged in a while. Their addresses may be forged.
const ADDRESSES: usize = 16;

/// Which denials were logged lately.
#[derive(Default)]
pub(crate) struct DenialLog {
    /// Those of each ServiceAccount.
    of_accounts: Shares<Account, ServiceName>,
    /// Those of each Service, to callers without a ServiceAccount.
    of_nobody: Shares<ServiceName, IpAddr>,
}

/// Each has a share of the log of its own, so that no others keep it out.
type Shares<K, T> = HashMap<K, LogLimits<T>>;

impl DenialLog {
    fn note(&mut self, (caller, account): (IpAddr, Option<&Account>), denied: &ServiceName, now: Instant) -> LogNote {
        match account {
            Some(account) => note(&mut self.of_accounts, account, SERVICES, denied.clone(), now),
            None => note(&mut self.of_nobody, denied, ADDRESSES, caller, now),
        }
    }
}

/// Takes note of `what` in the share of `whose`, in which there is room for `most`.
fn note<K: Clone + Eq + Hash, T: Eq + Hash>(
    shares: &mut Shares<K, T>,
    whose: &K,
    most: usize,
    what: T,
    now: Instant,
) -> LogNote {
    if shares.len() >= GROUPS && !shares.contains_key(whose) {
        shares.retain(|_, denials| !denials.is_silent(now));
        if shares.len() >= GROUPS {
            return LogNote::Nothing;
        }
    }
    shares.entry(whose.clone()).or_insert_with(|| LogLimits::of(most)).note(what, now)
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

    /// Who calls from many addresses that no pod has takes the log of one Service, and of no other.
    #[test]
    fn forged_addresses_hide_no_denial_of_another_service() {
        let (mut log, now) = (DenialLog::default(), Instant::now());
        let mut note =
            |last, service| log.note((IpAddr::from([10, 0, 0, last]), None), &ServiceName::new("shop", service), now);
        let all: Vec<_> = (0..200).map(|last| note(last, "web")).collect();
        assert_eq!(all.iter().filter(|note| **note == LogNote::Log(0)).count(), ADDRESSES);
        assert_eq!(all.iter().filter(|note| **note == LogNote::Further(0)).count(), 1);
        assert_eq!(note(201, "admin"), LogNote::Log(0));
    }

    /// Neither many Services called from nowhere, nor many ServiceAccounts, fill the log for the others.
    #[test]
    fn each_kind_of_caller_has_room_of_its_own() {
        let (mut log, now) = (DenialLog::default(), Instant::now());
        let (from, admin) = (IpAddr::from([10, 0, 0, 1]), ServiceName::new("shop", "admin"));
        let (other, many) = (Account::new("shop", "other"), 0..2 * GROUPS);
        let called = |number: usize| ServiceName::new("shop", format!("s{number}"));
        let logged = many.clone().filter(|number| log.note((from, None), &called(*number), now) == LogNote::Log(0));
        assert_eq!(logged.count(), GROUPS);
        assert_eq!(log.note((from, Some(&other)), &admin, now), LogNote::Log(0));
        let mut log = DenialLog::default();
        let caller = |number: usize| Account::new("shop", format!("a{number}"));
        let logged = many.filter(|number| log.note((from, Some(&caller(*number))), &admin, now) == LogNote::Log(0));
        assert_eq!(logged.count(), GROUPS);
        assert_eq!(log.note((from, None), &admin, now), LogNote::Log(0));
    }
}
