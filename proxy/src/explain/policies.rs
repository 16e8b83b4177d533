//! The policies in force, as annotations have them: those that differ from a Service without annotations.

use jiff::Timestamp;
use maesh_config::{
    duration::Written,
    policy::{BackendPolicy, CalledPolicy, ServiceRef},
};
use serde::{Deserialize, Serialize};

use crate::{policy::BreakerState, state::BackendPort};

/// One policy.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct PolicySeen {
    /// Its annotation, without the prefix.
    pub annotation: String,
    /// The value in force.
    pub value: String,
    /// What it does at this moment, where it has a state.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub state: Option<String>,
}

fn policy(annotation: &str, value: impl ToString) -> PolicySeen {
    PolicySeen { annotation: annotation.to_owned(), value: value.to_string(), state: None }
}

fn target(to: &ServiceRef) -> String {
    format!("{}.{}:{}", to.service.name, to.service.namespace, to.port)
}

/// Those of the port that is called.
pub(super) fn called(in_force: &CalledPolicy) -> Vec<PolicySeen> {
    let mut seen = Vec::new();
    let CalledPolicy { retry, request_timeout, try_timeout, rate_limit, hedge, mirror, fault, not_understood: _ } =
        in_force;
    let usual = CalledPolicy::default().retry;
    if retry.attempts != usual.attempts {
        seen.push(policy("retry-attempts", retry.attempts));
    }
    if retry.on != usual.on {
        seen.push(policy("retry-on", &retry.on));
    }
    if retry.budget != usual.budget {
        seen.push(policy("retry-budget", retry.budget));
    }
    seen.extend(request_timeout.map(|time| policy("timeout-request", Written(time))));
    seen.extend(try_timeout.map(|time| policy("timeout-try", Written(time))));
    if let Some(limit) = rate_limit {
        seen.push(policy("ratelimit-average", limit.average));
        seen.push(policy("ratelimit-burst", limit.burst));
        seen.push(policy("ratelimit-by", &limit.by));
    }
    seen.extend(hedge.map(|hedge| policy("hedge-after", hedge)));
    seen.extend(mirror.as_ref().map(|mirror| policy("mirror", format!("{} {}", target(&mirror.to), mirror.share))));
    if let Some(fault) = fault {
        seen.extend(fault.delay.map(|delay| policy("fault-delay", delay)));
        seen.extend(fault.abort.map(|abort| policy("fault-abort", abort)));
        let until = i64::try_from(fault.until).ok().and_then(|seconds| Timestamp::from_second(seconds).ok());
        let over = until.is_some_and(|until| until <= Timestamp::now());
        let text = until.map_or_else(|| fault.until.to_string(), |until| until.to_string());
        seen.push(PolicySeen { state: over.then(|| "over".to_owned()), ..policy("fault-until", text) });
    }
    seen
}

/// Those of a backend, whose state is that of `now`.
pub(super) fn backend(backend: &BackendPort, now: u32) -> Vec<PolicySeen> {
    let upstreams = backend.upstreams.load();
    let BackendPolicy { connect_timeout, idle_timeout, concurrency, queue, eject, breaker, fallback, .. } =
        &*upstreams.policy;
    let usual = BackendPolicy::default();
    let mut seen = Vec::new();
    if *connect_timeout != usual.connect_timeout {
        seen.push(policy("timeout-connect", Written(*connect_timeout)));
    }
    if *idle_timeout != usual.idle_timeout {
        seen.push(policy("timeout-idle", Written(idle_timeout.unwrap_or_default())));
    }
    match queue {
        Some(queue) => seen.push(policy("concurrency", format!("{concurrency},{}", queue.length))),
        None if *concurrency != usual.concurrency => seen.push(policy("concurrency", concurrency)),
        None => {}
    }
    let ejected = backend.seen(now).ejected;
    if eject.failures != usual.eject.failures || ejected > 0 {
        let state = (ejected > 0).then(|| format!("{ejected} of {} endpoints ejected", upstreams.usable.len()));
        seen.push(PolicySeen { state, ..policy("eject", eject.failures) });
    }
    if eject.most_percent != usual.eject.most_percent {
        seen.push(policy("eject-max", format!("{}%", eject.most_percent)));
    }
    if let Some(breaker) = breaker {
        let state = match backend.breaker.seen(now).0 {
            BreakerState::Closed => "closed",
            BreakerState::Recovering { .. } => "recovering",
            BreakerState::Open { .. } => "open",
        };
        seen.push(PolicySeen { state: Some(state.to_owned()), ..policy("circuit-breaker-expression", breaker) });
    }
    seen.extend(fallback.as_ref().map(|to| policy("fallback", target(to))));
    seen
}
