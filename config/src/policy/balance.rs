//! How an endpoint is picked.

use std::{fmt, str::FromStr, sync::Arc, time::Duration};

use serde::{Serialize, Serializer};

use super::field::{BadFieldName, cookie_name, field_name};

/// The cookie of `sticky` without a name.
pub const STICKY_COOKIE: &str = "maesh_endpoint";

/// How an endpoint is picked.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Balance {
    /// Power of two choices by peak EWMA.
    P2c,
    /// One after the other.
    RoundRobin,
    /// The one with the fewest requests in flight.
    LeastRequest,
    /// The same endpoint for the same caller address (`sessionAffinity: ClientIP`), forgotten after this idle time.
    SourceHash {
        /// Idle time after which a caller may go elsewhere.
        timeout: Duration,
    },
    /// The same endpoint for the same value of this field (lower case).
    HeaderHash(Arc<str>),
    /// The same endpoint for the same value of this cookie.
    CookieHash(Arc<str>),
    /// The endpoint that a cookie of the mesh names; one without it is picked by [`P2c`](Self::P2c) and given the cookie.
    Sticky(Arc<str>),
}

impl fmt::Display for Balance {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::P2c => f.write_str("p2c"),
            Self::RoundRobin => f.write_str("round-robin"),
            Self::LeastRequest => f.write_str("least-request"),
            Self::SourceHash { .. } => f.write_str("hash:source"),
            Self::HeaderHash(name) => write!(f, "hash:header:{name}"),
            Self::CookieHash(name) => write!(f, "hash:cookie:{name}"),
            Self::Sticky(name) => write!(f, "sticky:{name}"),
        }
    }
}

impl Serialize for Balance {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

/// Kubernetes' own default of `sessionAffinityConfig.clientIP.timeoutSeconds`: three hours.
const SOURCE_TIMEOUT: Duration = Duration::from_secs(10_800);

impl FromStr for Balance {
    type Err = BadFieldName;

    /// Reads what the annotation `balance` may be.
    fn from_str(text: &str) -> Result<Self, BadFieldName> {
        Ok(match text {
            "p2c" => Self::P2c,
            "round-robin" => Self::RoundRobin,
            "least-request" => Self::LeastRequest,
            "hash:source" => Self::SourceHash { timeout: SOURCE_TIMEOUT },
            "sticky" => Self::Sticky(STICKY_COOKIE.into()),
            _ => match text.split_once(':') {
                Some(("sticky", cookie)) => Self::Sticky(cookie_name(cookie)?),
                Some(("hash", by)) => match by.split_once(':') {
                    Some(("header", name)) => Self::HeaderHash(field_name(name)?),
                    Some(("cookie", name)) => Self::CookieHash(cookie_name(name)?),
                    _ => return Err(BadFieldName),
                },
                _ => return Err(BadFieldName),
            },
        })
    }
}

#[cfg(test)]
pub(crate) fn arbitrary() -> impl proptest::strategy::Strategy<Value = Balance> {
    use proptest::prelude::*;
    let name = || "[a-z][a-z-]{0,8}".prop_map(Arc::<str>::from);
    prop_oneof![
        Just(Balance::P2c),
        Just(Balance::RoundRobin),
        Just(Balance::LeastRequest),
        any::<u64>().prop_map(|timeout| Balance::SourceHash { timeout: Duration::from_nanos(timeout) }),
        name().prop_map(Balance::HeaderHash),
        name().prop_map(Balance::CookieHash),
        name().prop_map(Balance::Sticky),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_read_as_they_are_written() {
        for (text, want) in [
            ("p2c", Some("p2c")),
            ("round-robin", Some("round-robin")),
            ("least-request", Some("least-request")),
            ("hash:source", Some("hash:source")),
            ("hash:header:X-User", Some("hash:header:x-user")),
            ("hash:cookie:Session", Some("hash:cookie:Session")),
            ("sticky", Some("sticky:maesh_endpoint")),
            ("sticky:Lane", Some("sticky:Lane")),
            ("sticky:", None),
            ("hash", None),
            ("hash:", None),
            ("hash:header", None),
            ("hash:header:", None),
            ("hash:query:a", None),
            ("P2C", None),
            ("", None),
        ] {
            assert_eq!(text.parse::<Balance>().ok().map(|it| it.to_string()).as_deref(), want, "{text:?}");
        }
    }
}
