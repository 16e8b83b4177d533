//! What is said of callers that access control denies, or would deny: a dry run counts and logs them, and delays nobody.

use std::{net::IpAddr, sync::Arc, time::Instant};

use maesh_config::{
    ServiceName,
    model::{AccessControl, Account},
};

use super::{BackendPort, Shared};
use crate::{access::AskedRequest, reason::Reason};

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
            return Err(Reason::Denied);
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
}
