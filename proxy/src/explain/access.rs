//! Whether the caller is admitted, decided by the functions that requests pass.

use maesh_config::model::Protocol;

use super::{AccessSeen, Explainer, PortSeen, Question, Sent};
use crate::{
    access::{Admitted, AskedRequest},
    http::check_head,
    reason::Reason,
    state::{BackendPort, Port},
};

impl Explainer {
    /// Whether who calls is asked for, in a word.
    pub(super) fn access_control(&self) -> Option<String> {
        let control = self.shared.access_control();
        control.is_asked().then(|| control.to_string())
    }

    /// What access control says of the caller at a backend; `None` where it is off or the caller or the request is not said.
    pub(super) fn access(&self, protocol: Protocol, backend: &BackendPort, question: &Question) -> Option<AccessSeen> {
        let caller = question.caller.filter(|_| self.shared.controls_access())?;
        let account = self.shared.account_of(caller);
        let upstreams = backend.upstreams.load();
        let say = |request: Option<AskedRequest<'_>>| {
            let admitted = upstreams.access.admitted(account.as_ref(), request);
            let targets =
                account.as_ref().map(|account| upstreams.access.admitting(account, request)).unwrap_or_default();
            let endpoints = upstreams.usable.iter().filter(|candidate| admitted.has(candidate.account)).count();
            AccessSeen { admitted: !Admitted::is_none(&admitted), endpoints, targets: targets.into_iter().collect() }
        };
        match (protocol, &question.sent) {
            (Protocol::Http, Some(Sent::Request(request))) => {
                let mut head = request.head(&question.host);
                let host = check_head(&mut head, &self.shared.config.limits).ok()?;
                Some(say(Some(AskedRequest::new(host.as_ref(), &head))))
            }
            (Protocol::Http, None) => None,
            _ => Some(say(None)),
        }
    }

    /// Whether the caller is denied what it sends: it has to be admitted to every backend that may get it.
    pub(super) fn denies(&self, port: &Port, seen: &PortSeen, question: &Question) -> Option<Reason> {
        if !self.shared.access_control().denies() {
            return None;
        }
        let number = match seen.taken {
            Some(number) => number,
            None if port.routes.is_empty() => 0,
            None => return None,
        };
        let admits = |backend: &BackendPort| {
            let is_admitted = || self.access(port.protocol, backend, question).is_none_or(|access| access.admitted);
            (!backend.upstreams.load().access.has_no_pods()).then(is_admitted)
        };
        let denied = port.denied_at(port.routes.get(number), admits)?;
        let head = match (port.protocol, &question.sent) {
            (Protocol::Http, Some(Sent::Request(request))) => Some(request.head(&question.host)),
            _ => None,
        };
        Some(denied.upstreams.load().access.refusal(head.as_ref().map(AskedRequest::of)))
    }
}
