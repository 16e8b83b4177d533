//! Rate limits: how many requests a second are passed on, and what they are counted by.

use std::{fmt, str::FromStr, sync::Arc};

use serde::{Serialize, Serializer};

use super::field::{BadFieldName, field_name};
use crate::decode::{DecodeError, impossible};

/// How many requests a proxy passes on. Further ones are answered 429.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize)]
pub struct RateLimit {
    /// Requests a second over time; at least 1.
    pub average: u32,
    /// Requests that may come at once after a pause; at least 1.
    pub burst: u32,
    /// What is counted together.
    pub by: RateLimitBy,
}

/// What is counted together.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub enum RateLimitBy {
    /// The requests of each caller's address.
    #[default]
    Source,
    /// All requests to the port.
    Service,
    /// The requests with the same value of this field (lower case); those without it together.
    Header(Arc<str>),
}

impl fmt::Display for RateLimitBy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Source => f.write_str("source"),
            Self::Service => f.write_str("service"),
            Self::Header(name) => write!(f, "header:{name}"),
        }
    }
}

impl Serialize for RateLimitBy {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl FromStr for RateLimitBy {
    type Err = BadFieldName;

    /// Reads `source`, `service` or `header:NAME`.
    fn from_str(text: &str) -> Result<Self, BadFieldName> {
        match text {
            "source" => Ok(Self::Source),
            "service" => Ok(Self::Service),
            _ => Ok(Self::Header(field_name(text.strip_prefix("header:").ok_or(BadFieldName)?)?)),
        }
    }
}

/// The wire form of [`RateLimit`].
#[derive(Clone, PartialEq, prost::Message)]
pub(crate) struct RateLimitMessage {
    #[prost(uint32, tag = "1")]
    average: u32,
    #[prost(uint32, tag = "2")]
    burst: u32,
    /// In words. What only newer versions know counts as `source`.
    #[prost(string, tag = "3")]
    by: String,
}

impl From<&RateLimit> for RateLimitMessage {
    fn from(limit: &RateLimit) -> Self {
        Self { average: limit.average, burst: limit.burst, by: limit.by.to_string() }
    }
}

impl TryFrom<RateLimitMessage> for RateLimit {
    type Error = DecodeError;

    fn try_from(message: RateLimitMessage) -> Result<Self, DecodeError> {
        if message.average == 0 || message.burst == 0 {
            return Err(impossible("rate limit"));
        }
        let by = message.by.parse().unwrap_or_default();
        Ok(Self { average: message.average, burst: message.burst, by })
    }
}

#[cfg(test)]
pub(crate) fn arbitrary() -> impl proptest::strategy::Strategy<Value = RateLimit> {
    use proptest::prelude::*;
    let by = prop_oneof![
        Just(RateLimitBy::Source),
        Just(RateLimitBy::Service),
        "[a-z][a-z-]{0,8}".prop_map(|name| RateLimitBy::Header(name.into())),
    ];
    (1..u32::MAX, 1..u32::MAX, by).prop_map(|(average, burst, by)| RateLimit { average, burst, by })
}
