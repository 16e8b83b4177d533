//! How long a request may take, and what is said of it to the next hop.
//!
//! The request's own limit is the smaller of `timeout-request` and what the caller allows in [`TIMEOUT`]; a call of gRPC with a
//! limit passes it on in `grpc-timeout`, never raising what the caller wrote there.

use std::time::Duration;

use http::{HeaderMap, HeaderName, HeaderValue};
use maesh_config::policy::CalledPolicy;

use crate::fields::{Present, Sought};

/// Milliseconds that a request may take, from whoever sends it. The proxy keeps to it, and passes it on.
pub(in crate::http) const TIMEOUT: HeaderName = HeaderName::from_static("x-maesh-timeout-ms");
/// The same of gRPC, with a unit.
const GRPC_TIMEOUT: HeaderName = HeaderName::from_static("grpc-timeout");

/// How long the request may take in all; `None` for no limit.
pub(in crate::http) fn of_request(policy: &CalledPolicy, head: &HeaderMap, present: Present) -> Option<Duration> {
    let said = if present.has(Sought::Mesh) { head.get(&TIMEOUT) } else { None };
    let asked = said.and_then(millis).map(Duration::from_millis);
    match (policy.request_timeout, asked) {
        (Some(limit), Some(asked)) => Some(limit.min(asked)),
        (limit, asked) => limit.or(asked),
    }
}

/// Tells the endpoint how long it may take: as long as the request, and no longer than one try may take. What an earlier try
/// or a `fault-delay` took is not subtracted.
pub(in crate::http) fn pass_on(
    policy: &CalledPolicy,
    limit: Option<Duration>,
    grpc: bool,
    head: &mut HeaderMap,
    present: Present,
) {
    let left = match (limit, policy.try_timeout) {
        (Some(limit), Some(of_try)) => limit.min(of_try),
        (limit, of_try) => match limit.or(of_try) {
            Some(left) => left,
            None => {
                // What could not be read means nothing to the endpoint either.
                if present.has(Sought::Mesh) {
                    head.remove(&TIMEOUT);
                }
                return;
            }
        },
    };
    let left = u64::try_from(left.as_millis()).unwrap_or(u64::MAX);
    head.insert(TIMEOUT, HeaderValue::from(left));
    if grpc && head.get(&GRPC_TIMEOUT).and_then(grpc_timeout).is_none_or(|said| said > Duration::from_millis(left)) {
        head.insert(GRPC_TIMEOUT, grpc_text(left));
    }
}

fn millis(value: &HeaderValue) -> Option<u64> {
    let text = value.to_str().ok()?;
    let digits = (1..=15).contains(&text.len()) && text.bytes().all(|byte| byte.is_ascii_digit());
    digits.then(|| text.parse().ok()).flatten()
}

/// A value of `grpc-timeout`: at most eight digits and a unit (the gRPC protocol over HTTP/2, "Timeout").
fn grpc_timeout(value: &HeaderValue) -> Option<Duration> {
    let text = value.to_str().ok()?;
    let (digits, unit) = text.split_at_checked(text.len().checked_sub(1)?)?;
    if !(1..=8).contains(&digits.len()) || !digits.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    let number: u64 = digits.parse().ok()?;
    Some(match unit {
        "H" => Duration::from_secs(number * 3600),
        "M" => Duration::from_secs(number * 60),
        "S" => Duration::from_secs(number),
        "m" => Duration::from_millis(number),
        "u" => Duration::from_micros(number),
        "n" => Duration::from_nanos(number),
        _ => return None,
    })
}

fn grpc_text(millis: u64) -> HeaderValue {
    let text = match millis {
        0..=99_999_999 => format!("{millis}m"),
        _ => format!("{}S", (millis / 1000).min(99_999_999)),
    };
    HeaderValue::try_from(text).unwrap_or(HeaderValue::from_static("99999999S"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fields(pairs: &[(&'static str, &'static str)]) -> HeaderMap {
        pairs.iter().map(|(name, value)| (HeaderName::from_static(name), HeaderValue::from_static(value))).collect()
    }

    #[test]
    fn the_smaller_limit_holds() {
        for (case, policy, field, want) in [
            ("neither", None, None, None),
            ("the policy's", Some(5_000), None, Some(5_000)),
            ("the caller's", None, Some("300"), Some(300)),
            ("the caller's is smaller", Some(5_000), Some("300"), Some(300)),
            ("the policy's is smaller", Some(100), Some("300"), Some(100)),
            ("not a number", Some(100), Some("soon"), Some(100)),
            ("a sign", None, Some("+5"), None),
            ("too large a number", None, Some("9999999999999999"), None),
        ] {
            let policy = CalledPolicy { request_timeout: policy.map(Duration::from_millis), ..CalledPolicy::default() };
            let head: Vec<_> = field.map(|value| ("x-maesh-timeout-ms", value)).into_iter().collect();
            assert_eq!(
                of_request(&policy, &fields(&head), Present::of(&fields(&head))),
                want.map(Duration::from_millis),
                "{case}"
            );
        }
    }

    #[test]
    fn what_is_left_is_passed_on() {
        for (case, limit, of_try, grpc, said, want, want_grpc) in [
            ("nothing", None, None, false, None, None, None),
            ("nothing, gRPC", None, None, true, Some("5S"), None, Some("5S")),
            ("a limit", Some(700), None, false, None, Some("700"), None),
            ("a smaller try", Some(700), Some(100), false, None, Some("100"), None),
            ("a try alone", None, Some(100), false, None, Some("100"), None),
            ("gRPC", Some(700), None, true, None, Some("700"), Some("700m")),
            ("gRPC is lowered", Some(700), None, true, Some("5S"), Some("700"), Some("700m")),
            ("gRPC is never raised", Some(700), None, true, Some("50m"), Some("700"), Some("50m")),
            ("gRPC that cannot be read", Some(700), None, true, Some("x"), Some("700"), Some("700m")),
            ("long", Some(200_000_000), None, true, None, Some("200000000"), Some("200000S")),
        ] {
            let policy = CalledPolicy { try_timeout: of_try.map(Duration::from_millis), ..CalledPolicy::default() };
            let said: Vec<_> = said.map(|value| ("grpc-timeout", value)).into_iter().collect();
            let mut head = fields(&said);
            let present = Present::of(&head);
            pass_on(&policy, limit.map(Duration::from_millis), grpc, &mut head, present);
            let get = |name: &str| head.get(name).map(|value| value.to_str().expect("text"));
            assert_eq!((get("x-maesh-timeout-ms"), get("grpc-timeout")), (want, want_grpc), "{case}");
        }
    }

    #[test]
    fn timeouts_of_grpc() {
        for (text, want) in [
            ("1H", Some(3_600_000_000)),
            ("2M", Some(120_000_000)),
            ("3S", Some(3_000_000)),
            ("4m", Some(4_000)),
            ("5u", Some(5)),
            ("6000n", Some(6)),
            ("", None),
            ("S", None),
            ("123456789m", None),
            ("-1S", None),
            ("1x", None),
        ] {
            let got = grpc_timeout(&HeaderValue::from_static(text));
            assert_eq!(got, want.map(Duration::from_micros), "{text:?}");
        }
    }
}
