//! Who is admitted to what, with what is known of callers now.

use std::{
    net::IpAddr,
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

use maesh_config::{
    ServiceName,
    model::{AccessControl, Account},
};

use super::{BackendPort, Denial, MeshFacts, Port, Shared, WeightedRoute};
use crate::{
    access::{self, Access, Admitted, AskedRequest},
    balance::Upstreams,
    config::Config,
    reason::Reason,
};

/// The stream to the controller is up.
const HEARD: u64 = u64::MAX;

/// Turning access control on or off reaches a proxy in several messages, first the switch or first the grants. For this long
/// after either, a backend of which the grants were not compiled yet is as open as it was.
const SWITCHING: Duration = Duration::from_secs(10);

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
        if !self.access_control().denies() {
            self.controlled_since.store(self.clock.coarse(), Ordering::Release);
        }
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
        if !self.access_control().denies() || self.is_switching(&upstreams.access) {
            return Admitted::All;
        }
        upstreams.access.admitted(account().as_ref(), request)
    }

    /// Whether access control is being turned on or off, and has not reached these grants.
    pub(super) fn is_switching(&self, access: &Access) -> bool {
        access.open_since().is_some_and(|open| {
            let switched = self.controlled_since.load(Ordering::Acquire);
            self.clock.since(open).min(self.clock.since(switched)) < SWITCHING
        })
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
            // A dry run delays nobody.
            if self.access_control().denies() {
                self.settle(caller).await;
            }
        }
        self.identified(caller)
    }

    /// Waits until it is known who `caller` is, or believed that nobody is there.
    pub(super) async fn settle(&self, caller: IpAddr) {
        self.workloads.identified(caller, &self.clock, self.config.first_use, self.hold_of(caller)).await;
        // What was held so long made no pause.
        self.workloads.note_end_of_hold(caller, self.clock.coarse());
    }

    /// How long it is not believed that no pod has this address. Where the mesh is told who calls from there, it need not be a
    /// pod.
    fn hold_of(&self, caller: IpAddr) -> Duration {
        match access::account(caller, None, &self.mesh.load().access_sources) {
            Some(_) => Duration::ZERO,
            None => self.config.identity_hold,
        }
    }

    /// Whether it may still turn out who `caller` is.
    pub(super) fn is_unsettled(&self, caller: IpAddr) -> bool {
        let Config { first_use, .. } = self.config;
        self.workloads.at(caller).is_none()
            && self.workloads.is_awaited(caller, &self.clock, first_use, self.hold_of(caller))
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
        self: &Arc<Self>,
        called: &ServiceName,
        (port, route): (&Port, Option<&WeightedRoute>),
        (caller, account): (IpAddr, Option<&Account>),
        request: Option<AskedRequest<'_>>,
    ) -> Result<(), Reason> {
        let admits = |backend: &BackendPort| {
            let upstreams = backend.upstreams.load();
            if self.is_switching(&upstreams.access) { Some(true) } else { upstreams.access.admits(account, request) }
        };
        match port.denied_at(route, admits) {
            Some(backend) => self.deny(Denial { called, backend, caller, account, request }),
            None => Ok(()),
        }
    }
}
