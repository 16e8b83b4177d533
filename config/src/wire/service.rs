use std::time::Duration;

use prost::Message;

use super::{
    DecodeError,
    codes::{impossible, port, protocol, protocol_code, service_name},
    skew::not_understood,
};
use crate::model::{self, Balance, Scheme};

#[derive(Clone, PartialEq, prost::Message)]
pub(super) struct Service {
    #[prost(string, tag = "1")]
    name: String,
    #[prost(message, repeated, tag = "2")]
    ports: Vec<ServicePort>,
}

#[derive(Clone, PartialEq, prost::Message)]
struct ServicePort {
    #[prost(uint32, tag = "1")]
    number: u32,
    #[prost(string, optional, tag = "2")]
    name: Option<String>,
    #[prost(int32, tag = "3")]
    protocol: i32,
    /// [`Route`]s, read one by one so that fields of newer versions are seen.
    #[prost(bytes = "vec", repeated, tag = "4")]
    routes: Vec<Vec<u8>>,
    /// A [`BackendPolicy`].
    #[prost(bytes = "vec", optional, tag = "5")]
    backend: Option<Vec<u8>>,
    #[prost(bool, tag = "6")]
    leaving: bool,
}

/// Numbers: see [`super::skew`].
#[derive(Clone, PartialEq, prost::Message)]
struct Route {
    #[prost(message, repeated, tag = "1")]
    backends: Vec<Backend>,
}

#[derive(Clone, PartialEq, prost::Message)]
struct Backend {
    #[prost(string, tag = "1")]
    service: String,
    #[prost(uint32, tag = "2")]
    port: u32,
    #[prost(uint32, tag = "3")]
    weight: u32,
}

/// Numbers: see [`super::skew`].
#[derive(Clone, PartialEq, prost::Message)]
struct BackendPolicy {
    /// 1 http, 2 https, 3 h2c. Another one must be understood.
    #[prost(int32, tag = "1")]
    scheme: i32,
    /// 1 p2c, 2 hash of the source. Another one may be ignored.
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
}

/// Nanoseconds; what exceeds 584 years becomes that.
fn nanoseconds(duration: Duration) -> u64 {
    duration.as_nanos().try_into().unwrap_or(u64::MAX)
}

impl From<&model::Service> for Service {
    fn from(service: &model::Service) -> Self {
        Self { name: service.name.to_string(), ports: service.ports.iter().map(ServicePort::from).collect() }
    }
}

impl TryFrom<Service> for model::Service {
    type Error = DecodeError;

    fn try_from(service: Service) -> Result<Self, DecodeError> {
        Ok(Self {
            name: service_name(&service.name, "name")?,
            // A port that carries what only newer versions know is left out.
            ports: service
                .ports
                .into_iter()
                .map(TryInto::try_into)
                .filter(|port| !matches!(port, Err(DecodeError::Unknown { field: "protocol", value: 1.. })))
                .collect::<Result<_, _>>()?,
        })
    }
}

impl From<&model::ServicePort> for ServicePort {
    fn from(it: &model::ServicePort) -> Self {
        Self {
            number: it.number.into(),
            name: it.name.as_deref().map(str::to_owned),
            protocol: protocol_code(it.protocol),
            routes: it.routes.iter().map(|route| Route::from(route).encode_to_vec()).collect(),
            backend: Some(BackendPolicy::from(&it.backend).encode_to_vec()),
            leaving: it.leaving,
        }
    }
}

impl TryFrom<ServicePort> for model::ServicePort {
    type Error = DecodeError;

    fn try_from(it: ServicePort) -> Result<Self, DecodeError> {
        Ok(Self {
            number: port(it.number, "port number")?,
            name: it.name.map(Into::into),
            protocol: protocol(it.protocol)?,
            leaving: it.leaving,
            routes: it.routes.iter().map(|bytes| route(bytes)).collect::<Result<_, _>>()?,
            backend: backend_policy(&it.backend.ok_or_else(|| impossible("backend policy"))?)?,
        })
    }
}

impl From<&model::Route> for Route {
    fn from(route: &model::Route) -> Self {
        Self {
            backends: route
                .backends
                .iter()
                .map(|it| Backend { service: it.service.to_string(), port: it.port.into(), weight: it.weight })
                .collect(),
        }
    }
}

fn route(bytes: &[u8]) -> Result<model::Route, DecodeError> {
    let backend = |it: Backend| {
        Ok(model::Backend {
            service: service_name(&it.service, "backend")?,
            port: port(it.port, "backend's port")?,
            weight: it.weight,
        })
    };
    Ok(model::Route {
        backends: Route::decode(bytes)?.backends.into_iter().map(backend).collect::<Result<_, DecodeError>>()?,
        not_understood: not_understood(bytes, &[])?,
    })
}

impl From<&model::BackendPolicy> for BackendPolicy {
    fn from(policy: &model::BackendPolicy) -> Self {
        let (balance, source_timeout) = match policy.balance {
            Balance::P2c => (1, Duration::ZERO),
            Balance::SourceHash { timeout } => (2, timeout),
        };
        Self {
            scheme: match policy.scheme {
                Scheme::Http => 1,
                Scheme::Https => 2,
                Scheme::H2c => 3,
            },
            balance,
            source_timeout_ns: nanoseconds(source_timeout),
            local_only: policy.local_only,
            connect_timeout_ns: nanoseconds(policy.connect_timeout),
            idle_timeout_ns: policy.idle_timeout.map(nanoseconds),
            concurrency: policy.concurrency,
        }
    }
}

fn backend_policy(bytes: &[u8]) -> Result<model::BackendPolicy, DecodeError> {
    let policy = BackendPolicy::decode(bytes)?;
    let (scheme, other_scheme) = match policy.scheme {
        0 => return Err(DecodeError::Unknown { field: "scheme", value: 0 }),
        2 => (Scheme::Https, None),
        3 => (Scheme::H2c, None),
        other => (Scheme::Http, (other != 1).then_some(1)),
    };
    Ok(model::BackendPolicy {
        scheme,
        balance: match policy.balance {
            0 => return Err(DecodeError::Unknown { field: "balance", value: 0 }),
            2 => Balance::SourceHash { timeout: Duration::from_nanos(policy.source_timeout_ns) },
            _ => Balance::P2c,
        },
        local_only: policy.local_only,
        connect_timeout: Duration::from_nanos(policy.connect_timeout_ns),
        idle_timeout: policy.idle_timeout_ns.map(Duration::from_nanos),
        concurrency: policy.concurrency,
        not_understood: other_scheme.or(not_understood(bytes, &[])?),
    })
}
