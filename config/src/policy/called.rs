//! The policies of the Service that was called, for one of its ports.

use std::time::Duration;

use prost::Message;
use serde::Serialize;

use super::{
    Fault, Hedge, Mirror, RateLimit, Retry, ServiceRef, fault::FaultMessage, hedge::HedgeMessage,
    mirror::MirrorMessage, rate_limit::RateLimitMessage, retry::RetryMessage,
};
use crate::{decode::DecodeError, duration, skew::not_understood};

/// What happens to requests for a port, wherever they go.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, Serialize)]
pub struct CalledPolicy {
    /// When a request is tried again.
    pub retry: Retry,
    /// Longest time from the head of a request to the end of its response, all tries together; `None` for no limit.
    pub request_timeout: Option<Duration>,
    /// Longest time until the response of one try begins; `None` for no limit.
    pub try_timeout: Option<Duration>,
    /// How many requests are passed on.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rate_limit: Option<RateLimit>,
    /// When a second try begins beside a slow one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub hedge: Option<Hedge>,
    /// Where copies go.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub mirror: Option<Mirror>,
    /// Faults made on purpose.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub fault: Option<Fault>,
    /// As for a route: requests for this port are refused.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub not_understood: Option<u32>,
}

impl CalledPolicy {
    /// Ports of other Services that requests may be sent to.
    pub fn refers_to(&self) -> impl Iterator<Item = &ServiceRef> {
        self.mirror.iter().map(|mirror| &mirror.to)
    }
}

/// The wire form of [`CalledPolicy`]. Numbers: see [`crate::skew`].
#[derive(Clone, PartialEq, prost::Message)]
struct CalledPolicyMessage {
    #[prost(message, optional, tag = "1")]
    retry: Option<RetryMessage>,
    #[prost(uint64, optional, tag = "2")]
    request_timeout_ns: Option<u64>,
    #[prost(uint64, optional, tag = "3")]
    try_timeout_ns: Option<u64>,
    #[prost(message, optional, tag = "4")]
    rate_limit: Option<RateLimitMessage>,
    #[prost(message, optional, tag = "5")]
    hedge: Option<HedgeMessage>,
    #[prost(message, optional, tag = "6")]
    mirror: Option<MirrorMessage>,
    #[prost(message, optional, tag = "7")]
    fault: Option<FaultMessage>,
}

impl From<&CalledPolicy> for CalledPolicyMessage {
    fn from(policy: &CalledPolicy) -> Self {
        Self {
            // What is as it is without any annotation is not written: most ports have nothing else.
            retry: (policy.retry != Retry::default()).then(|| (&policy.retry).into()),
            request_timeout_ns: policy.request_timeout.map(duration::nanoseconds),
            try_timeout_ns: policy.try_timeout.map(duration::nanoseconds),
            rate_limit: policy.rate_limit.as_ref().map(Into::into),
            hedge: policy.hedge.as_ref().map(Into::into),
            mirror: policy.mirror.as_ref().map(Into::into),
            fault: policy.fault.as_ref().map(Into::into),
        }
    }
}

impl CalledPolicy {
    /// The bytes of its message; `None` if nothing differs from a port without annotations.
    pub(crate) fn encode(&self) -> Option<Vec<u8>> {
        let bytes = CalledPolicyMessage::from(self).encode_to_vec();
        (!bytes.is_empty()).then_some(bytes)
    }

    /// Reads its message.
    ///
    /// # Errors
    /// When a value cannot be.
    pub(crate) fn decode(bytes: &[u8]) -> Result<Self, DecodeError> {
        let message = CalledPolicyMessage::decode(bytes)?;
        Ok(Self {
            retry: message.retry.map(TryInto::try_into).transpose()?.unwrap_or_default(),
            request_timeout: message.request_timeout_ns.map(Duration::from_nanos),
            try_timeout: message.try_timeout_ns.map(Duration::from_nanos),
            rate_limit: message.rate_limit.map(TryInto::try_into).transpose()?,
            hedge: message.hedge.map(TryInto::try_into).transpose()?,
            mirror: message.mirror.map(TryInto::try_into).transpose()?,
            fault: message.fault.map(TryInto::try_into).transpose()?,
            not_understood: not_understood(bytes, &[])?,
        })
    }
}

#[cfg(test)]
pub(crate) fn arbitrary() -> impl proptest::strategy::Strategy<Value = CalledPolicy> {
    use proptest::{option, prelude::*};
    let time = || option::of(any::<u64>().prop_map(Duration::from_nanos));
    (
        super::retry::arbitrary(),
        (time(), time()),
        option::of(super::rate_limit::arbitrary()),
        option::of(super::hedge::arbitrary()),
        option::of(super::mirror::arbitrary()),
        option::of(super::fault::arbitrary()),
    )
        .prop_map(|(retry, (request_timeout, try_timeout), rate_limit, hedge, mirror, fault)| CalledPolicy {
            retry,
            request_timeout,
            try_timeout,
            rate_limit,
            hedge,
            mirror,
            fault,
            not_understood: None,
        })
}
