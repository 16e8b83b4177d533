//! What of a request decides which endpoint it goes to, apart from load.

use std::net::{IpAddr, SocketAddr};

use crate::fields::{AddedFields, leaving};
use http::{HeaderMap, HeaderValue, header};
use maesh_config::model::Balance;

use super::hash::{HashKey, of_address, of_endpoint, of_value};

/// What a request says to the balancer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Affinity {
    /// Nothing: load alone decides.
    None,
    /// It goes where all with this key go.
    Key(HashKey),
    /// It goes to the endpoint with this number, while that is usable.
    Endpoint(u64),
}

impl Affinity {
    /// Of a stream, of which nothing is known but its caller.
    pub(crate) fn of_caller(balance: &Balance, caller: IpAddr) -> Self {
        match balance {
            Balance::SourceHash { .. } => Self::Key(of_address(caller)),
            _ => Self::None,
        }
    }

    /// Of a request with this head, and what the proxy adds to it.
    pub(crate) fn of_request(balance: &Balance, caller: IpAddr, head: &HeaderMap, added: &AddedFields) -> Self {
        match balance {
            Balance::HeaderHash(name) => {
                leaving(name, head, added).map_or(Self::None, |value| Self::Key(of_value(value.as_bytes())))
            }
            Balance::CookieHash(name) => cookie(head, name).map_or(Self::None, |value| Self::Key(of_value(value))),
            Balance::Sticky(name) => cookie(head, name).and_then(number).map_or(Self::None, Self::Endpoint),
            _ => Self::of_caller(balance, caller),
        }
    }

    /// The cookie that keeps the caller at `endpoint`, where the policy wants one and the request had another, or none.
    pub(crate) fn cookie(self, balance: &Balance, endpoint: SocketAddr) -> Option<HeaderValue> {
        let Balance::Sticky(name) = balance else { return None };
        let endpoint = of_endpoint(endpoint);
        if self == Self::Endpoint(endpoint) {
            return None;
        }
        HeaderValue::try_from(format!("{name}={endpoint:016x}; Path=/; HttpOnly; SameSite=Lax")).ok()
    }
}

fn number(value: &[u8]) -> Option<u64> {
    let text = std::str::from_utf8(value).ok()?;
    let is_number = text.len() == 16 && text.bytes().all(|byte| byte.is_ascii_hexdigit());
    is_number.then(|| u64::from_str_radix(text, 16).ok()).flatten()
}

/// The value of the first cookie with this name (RFC 6265 section 4.2.1).
fn cookie<'a>(head: &'a HeaderMap, name: &str) -> Option<&'a [u8]> {
    let pairs = head.get_all(header::COOKIE).into_iter().flat_map(|field| field.as_bytes().split(|byte| *byte == b';'));
    pairs.map(<[u8]>::trim_ascii).find_map(|pair| pair.strip_prefix(name.as_bytes())?.strip_prefix(b"="))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn head(fields: &[(&'static str, &'static str)]) -> HeaderMap {
        let mut head = HeaderMap::new();
        for (name, value) in fields {
            head.append(*name, HeaderValue::from_static(value));
        }
        head
    }

    #[test]
    fn what_a_request_says() {
        let caller = IpAddr::from([10, 0, 0, 1]);
        let key = |value: &[u8]| Affinity::Key(of_value(value));
        for (balance, fields, want) in [
            ("p2c", &[][..], Affinity::None),
            ("hash:source", &[], Affinity::Key(of_address(caller))),
            ("hash:header:x-user", &[("x-user", "ann")], key(b"ann")),
            ("hash:header:x-user", &[], Affinity::None),
            ("hash:cookie:lane", &[("cookie", "a=1; lane=fast; b=2")], key(b"fast")),
            ("hash:cookie:lane", &[("cookie", "a=1"), ("cookie", "lane=slow")], key(b"slow")),
            ("hash:cookie:lane", &[("cookie", "lanes=1; xlane=2")], Affinity::None),
            ("sticky:at", &[("cookie", "at=00000000000000ff")], Affinity::Endpoint(255)),
            ("sticky:at", &[("cookie", "at=ff")], Affinity::None),
            ("sticky:at", &[("cookie", "at=+00000000000000f")], Affinity::None),
            ("sticky:at", &[], Affinity::None),
        ] {
            let policy = balance.parse().expect(balance);
            assert_eq!(
                Affinity::of_request(&policy, caller, &head(fields), &AddedFields::new()),
                want,
                "{balance} {fields:?}"
            );
        }
    }

    #[test]
    fn a_cookie_is_given_once() {
        let (policy, endpoint) = ("sticky:at".parse().expect("sticky"), SocketAddr::from(([10, 1, 0, 1], 80)));
        let given = Affinity::None.cookie(&policy, endpoint).expect("a cookie");
        let text = given.to_str().expect("text");
        let value = text.strip_prefix("at=").and_then(|rest| rest.split(';').next()).expect("a value");
        assert!(text.ends_with("; Path=/; HttpOnly; SameSite=Lax"), "{text}");
        let named = Affinity::Endpoint(number(value.as_bytes()).expect("a number"));
        assert_eq!(named.cookie(&policy, endpoint), None, "it has it");
        assert!(named.cookie(&policy, SocketAddr::from(([10, 1, 0, 2], 80))).is_some(), "it goes elsewhere now");
        assert_eq!(Affinity::None.cookie(&Balance::P2c, endpoint), None);
    }
}
