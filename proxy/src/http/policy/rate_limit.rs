//! Rate limits of the Service that was called.

use std::{net::IpAddr, time::Duration};

use http::{HeaderMap, HeaderName, HeaderValue, header};
use maesh_config::policy::{RateLimit, RateLimitBy};
use xxhash_rust::xxh3::xxh3_128;

use crate::{
    http::answer::LocalAnswer,
    policy::{Limiter, Rate, TooMany},
    reason::Reason,
};

const LIMIT: HeaderName = HeaderName::from_static("ratelimit-limit");
const REMAINING: HeaderName = HeaderName::from_static("ratelimit-remaining");
const RESET: HeaderName = HeaderName::from_static("ratelimit-reset");

/// Counts a request of `caller` with this head, at `now` (nanoseconds of a clock of the process).
pub(in crate::http) fn check(
    limiter: &Limiter,
    limit: &RateLimit,
    caller: IpAddr,
    head: &HeaderMap,
    now: u64,
) -> Result<(), LocalAnswer> {
    let rate = Rate { average: limit.average, burst: limit.burst };
    let take = |key| limiter.take(key, rate, now).map_err(|TooMany { retry_after }| refusal(limit, retry_after));
    match &limit.by {
        RateLimitBy::Service => take(1),
        RateLimitBy::Source => take(of_address(caller)),
        RateLimitBy::Header(name) => {
            let mut values = head.get_all(&**name).iter().peekable();
            if values.peek().is_none() {
                return take(1);
            }
            // Which of several an endpoint reads is not known: the request counts for each.
            values.try_for_each(|value| take(xxh3_128(value.as_bytes())))
        }
    }
}

fn of_address(caller: IpAddr) -> u128 {
    match caller.to_canonical() {
        IpAddr::V4(address) => xxh3_128(&address.octets()),
        IpAddr::V6(address) => xxh3_128(&address.octets()),
    }
}

/// 429 with the time after which a request will pass (RFC 9110 section 10.2.3), and the fields that clients of rate limits
/// know (draft-ietf-httpapi-ratelimit-headers).
fn refusal(limit: &RateLimit, retry_after: Duration) -> LocalAnswer {
    let seconds = HeaderValue::from(retry_after.as_secs() + u64::from(retry_after.subsec_nanos() > 0));
    let mut answer = LocalAnswer::from(Reason::RateLimited);
    answer.headers.insert(LIMIT, HeaderValue::from(limit.burst));
    answer.headers.insert(REMAINING, HeaderValue::from_static("0"));
    answer.headers.insert(RESET, seconds.clone());
    answer.headers.insert(header::RETRY_AFTER, seconds);
    answer
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_counted_together() {
        let user = |value| HeaderMap::from_iter([(HeaderName::from_static("x-user"), HeaderValue::from_static(value))]);
        let two = |first, second| {
            let mut fields = user(first);
            fields.append("x-user", HeaderValue::from_static(second));
            fields
        };
        let (a, b) = (IpAddr::from([10, 0, 0, 1]), IpAddr::from([10, 0, 0, 2]));
        for (case, by, second, want) in [
            ("the same caller", RateLimitBy::Source, (a, user("x")), false),
            ("another caller", RateLimitBy::Source, (b, user("y")), true),
            ("the same Service", RateLimitBy::Service, (b, user("x")), false),
            ("the same value", RateLimitBy::Header("x-user".into()), (b, user("y")), false),
            ("another value", RateLimitBy::Header("x-user".into()), (a, user("x")), true),
            ("one of two values", RateLimitBy::Header("x-user".into()), (a, two("x", "y")), false),
            ("no value", RateLimitBy::Header("x-user".into()), (a, HeaderMap::new()), true),
        ] {
            let (limiter, limit) = (Limiter::default(), RateLimit { average: 1, burst: 1, by });
            assert!(check(&limiter, &limit, a, &user("y"), 1).is_ok(), "{case}: the first");
            let passed = check(&limiter, &limit, second.0, &second.1, 1).is_ok();
            assert_eq!(passed, want, "{case}");
        }
    }

    #[test]
    fn a_refusal_says_when_to_come_back() {
        let (limiter, limit) = (Limiter::default(), RateLimit { average: 1, burst: 2, by: RateLimitBy::Service });
        let caller = IpAddr::from([10, 0, 0, 1]);
        let refused = (0..3).find_map(|_| check(&limiter, &limit, caller, &HeaderMap::new(), 1).err());
        let refused = refused.expect("one too many");
        assert_eq!(refused.status.as_u16(), 429);
        for (name, want) in [("retry-after", "1"), ("ratelimit-limit", "2"), ("ratelimit-remaining", "0")] {
            assert_eq!(refused.headers[name], want, "{name}");
        }
    }
}
