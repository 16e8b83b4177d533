//! Whether a request is tried again.
//!
//! Without any policy, a request is tried once more after failures that say nothing about it: no connection was made; the
//! endpoint refused its stream of HTTP/2; or the request is idempotent, and its connection was closed by the endpoint because
//! it had waited unused, or because the endpoint was just removed. It is tried a few times more where it came too late on
//! connections that were ending (GOAWAY). A request of which nothing was sent was not tried at all. These cost nothing of the
//! policy's tries.
//!
//! The policy of the Service that was called ([`Retry`]) adds tries, for the outcomes that it lists and within its budget. A
//! response that has begun to reach the caller is never taken back: what decides is its head alone.

use std::time::Duration;

use http::{HeaderMap, StatusCode, response};
use maesh_config::policy::{GrpcCode, Retry, RetryCondition};

use crate::{connect::ConnectError, policy::Budget, reason::Reason, upstream::Failure};

/// Times that a request is made again of which nothing was sent. Such a failure costs no try, so this only ends a loop.
const UNSENT: u8 = 8;

/// Connections that may end, by a GOAWAY, below the stream of a request. A server that ends each connection after a few requests does
/// that to all that came at once.
const LEFT_BEHIND: u8 = 4;

/// Endpoints that are passed over because they do not speak the protocol that a request needs. What they speak is mostly known, so
/// this costs little.
const PASSED_OVER: u8 = 16;

/// The longest pause before the first further try of the policy; each next one may last twice as long.
const PAUSE: Duration = Duration::from_millis(25);
const LONGEST_PAUSE: Duration = Duration::from_millis(250);
/// The longest pause that a server of gRPC may ask for. After more than that, its failure is passed on at once.
const LONGEST_PUSHBACK: u64 = 2_000;

/// The reason that the caller is told when nothing more is tried.
pub(in crate::http) fn reason(failure: &Failure) -> Reason {
    match failure {
        Failure::Connect(error) => error.reason(),
        Failure::Unsent | Failure::Refused(_) | Failure::Closed { .. } => Reason::UpstreamReset,
        Failure::Protocol(_) => Reason::UpstreamProtocol,
        Failure::TimedOut => Reason::TryTimeout,
        Failure::Upload => Reason::BadRequest,
    }
}

/// Whether a failure says something about its endpoint. One that closes a connection because nobody uses it does nothing
/// wrong. `gone`: the endpoint has left its Service.
pub(in crate::http) fn counts_against_endpoint(failure: &Failure, gone: bool) -> bool {
    match failure {
        Failure::Connect(error) => error.is_of_endpoint(),
        Failure::Protocol(_) | Failure::TimedOut => true,
        Failure::Closed { reused, .. } => !reused && !gone,
        Failure::Unsent | Failure::Refused(_) | Failure::Upload => false,
    }
}

/// How one try ended.
#[derive(Clone, Copy, Debug)]
pub(in crate::http) enum Outcome<'a> {
    /// The head of a response is here.
    Response(&'a response::Parts),
    /// There is no response.
    Failure(&'a Failure),
}

/// What may be said of a request when a try has ended.
#[derive(Clone, Copy, Debug)]
pub(in crate::http) struct Request {
    /// Doing it twice does what doing it once does (RFC 9110 section 9.2.2).
    pub(in crate::http) idempotent: bool,
    /// It is a call of gRPC.
    pub(in crate::http) grpc: bool,
    /// All of its body is still here.
    pub(in crate::http) replayable: bool,
    /// The endpoint has left its Service meanwhile.
    pub(in crate::http) gone: bool,
    /// The caller has ended its side. It is given its response, but nothing is tried for its sake that costs an endpoint work.
    pub(in crate::http) caller_may_be_gone: bool,
}

/// How a request is tried again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::http) enum RetryKind {
    /// On another endpoint, if there is one.
    Elsewhere,
    /// On a connection that is new.
    Anew,
    /// Because the policy says so: on another endpoint, if there is one, after this pause.
    Policy(Duration),
}

/// Tries that are left for one request.
#[derive(Debug)]
pub(in crate::http) struct RetriesLeft<'a> {
    policy: &'a Retry,
    budget: &'a Budget,
    connects: u8,
    closed: u8,
    unsent: u8,
    passed_over: u8,
    left_behind: u8,
    /// Further tries that the policy has made.
    made: u32,
}

impl<'a> RetriesLeft<'a> {
    /// What every request has, and what the policy adds.
    pub(in crate::http) fn new(policy: &'a Retry, budget: &'a Budget) -> Self {
        Self {
            policy,
            budget,
            connects: 1,
            closed: 1,
            unsent: UNSENT,
            passed_over: PASSED_OVER,
            left_behind: LEFT_BEHIND,
            made: 0,
        }
    }

    /// Whether another try may follow a response: most policies ask for none.
    pub(in crate::http) fn follow_responses(&self) -> bool {
        self.made + 1 < self.policy.attempts
    }

    /// Whether and how to try again after `outcome`; uses up a try. `now` is in milliseconds, `draw` uniformly random.
    pub(in crate::http) fn again(
        &mut self,
        outcome: Outcome<'_>,
        request: Request,
        now: u32,
        draw: u64,
    ) -> Option<RetryKind> {
        if !request.replayable {
            return None;
        }
        if let Outcome::Failure(failure) = outcome
            && let Some(kind) = self.without_policy(failure, request)
        {
            return Some(kind);
        }
        if self.made + 1 >= self.policy.attempts
            || request.caller_may_be_gone
            || !asks_for(self.policy, outcome, request)
        {
            return None;
        }
        let pause = self.pause(outcome, draw)?;
        if !self.budget.take(self.policy.budget, now) {
            return None;
        }
        self.made += 1;
        Some(RetryKind::Policy(pause))
    }

    fn without_policy(&mut self, failure: &Failure, request: Request) -> Option<RetryKind> {
        let (left, kind) = match failure {
            Failure::Connect(ConnectError::OtherProtocol { .. }) => (&mut self.passed_over, RetryKind::Elsewhere),
            Failure::Connect(_) => (&mut self.connects, RetryKind::Elsewhere),
            Failure::Unsent => (&mut self.unsent, RetryKind::Anew),
            Failure::Refused(maesh_http2::Error::GoAway(..)) => (&mut self.left_behind, RetryKind::Anew),
            Failure::Refused(_) => (&mut self.closed, RetryKind::Elsewhere),
            Failure::Closed { reused, .. } if (*reused || request.gone) && request.idempotent => {
                (&mut self.closed, RetryKind::Anew)
            }
            Failure::Closed { .. } | Failure::Protocol(_) | Failure::TimedOut | Failure::Upload => return None,
        };
        *left = left.checked_sub(1)?;
        Some(kind)
    }

    /// How long to wait first: what a server of gRPC asks for, else a random time that grows. `None` if that server asks for no
    /// further try.
    fn pause(&self, outcome: Outcome<'_>, draw: u64) -> Option<Duration> {
        if let Outcome::Response(head) = outcome
            && let Some(asked) = head.headers.get("grpc-retry-pushback-ms")
        {
            let digits = asked.to_str().ok().filter(|text| text.bytes().all(|byte| byte.is_ascii_digit()))?;
            let millis = digits.parse().ok().filter(|millis| *millis <= LONGEST_PUSHBACK)?;
            return Some(Duration::from_millis(millis));
        }
        let most = PAUSE.saturating_mul(1 << self.made.min(8)).min(LONGEST_PAUSE);
        #[allow(clippy::cast_precision_loss)]
        Some(most.mul_f64((draw >> 40) as f64 / (1_u64 << 24) as f64))
    }
}

/// Whether the policy lists this outcome, and the request may be made again after it.
fn asks_for(policy: &Retry, outcome: Outcome<'_>, request: Request) -> bool {
    let on = &policy.on;
    let repeatable = request.idempotent || on.has(RetryCondition::AnyMethod);
    let code = |number| GrpcCode::of(number).is_some_and(|code| on.has(RetryCondition::Grpc(code)));
    match outcome {
        Outcome::Response(head) => {
            let status = head.status;
            (repeatable && on_status(policy, status)) || (request.grpc && grpc_status(&head.headers).is_some_and(code))
        }
        Outcome::Failure(failure) => {
            let reason = reason(failure);
            let grpc = request.grpc && code(reason.grpc().into());
            let listed = on_status(policy, reason.status());
            match failure {
                // The endpoint has not looked at it.
                Failure::Connect(_) => listed || grpc || on.has(RetryCondition::ConnectFailure),
                Failure::Unsent | Failure::Refused(_) => listed || grpc || on.has(RetryCondition::Reset),
                Failure::Closed { .. } => grpc || (repeatable && (listed || on.has(RetryCondition::Reset))),
                Failure::Protocol(_) | Failure::TimedOut => grpc || (repeatable && listed),
                Failure::Upload => false,
            }
        }
    }
}

fn on_status(policy: &Retry, status: StatusCode) -> bool {
    let on = &policy.on;
    // Most responses are no failures.
    status.as_u16() >= 400
        && (on.has(RetryCondition::Status(status.as_u16()))
            || (status.is_server_error() && on.has(RetryCondition::ServerError))
            || (matches!(status.as_u16(), 502..=504) && on.has(RetryCondition::GatewayError)))
}

/// The status of a response of gRPC that has no messages.
fn grpc_status(head: &HeaderMap) -> Option<u16> {
    head.get("grpc-status")?.to_str().ok()?.parse().ok()
}

#[cfg(test)]
mod tests;
