use prost::Message;

use super::{
    DecodeError,
    codes::{impossible, port, protocol, protocol_code, service_name},
};
use crate::{
    model,
    policy::{BackendPolicy, CalledPolicy},
    rule::{Rule, parse},
    skew::not_understood,
};

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
    /// A [`CalledPolicy`]; absent if nothing differs from a port without annotations.
    #[prost(bytes = "vec", optional, tag = "7")]
    called: Option<Vec<u8>>,
}

/// Numbers: see [`crate::skew`].
#[derive(Clone, PartialEq, prost::Message)]
struct Route {
    #[prost(message, repeated, tag = "1")]
    backends: Vec<Backend>,
    /// A [`Rule`], in its own language.
    #[prost(string, optional, tag = "64")]
    rule: Option<String>,
}

/// The number of [`Route::rule`].
const RULE: u32 = 64;

#[derive(Clone, PartialEq, prost::Message)]
struct Backend {
    #[prost(string, tag = "1")]
    service: String,
    #[prost(uint32, tag = "2")]
    port: u32,
    #[prost(uint32, tag = "3")]
    weight: u32,
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
            backend: Some(it.backend.encode()),
            leaving: it.leaving,
            called: it.called.encode(),
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
            called: it.called.map_or_else(|| Ok(CalledPolicy::default()), |bytes| CalledPolicy::decode(&bytes))?.into(),
            backend: BackendPolicy::decode(&it.backend.ok_or_else(|| impossible("backend policy"))?)?.into(),
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
            rule: route.rule.as_ref().map(Rule::to_string),
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
    let Route { backends, rule } = Route::decode(bytes)?;
    // A newer version knows more matchers.
    let rule = rule.map(|text| parse(&text).map(|parsed| parsed.rule)).transpose();
    let unknown = rule.is_err().then_some(RULE);
    Ok(model::Route {
        rule: rule.unwrap_or_default(),
        backends: backends.into_iter().map(backend).collect::<Result<_, DecodeError>>()?,
        not_understood: unknown.or(not_understood(bytes, &[RULE])?),
    })
}
