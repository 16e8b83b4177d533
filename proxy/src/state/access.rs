//! Who is admitted to what, with what is known of callers now.

use std::{
    net::IpAddr,
    sync::{Arc, atomic::Ordering},
    time::{Duration, Instant},
};

use maesh_config::{
    ServiceName,
    model::{AccessControl, Account},
};

use super::{BackendPort, MeshFacts, Port, Shared, WeightedRoute};
use crate::{
    access::{self, Admitted, AskedRequest},
    balance::Upstreams,
    config::Config,
    reason::Reason,
};

/// The stream to the controller is up.
const HEARD: u64 = u64::MAX;

impl Shared {
    /// Whether anybody asks who is admitted.
    pub(crate) fn controls_access(&self) -> bool {
        self.access_control().is_asked()
    }

    /// Whether anybody asks who is admitted, and denies.
    pub(crate) fn access_control(&self) -> AccessControl {
        match self.access_control.load(Ordering::Acquire) {
            mode if mode == AccessControl::Off as u8 => AccessControl::Off,
            mode if mode == AccessControl::DryRun as u8 => AccessControl::DryRun,
            _ => AccessControl::On,
        }
    }

    /// Puts in force what holds for the whole mesh.
    pub(crate) fn set_mesh(&self, mesh: MeshFacts) {
        let control = mesh.access_control;
        self.mesh.store(Arc::new(mesh));
        self.access_control.store(control as u8, Ordering::Release);
        self.access_changed();
    }

    /// The endpoints of a backend that a caller of this ServiceAccount may reach, with `request` if it makes one.
    pub(crate) fn admitted(
        &self,
        upstreams: &Upstreams,
        account: impl FnOnce() -> Option<Account>,
        request: Option<AskedRequest<'_>>,
    ) -> Admitted {
        if !self.access_control().denies() {
            return Admitted::All;
        }
        upstreams.access.admitted(account().as_ref(), request)
    }

    /// The same, for who is about to be sent there.
    ///
    /// # Errors
    /// There are none.
    pub(crate) fn reachable(
        &self,
        upstreams: &Upstreams,
        account: impl FnOnce() -> Option<Account>,
        request: Option<AskedRequest<'_>>,
    ) -> Result<Admitted, Reason> {
        let admitted = self.admitted(upstreams, account, request);
        match admitted.is_none() {
            false => Ok(admitted),
            true if upstreams.access.has_no_pods() => Err(Reason::NoEndpoints),
            true => Err(Reason::Denied),
        }
    }

    /// Who `caller` is for access control; `None` for nobody.
    pub(crate) fn account_of(&self, caller: IpAddr) -> Option<Account> {
        let workload = self.workloads.at(caller);
        access::account(caller, workload.as_deref(), &self.mesh.load().access_sources)
    }

    /// Waits until it is known who `caller` is, where access depends on it.
    ///
    /// # Errors
    /// The controller does not say, or has been away for so long that what it said is not trusted any more.
    pub(crate) async fn identify(&self, caller: IpAddr) -> Result<(), Reason> {
        if self.workloads.at(caller).is_none() {
            self.request_workload(caller);
            let Config { first_use, identity_hold, .. } = self.config;
            self.workloads.identified(caller, &self.clock, first_use, identity_hold).await;
        }
        self.identified(caller)
    }

    /// Whether it is known who `caller` is, where access depends on it.
    ///
    /// # Errors
    /// As [`Self::identify`].
    pub(crate) fn identified(&self, caller: IpAddr) -> Result<(), Reason> {
        let is_known = || self.workloads.at(caller).is_some() || self.workloads.is_answered(caller);
        if self.trusts_identities() && (!self.access_control().denies() || is_known()) {
            Ok(())
        } else {
            Err(Reason::NotSynced)
        }
    }

    /// Whether what the controller said of callers may be relied on, or need not be: it has not been away for long.
    pub(crate) fn trusts_identities(&self) -> bool {
        let lost = self.controller_lost.load(Ordering::Acquire);
        let away = || Duration::from_secs(self.clock.seconds().saturating_sub(lost));
        lost == HEARD || away() < self.config.identity_trust || !self.access_control().denies()
    }

    /// Whether no controller answers.
    pub(super) fn is_cut_off(&self) -> bool {
        self.controller_lost.load(Ordering::Acquire) != HEARD
    }

    /// Notes whether a controller answers.
    pub(crate) fn controller_answers(&self, answers: bool) {
        self.controller_lost.store(if answers { HEARD } else { self.clock.seconds() }, Ordering::Release);
    }

    /// Whether a caller with this address and ServiceAccount may reach something of each backend that its request, connection or
    /// flow may lead to by `route`.
    ///
    /// # Errors
    /// It may not, and access control denies it.
    pub(crate) fn admits(
        &self,
        called: &ServiceName,
        (port, route): (&Port, Option<&WeightedRoute>),
        (caller, account): (IpAddr, Option<&Account>),
        request: Option<AskedRequest<'_>>,
    ) -> Result<(), Reason> {
        match port.denied_at(route, |backend| backend.upstreams.load().access.admits(account, request)) {
            Some(denied) => self.denied(called, denied, (caller, account), request),
            None => Ok(()),
        }
    }

    /// A caller is denied a backend, or would be in a dry run.
    fn denied(
        &self,
        called: &ServiceName,
        denied: &BackendPort,
        caller: (IpAddr, Option<&Account>),
        request: Option<AskedRequest<'_>>,
    ) -> Result<(), Reason> {
        self.log_denied(called, denied, caller, request);
        if self.access_control().denies() {
            return Err(Reason::Denied);
        }
        self.telemetry.would_deny(called);
        Ok(())
    }

    /// Says who is denied what, or would be in a dry run: once in a while of each ServiceAccount and Service.
    fn log_denied(
        &self,
        called: &ServiceName,
        denied: &BackendPort,
        (caller, account): (IpAddr, Option<&Account>),
        request: Option<AskedRequest<'_>>,
    ) {
        let key = (account.cloned().ok_or(caller), denied.service.clone());
        let Some(left_out) = self.logs.denied.lock().note(key, Instant::now()) else { return };
        let account = account.map_or_else(|| "none".to_owned(), |account| account.to_string());
        let method = request.map(|request| request.head.method.as_str());
        let path = request.map(|request| request.head.uri.path());
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

    /// Says so in a dry run where `caller` would be denied a backend that a request or connection comes to besides its own: one
    /// that access control leaves out.
    pub(crate) fn try_out(
        &self,
        called: &ServiceName,
        further: &Arc<BackendPort>,
        caller: (IpAddr, Option<&Account>),
        request: Option<AskedRequest<'_>>,
    ) {
        let is_denied = || further.upstreams.load().access.admits(caller.1, request) == Some(false);
        if self.access_control() == AccessControl::DryRun && is_denied() {
            // A dry run denies nothing.
            let _ = self.denied(called, further, caller, request);
        }
    }
}
