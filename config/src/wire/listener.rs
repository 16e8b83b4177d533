use super::{
    DecodeError,
    codes::{impossible, ip, ip_bytes, port, service_name, transport, transport_code},
};
use crate::model::{self, Bind, ListenerId};

#[derive(Clone, PartialEq, prost::Message)]
pub(super) struct Listener {
    #[prost(string, tag = "1")]
    id: String,
    /// Absent: the proxy's own addresses.
    #[prost(bytes = "vec", optional, tag = "2")]
    bind: Option<Vec<u8>>,
    #[prost(uint32, tag = "3")]
    port: u32,
    #[prost(int32, tag = "4")]
    transport: i32,
    #[prost(message, optional, tag = "5")]
    owner: Option<Owner>,
    #[prost(bool, tag = "6")]
    http: bool,
    #[prost(bool, tag = "7")]
    tls: bool,
    #[prost(message, repeated, tag = "8")]
    hosts: Vec<Claim>,
    #[prost(message, repeated, tag = "9")]
    sni: Vec<Claim>,
}

#[derive(Clone, PartialEq, prost::Message)]
struct Owner {
    #[prost(string, tag = "1")]
    service: String,
    #[prost(uint32, tag = "2")]
    port: u32,
}

#[derive(Clone, PartialEq, prost::Message)]
struct Claim {
    #[prost(string, tag = "1")]
    host: String,
    #[prost(string, tag = "2")]
    service: String,
}

impl From<&model::Listener> for Listener {
    fn from(listener: &model::Listener) -> Self {
        Self {
            id: listener.id.to_string(),
            bind: match listener.bind {
                Bind::Shared => None,
                Bind::Address(address) => Some(ip_bytes(address)),
            },
            port: listener.port.into(),
            transport: transport_code(listener.transport),
            owner: listener
                .owner
                .as_ref()
                .map(|(service, port)| Owner { service: service.to_string(), port: (*port).into() }),
            http: listener.http,
            tls: listener.tls,
            hosts: listener.hosts.iter().map(Claim::from).collect(),
            sni: listener.sni.iter().map(Claim::from).collect(),
        }
    }
}

impl TryFrom<Listener> for model::Listener {
    type Error = DecodeError;

    fn try_from(listener: Listener) -> Result<Self, DecodeError> {
        if listener.id.is_empty() {
            return Err(impossible("id"));
        }
        Ok(Self {
            id: ListenerId(listener.id.into()),
            bind: match listener.bind {
                None => Bind::Shared,
                Some(bytes) => Bind::Address(ip(&bytes, "bind address")?),
            },
            port: port(listener.port, "port")?,
            transport: transport(listener.transport)?,
            owner: match listener.owner {
                None => None,
                Some(owner) => Some((service_name(&owner.service, "owner")?, port(owner.port, "owner's port")?)),
            },
            http: listener.http,
            tls: listener.tls,
            hosts: listener.hosts.into_iter().map(TryInto::try_into).collect::<Result<_, _>>()?,
            sni: listener.sni.into_iter().map(TryInto::try_into).collect::<Result<_, _>>()?,
        })
    }
}

impl From<&model::Claim> for Claim {
    fn from(claim: &model::Claim) -> Self {
        Self { host: claim.host.to_string(), service: claim.service.to_string() }
    }
}

impl TryFrom<Claim> for model::Claim {
    type Error = DecodeError;

    fn try_from(claim: Claim) -> Result<Self, DecodeError> {
        Ok(Self { host: claim.host.into(), service: service_name(&claim.service, "claim's service")? })
    }
}
