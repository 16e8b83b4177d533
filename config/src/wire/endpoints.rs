use super::{
    DecodeError,
    codes::{port, protocol, protocol_code, service_name, socket, socket_bytes},
};
use crate::{NodeName, model};

#[derive(Clone, PartialEq, prost::Message)]
pub(super) struct Endpoints {
    #[prost(string, tag = "1")]
    service: String,
    #[prost(message, repeated, tag = "2")]
    ports: Vec<PortEndpoints>,
}

#[derive(Clone, PartialEq, prost::Message)]
struct PortEndpoints {
    #[prost(uint32, tag = "1")]
    number: u32,
    #[prost(int32, tag = "2")]
    protocol: i32,
    #[prost(message, repeated, tag = "3")]
    endpoints: Vec<Endpoint>,
}

#[derive(Clone, PartialEq, prost::Message)]
struct Endpoint {
    #[prost(bytes = "vec", tag = "1")]
    address: Vec<u8>,
    #[prost(bool, tag = "2")]
    ready: bool,
    #[prost(bool, tag = "3")]
    serving: bool,
    #[prost(bool, tag = "4")]
    terminating: bool,
    #[prost(string, optional, tag = "5")]
    node: Option<String>,
    #[prost(string, repeated, tag = "6")]
    for_zones: Vec<String>,
    #[prost(string, repeated, tag = "7")]
    for_nodes: Vec<String>,
}

impl From<&model::Endpoints> for Endpoints {
    fn from(endpoints: &model::Endpoints) -> Self {
        Self {
            service: endpoints.service.to_string(),
            ports: endpoints.ports.iter().map(PortEndpoints::from).collect(),
        }
    }
}

impl TryFrom<Endpoints> for model::Endpoints {
    type Error = DecodeError;

    fn try_from(endpoints: Endpoints) -> Result<Self, DecodeError> {
        Ok(Self {
            service: service_name(&endpoints.service, "service")?,
            ports: endpoints.ports.into_iter().map(TryInto::try_into).collect::<Result<_, _>>()?,
        })
    }
}

impl From<&model::PortEndpoints> for PortEndpoints {
    fn from(it: &model::PortEndpoints) -> Self {
        Self {
            number: it.number.into(),
            protocol: protocol_code(it.protocol),
            endpoints: it.endpoints.iter().map(Endpoint::from).collect(),
        }
    }
}

impl TryFrom<PortEndpoints> for model::PortEndpoints {
    type Error = DecodeError;

    fn try_from(it: PortEndpoints) -> Result<Self, DecodeError> {
        Ok(Self {
            number: port(it.number, "port number")?,
            protocol: protocol(it.protocol)?,
            endpoints: it.endpoints.into_iter().map(TryInto::try_into).collect::<Result<_, _>>()?,
        })
    }
}

impl From<&model::Endpoint> for Endpoint {
    fn from(endpoint: &model::Endpoint) -> Self {
        Self {
            address: socket_bytes(endpoint.address),
            ready: endpoint.ready,
            serving: endpoint.serving,
            terminating: endpoint.terminating,
            node: endpoint.node.as_ref().map(ToString::to_string),
            for_zones: endpoint.for_zones().iter().map(ToString::to_string).collect(),
            for_nodes: endpoint.for_nodes().iter().map(ToString::to_string).collect(),
        }
    }
}

impl TryFrom<Endpoint> for model::Endpoint {
    type Error = DecodeError;

    fn try_from(endpoint: Endpoint) -> Result<Self, DecodeError> {
        Ok(Self {
            address: socket(&endpoint.address, "endpoint address")?,
            ready: endpoint.ready,
            serving: endpoint.serving,
            terminating: endpoint.terminating,
            node: endpoint.node.map(|node| NodeName(node.into())),
            hints: model::EndpointHints::new(
                endpoint.for_zones.into_iter().map(Into::into).collect(),
                endpoint.for_nodes.into_iter().map(|node| NodeName(node.into())).collect(),
            ),
        })
    }
}
