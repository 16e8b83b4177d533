use super::{
    DecodeError,
    codes::{impossible, port, protocol, protocol_code, service_name, socket, socket_bytes},
};
use crate::{NodeName, model, rule::parse_checked};

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
    #[prost(message, repeated, tag = "4")]
    access: Vec<AccountAccess>,
    /// What does not say so is not open.
    #[prost(bool, tag = "5")]
    open: bool,
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
    /// Place in `access`, from 1; 0 for none.
    #[prost(uint32, tag = "8")]
    account: u32,
}

#[derive(Clone, PartialEq, prost::Message)]
struct AccountAccess {
    #[prost(string, tag = "1")]
    account: String,
    #[prost(message, repeated, tag = "2")]
    grants: Vec<Grant>,
}

/// Who is admitted, and with what. What a newer version says more restricts it, so an older one gives nothing by it: it keeps
/// the bytes.
#[derive(Clone, PartialEq, prost::Message)]
struct Grant {
    #[prost(string, tag = "1")]
    target: String,
    #[prost(string, repeated, tag = "2")]
    sources: Vec<String>,
    #[prost(string, repeated, tag = "3")]
    rules: Vec<String>,
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
            access: it.access.iter().map(AccountAccess::from).collect(),
            open: it.open,
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
            access: it.access.into_iter().map(TryInto::try_into).collect::<Result<_, _>>()?,
            open: it.open,
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
            account: endpoint.account.map_or(0, |place| u32::from(place) + 1),
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
            account: match endpoint.account {
                0 => None,
                place => Some(u16::try_from(place - 1).map_err(|_| impossible("place of an account"))?),
            },
            hints: model::EndpointHints::new(
                endpoint.for_zones.into_iter().map(Into::into).collect(),
                endpoint.for_nodes.into_iter().map(|node| NodeName(node.into())).collect(),
            ),
        })
    }
}

impl From<&model::AccountAccess> for AccountAccess {
    fn from(it: &model::AccountAccess) -> Self {
        Self { account: it.account.to_string(), grants: it.grants.iter().map(Grant::from).collect() }
    }
}

impl TryFrom<AccountAccess> for model::AccountAccess {
    type Error = DecodeError;

    fn try_from(it: AccountAccess) -> Result<Self, DecodeError> {
        // A grant that cannot be read admits nobody; the others hold.
        let grants = it.grants.into_iter().filter_map(|grant| grant.try_into().ok()).collect();
        Ok(Self { account: account(&it.account)?, grants })
    }
}

impl From<&model::Grant> for Grant {
    fn from(it: &model::Grant) -> Self {
        Self {
            target: it.target.to_string(),
            sources: it.sources.iter().map(ToString::to_string).collect(),
            rules: it.rules.iter().map(ToString::to_string).collect(),
        }
    }
}

impl TryFrom<Grant> for model::Grant {
    type Error = DecodeError;

    fn try_from(it: Grant) -> Result<Self, DecodeError> {
        let asked = it.rules.len();
        // A rule of a newer version fits nothing. Expressions are made ready by who needs them: there may be many.
        let rules: Vec<_> = it.rules.iter().filter_map(|text| parse_checked(text).ok()).collect();
        if rules.is_empty() && asked > 0 {
            return Err(impossible("rules of a grant"));
        }
        let sources = it.sources.iter().map(|text| account(text)).collect::<Result<_, _>>()?;
        Ok(Self { target: it.target.into(), sources, rules })
    }
}

fn account(text: &str) -> Result<std::sync::Arc<model::Account>, DecodeError> {
    text.parse().map(std::sync::Arc::new).map_err(|_| impossible("ServiceAccount"))
}
