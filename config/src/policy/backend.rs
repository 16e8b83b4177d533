//! The policies of a port that was chosen as a backend.

use std::{fmt, time::Duration};

use prost::Message;
use serde::Serialize;

use super::{Balance, Eject, EndpointTls, ServiceRef, breaker::Expression, eject::EjectMessage, tls::TlsMessage};
use crate::{
    decode::{DecodeError, port, service_name},
    duration,
    skew::not_understood,
};

/// How a chosen backend port is spoken to.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize)]
pub struct BackendPolicy {
    /// The protocol towards its endpoints.
    pub scheme: Scheme,
    /// What their certificates are verified against, if that is HTTPS. Boxed, because few ports have it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tls: Option<Box<EndpointTls>>,
    /// How one of its endpoints is picked.
    pub balance: Balance,
    /// Only endpoints on the caller's node (`internalTrafficPolicy: Local`).
    pub local_only: bool,
    /// Longest time to establish a connection to an endpoint.
    pub connect_timeout: Duration,
    /// Longest silence on a stream (both directions), `None` for no limit.
    pub idle_timeout: Option<Duration>,
    /// Requests in flight for this port per proxy.
    pub concurrency: u32,
    /// Requests that may wait for a place among those in flight; `None` if none may.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub queue: Option<Queue>,
    /// When endpoints that fail are left out.
    pub eject: Eject,
    /// When requests are no longer passed on.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub breaker: Option<Expression>,
    /// Where requests go while none of its own endpoints can be used.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub fallback: Option<ServiceRef>,
    /// As for a route: requests that would go to this port are refused.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub not_understood: Option<u32>,
}

/// A port without annotations that carries HTTP or TCP.
impl Default for BackendPolicy {
    fn default() -> Self {
        Self {
            scheme: Scheme::Http,
            tls: None,
            balance: Balance::P2c,
            local_only: false,
            connect_timeout: Duration::from_secs(5),
            idle_timeout: Some(Duration::from_secs(3600)),
            concurrency: 1024,
            queue: None,
            eject: Eject::default(),
            breaker: None,
            fallback: None,
            not_understood: None,
        }
    }
}

/// A bounded queue for a place among the requests in flight.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize)]
pub struct Queue {
    /// Requests that may wait at the same time; above zero.
    pub length: u32,
    /// For how long one of them waits.
    pub wait: Duration,
}

/// The protocol spoken to endpoints.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Scheme {
    /// HTTP/1.1
    Http,
    /// HTTP over TLS.
    Https,
    /// HTTP/2 with prior knowledge.
    H2c,
}

impl Scheme {
    /// Its number in messages.
    pub(crate) fn code(self) -> i32 {
        match self {
            Self::Http => 1,
            Self::Https => 2,
            Self::H2c => 3,
        }
    }

    /// The scheme of a number; `None` for 0, and for what a newer version may mean by others.
    pub(crate) fn of_code(code: i32) -> Option<Self> {
        match code {
            1 => Some(Self::Http),
            2 => Some(Self::Https),
            3 => Some(Self::H2c),
            _ => None,
        }
    }
}

impl fmt::Display for Scheme {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Http => "http",
            Self::Https => "https",
            Self::H2c => "h2c",
        })
    }
}

/// Number of the field `tls`.
const TLS: u32 = 64;

/// The wire form of [`BackendPolicy`]. Numbers: see [`crate::skew`].
#[derive(Clone, PartialEq, prost::Message)]
struct BackendPolicyMessage {
    /// 1 http, 2 https, 3 h2c. Another one must be understood.
    #[prost(int32, tag = "1")]
    scheme: i32,
    /// 1 p2c, 2 hash of the source, 3 what `balance_text` says. Another one may be ignored.
    #[prost(int32, tag = "2")]
    balance: i32,
    #[prost(uint64, tag = "3")]
    source_timeout_ns: u64,
    #[prost(bool, tag = "4")]
    local_only: bool,
    #[prost(uint64, tag = "5")]
    connect_timeout_ns: u64,
    #[prost(uint64, optional, tag = "6")]
    idle_timeout_ns: Option<u64>,
    #[prost(uint32, tag = "7")]
    concurrency: u32,
    /// In words, as the annotation has them. What only newer versions know is p2c.
    #[prost(string, tag = "8")]
    balance_text: String,
    /// Absent: as it is without any annotation.
    #[prost(message, optional, tag = "9")]
    eject: Option<EjectMessage>,
    /// The expression. One that only newer versions can read is ignored.
    #[prost(string, tag = "10")]
    breaker: String,
    #[prost(message, optional, tag = "11")]
    fallback: Option<ServiceRefMessage>,
    #[prost(message, optional, tag = "12")]
    queue: Option<QueueMessage>,
    #[prost(message, optional, tag = "64")]
    tls: Option<TlsMessage>,
}

#[derive(Clone, PartialEq, prost::Message)]
struct ServiceRefMessage {
    #[prost(string, tag = "1")]
    service: String,
    #[prost(uint32, tag = "2")]
    port: u32,
}

#[derive(Clone, PartialEq, prost::Message)]
struct QueueMessage {
    #[prost(uint32, tag = "1")]
    length: u32,
    #[prost(uint64, tag = "2")]
    wait_ns: u64,
}

impl From<&BackendPolicy> for BackendPolicyMessage {
    fn from(policy: &BackendPolicy) -> Self {
        let (balance, source_timeout) = match policy.balance {
            Balance::P2c => (1, Duration::ZERO),
            Balance::SourceHash { timeout } => (2, timeout),
            _ => (3, Duration::ZERO),
        };
        Self {
            scheme: policy.scheme.code(),
            balance,
            source_timeout_ns: duration::nanoseconds(source_timeout),
            local_only: policy.local_only,
            connect_timeout_ns: duration::nanoseconds(policy.connect_timeout),
            idle_timeout_ns: policy.idle_timeout.map(duration::nanoseconds),
            concurrency: policy.concurrency,
            balance_text: if balance == 3 { policy.balance.to_string() } else { String::new() },
            eject: (policy.eject != Eject::default()).then(|| (&policy.eject).into()),
            breaker: policy.breaker.as_ref().map(Expression::to_string).unwrap_or_default(),
            fallback: policy
                .fallback
                .as_ref()
                .map(|to| ServiceRefMessage { service: to.service.to_string(), port: to.port.into() }),
            queue: policy
                .queue
                .map(|queue| QueueMessage { length: queue.length, wait_ns: duration::nanoseconds(queue.wait) }),
            tls: policy.tls.as_deref().map(Into::into),
        }
    }
}

impl BackendPolicy {
    /// The bytes of its message.
    pub(crate) fn encode(&self) -> Vec<u8> {
        BackendPolicyMessage::from(self).encode_to_vec()
    }

    /// Reads its message.
    ///
    /// # Errors
    /// When a value cannot be.
    pub(crate) fn decode(bytes: &[u8]) -> Result<Self, DecodeError> {
        let message = BackendPolicyMessage::decode(bytes)?;
        let (scheme, other_scheme) = match (message.scheme, Scheme::of_code(message.scheme)) {
            (0, _) => return Err(DecodeError::Unknown { field: "scheme", value: 0 }),
            (_, Some(scheme)) => (scheme, None),
            (_, None) => (Scheme::Http, Some(1)),
        };
        let fallback = |to: ServiceRefMessage| {
            Ok::<_, DecodeError>(ServiceRef {
                service: service_name(&to.service, "fallback")?,
                port: port(to.port, "fallback's port")?,
            })
        };
        Ok(Self {
            scheme,
            balance: match message.balance {
                0 => return Err(DecodeError::Unknown { field: "balance", value: 0 }),
                2 => Balance::SourceHash { timeout: Duration::from_nanos(message.source_timeout_ns) },
                3 => message.balance_text.parse().unwrap_or(Balance::P2c),
                _ => Balance::P2c,
            },
            local_only: message.local_only,
            connect_timeout: Duration::from_nanos(message.connect_timeout_ns),
            idle_timeout: message.idle_timeout_ns.map(Duration::from_nanos),
            concurrency: message.concurrency,
            queue: message
                .queue
                .filter(|queue| queue.length > 0)
                .map(|queue| Queue { length: queue.length, wait: Duration::from_nanos(queue.wait_ns) }),
            eject: message.eject.map(TryInto::try_into).transpose()?.unwrap_or_default(),
            breaker: message.breaker.parse().ok(),
            fallback: message.fallback.map(fallback).transpose()?,
            tls: message.tls.map(|tls| tls.try_into().map(Box::new)).transpose()?,
            not_understood: other_scheme.or(not_understood(bytes, &[TLS])?),
        })
    }
}

#[cfg(test)]
pub(crate) fn arbitrary() -> impl proptest::strategy::Strategy<Value = BackendPolicy> {
    use proptest::{option, prelude::*};
    let duration = || any::<u64>().prop_map(Duration::from_nanos);
    let scheme = prop_oneof![Just(Scheme::Http), Just(Scheme::Https), Just(Scheme::H2c)];
    let queue = (1..u32::MAX, duration()).prop_map(|(length, wait)| Queue { length, wait });
    // As its text is read: nested lists of the same kind are one.
    let breaker = super::breaker::arbitrary().prop_filter_map("too long", |it| it.to_string().parse().ok());
    (
        (scheme, super::balance::arbitrary(), any::<bool>(), duration(), option::of(duration()), any::<u32>()),
        option::of(queue),
        super::eject::arbitrary(),
        option::of(breaker),
        option::of(super::arbitrary_service_ref()),
        option::of(super::tls::arbitrary().prop_map(Box::new)),
    )
        .prop_map(
            |(
                (scheme, balance, local_only, connect_timeout, idle_timeout, concurrency),
                queue,
                eject,
                breaker,
                fallback,
                tls,
            )| {
                BackendPolicy {
                    scheme,
                    tls,
                    balance,
                    local_only,
                    connect_timeout,
                    idle_timeout,
                    concurrency,
                    queue,
                    eject,
                    breaker,
                    fallback,
                    not_understood: None,
                }
            },
        )
}
