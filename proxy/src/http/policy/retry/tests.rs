use std::{io, net::SocketAddr, sync::Arc};

use http::Response;
use maesh_config::policy::RetryBudget;

use super::*;
use crate::upstream::ProtocolError;

fn connect() -> Failure {
    let to = SocketAddr::from(([10, 0, 0, 1], 80));
    ConnectError::Failed { to, source: Arc::new(io::ErrorKind::ConnectionRefused.into()) }.into()
}

fn other_protocol() -> Failure {
    ConnectError::OtherProtocol { to: SocketAddr::from(([10, 0, 0, 1], 443)), wanted: "HTTP/2" }.into()
}

fn closed(reused: bool) -> Failure {
    Failure::Closed { source: Box::new(io::Error::from(io::ErrorKind::ConnectionReset)), reused }
}

fn refused() -> Failure {
    Failure::Refused(maesh_http2::Error::Reset(maesh_http2::Reason::REFUSED_STREAM, maesh_http2::Initiator::Peer))
}

fn left_behind() -> Failure {
    Failure::Refused(maesh_http2::Error::GoAway(maesh_http2::Reason::NO_ERROR, maesh_http2::Initiator::Peer))
}

fn head(status: u16, fields: &[(&'static str, &'static str)]) -> response::Parts {
    let mut response = Response::builder().status(status);
    for (name, value) in fields {
        response = response.header(*name, *value);
    }
    response.body(()).expect("a response").into_parts().0
}

const PLAIN: Request =
    Request { idempotent: false, grpc: false, replayable: true, gone: false, caller_may_be_gone: false };
const IDEMPOTENT: Request = Request { idempotent: true, ..PLAIN };

#[test]
fn what_is_tried_again_without_a_policy() {
    use RetryKind::{Anew, Elsewhere};
    for (case, failure, request, want) in [
        ("no connection", connect(), PLAIN, &[Some(Elsewhere), None][..]),
        ("no connection, and the body is gone", connect(), Request { replayable: false, ..PLAIN }, &[None]),
        ("no HTTP/2", other_protocol(), PLAIN, &[Some(Elsewhere); 16]),
        ("nothing was sent", Failure::Unsent, PLAIN, &[Some(Anew), Some(Anew), Some(Anew)]),
        ("a stream refused", refused(), PLAIN, &[Some(Elsewhere), None]),
        ("a connection that was ending", left_behind(), PLAIN, &[Some(Anew), Some(Anew), Some(Anew), Some(Anew), None]),
        ("closed while unused", closed(true), IDEMPOTENT, &[Some(Anew), None]),
        ("closed while unused, not idempotent", closed(true), PLAIN, &[None]),
        ("closed though new", closed(false), IDEMPOTENT, &[None]),
        ("closed by one that left", closed(false), Request { gone: true, ..IDEMPOTENT }, &[Some(Anew)]),
        ("not HTTP", Failure::Protocol(ProtocolError::Head), IDEMPOTENT, &[None]),
        ("the caller's fault", Failure::Upload, IDEMPOTENT, &[None]),
        ("no response in time", Failure::TimedOut, IDEMPOTENT, &[None]),
    ] {
        let (policy, budget) = (Retry::default(), Budget::default());
        let mut tries = RetriesLeft::new(&policy, &budget);
        for want in want {
            assert_eq!(tries.again(Outcome::Failure(&failure), request, 0, 0), *want, "{case}");
        }
    }
    let (policy, budget) = (Retry::default(), Budget::default());
    let response = head(503, &[]);
    assert_eq!(RetriesLeft::new(&policy, &budget).again(Outcome::Response(&response), IDEMPOTENT, 0, 0), None);
}

/// How many further tries the policy makes after the same outcome each time.
fn further(on: &str, attempts: u32, outcome: Outcome<'_>, request: Request) -> usize {
    let policy = Retry { attempts, on: on.parse().expect("conditions"), budget: RetryBudget::default() };
    let budget = Budget::default();
    let mut tries = RetriesLeft::new(&policy, &budget);
    let again = std::iter::from_fn(|| tries.again(outcome, request, 0, 0)).take(50);
    again.filter(|kind| matches!(kind, RetryKind::Policy(_))).count()
}

#[test]
fn a_policy_adds_tries_after_the_outcomes_that_it_lists() {
    let any = |request: Request| Request { grpc: true, ..request };
    for (case, on, failure, request, want) in [
        ("no connection", "connect-failure", connect(), PLAIN, 2),
        ("no connection, as a status", "gateway-error", connect(), PLAIN, 2),
        ("no connection, not listed", "reset", connect(), PLAIN, 0),
        ("closed", "reset", closed(false), IDEMPOTENT, 2),
        ("closed, not idempotent", "reset", closed(false), PLAIN, 0),
        ("closed, any method", "reset,any-method", closed(false), PLAIN, 2),
        ("closed, as a status", "502", closed(false), IDEMPOTENT, 2),
        ("refused, not idempotent", "reset", refused(), PLAIN, 2),
        ("not HTTP", "5xx", Failure::Protocol(ProtocolError::Head), IDEMPOTENT, 2),
        ("no response in time", "gateway-error", Failure::TimedOut, IDEMPOTENT, 2),
        ("a caller that may be gone", "reset", closed(false), Request { caller_may_be_gone: true, ..IDEMPOTENT }, 0),
        ("no response in time, not listed", "reset,connect-failure", Failure::TimedOut, IDEMPOTENT, 0),
        ("the caller's fault", "5xx,reset,any-method", Failure::Upload, IDEMPOTENT, 0),
        ("gRPC by its code", "unavailable", closed(false), any(PLAIN), 2),
        ("gRPC by another code", "internal", closed(false), any(PLAIN), 0),
        ("a code, but no gRPC", "unavailable", closed(false), PLAIN, 0),
        ("gRPC, no response in time", "deadline-exceeded", Failure::TimedOut, any(PLAIN), 2),
    ] {
        assert_eq!(further(on, 3, Outcome::Failure(&failure), request), want, "{case}");
        assert_eq!(further(on, 1, Outcome::Failure(&failure), request), 0, "{case}: without further tries");
    }
}

#[test]
fn a_policy_tries_again_after_statuses() {
    let unavailable = &[("grpc-status", "14")];
    for (case, on, status, fields, request, want) in [
        ("listed", "503", 503, &[][..], IDEMPOTENT, 2),
        ("not idempotent", "503", 503, &[], PLAIN, 0),
        ("any method", "503,any-method", 503, &[], PLAIN, 2),
        ("another one", "503", 500, &[], IDEMPOTENT, 0),
        ("a group", "5xx", 500, &[], IDEMPOTENT, 2),
        ("gateway errors are three", "gateway-error", 500, &[], IDEMPOTENT, 0),
        ("gateway error", "gateway-error", 504, &[], IDEMPOTENT, 2),
        ("below 500", "429", 429, &[], IDEMPOTENT, 2),
        ("success", "5xx,gateway-error", 200, &[], IDEMPOTENT, 0),
        ("gRPC", "unavailable", 200, unavailable, Request { grpc: true, ..PLAIN }, 2),
        ("gRPC, not listed", "internal", 200, unavailable, Request { grpc: true, ..PLAIN }, 0),
        ("fields of gRPC in other responses", "unavailable", 200, unavailable, IDEMPOTENT, 0),
        (
            "a server that asks for a long pause",
            "unavailable",
            200,
            &[("grpc-status", "14"), ("grpc-retry-pushback-ms", "86400000")],
            Request { grpc: true, ..PLAIN },
            0,
        ),
        (
            "a server that asks for no further try",
            "unavailable",
            200,
            &[("grpc-status", "14"), ("grpc-retry-pushback-ms", "-1")],
            Request { grpc: true, ..PLAIN },
            0,
        ),
    ] {
        let response = head(status, fields);
        assert_eq!(further(on, 3, Outcome::Response(&response), request), want, "{case}");
    }
}

#[test]
fn pauses_grow_and_are_random_unless_the_server_asks_for_one() {
    let policy = Retry { attempts: 10, on: "5xx,unavailable".parse().expect("conditions"), ..Retry::default() };
    let budget = Budget::default();
    let pauses = |response: &response::Parts, draw| -> Vec<Duration> {
        let mut tries = RetriesLeft::new(&policy, &budget);
        let request = Request { grpc: true, ..IDEMPOTENT };
        let again = std::iter::from_fn(|| tries.again(Outcome::Response(response), request, 0, draw));
        again.map(|kind| if let RetryKind::Policy(pause) = kind { pause } else { panic!("{kind:?}") }).collect()
    };
    let failed = head(500, &[]);
    assert!(pauses(&failed, 0).iter().all(Duration::is_zero));
    let longest = pauses(&failed, u64::MAX);
    for (i, most) in [25, 50, 100, 200, 250, 250].into_iter().enumerate() {
        let most = Duration::from_millis(most);
        assert!(longest[i] <= most && longest[i] > most.mul_f64(0.99), "{i}: {longest:?}");
    }
    let asked = head(200, &[("grpc-status", "14"), ("grpc-retry-pushback-ms", "70")]);
    assert_eq!(pauses(&asked, u64::MAX)[0], Duration::from_millis(70));
}

#[test]
fn the_budget_ends_further_tries() {
    let policy = Retry {
        attempts: 3,
        on: "5xx".parse().expect("conditions"),
        budget: RetryBudget { percent: 0, per_second: 0 },
    };
    let budget = Budget::default();
    let response = head(503, &[]);
    assert_eq!(RetriesLeft::new(&policy, &budget).again(Outcome::Response(&response), IDEMPOTENT, 0, 0), None);
}

#[test]
fn an_idle_connection_that_closes_says_nothing_about_its_endpoint() {
    for (case, failure, gone, want) in [
        ("no connection", connect(), false, true),
        ("closed while unused", closed(true), false, false),
        ("closed though new", closed(false), false, true),
        ("closed by one that left", closed(false), true, false),
        ("nothing was sent", Failure::Unsent, false, false),
        ("not HTTP", Failure::Protocol(ProtocolError::Chunk), false, true),
        ("no response in time", Failure::TimedOut, false, true),
        ("the caller's fault", Failure::Upload, false, false),
    ] {
        assert_eq!(counts_against_endpoint(&failure, gone), want, "{case}");
    }
}
