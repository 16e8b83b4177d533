use super::{
    DecodeError,
    codes::{impossible, ip_bytes, ips, port},
};
use crate::{NodeName, model};

#[derive(Clone, PartialEq, prost::Message)]
pub(super) struct Proxy {
    #[prost(string, tag = "1")]
    id: String,
    #[prost(string, tag = "2")]
    node: String,
    #[prost(bytes = "vec", repeated, tag = "3")]
    addresses: Vec<Vec<u8>>,
    #[prost(bool, tag = "4")]
    ready: bool,
    #[prost(uint32, repeated, tag = "5")]
    listening: Vec<u32>,
    #[prost(message, repeated, tag = "6")]
    failed: Vec<FailedPort>,
}

#[derive(Clone, PartialEq, prost::Message)]
struct FailedPort {
    #[prost(uint32, tag = "1")]
    port: u32,
    #[prost(string, tag = "2")]
    why: String,
}

impl From<&model::Proxy> for Proxy {
    fn from(proxy: &model::Proxy) -> Self {
        let failed =
            |(port, why): &(u16, std::sync::Arc<str>)| FailedPort { port: (*port).into(), why: why.to_string() };
        Self {
            id: proxy.id.to_string(),
            node: proxy.node.to_string(),
            addresses: proxy.addresses.iter().copied().map(ip_bytes).collect(),
            ready: proxy.ready,
            listening: proxy.listening.iter().copied().map(u32::from).collect(),
            failed: proxy.failed.iter().map(failed).collect(),
        }
    }
}

impl TryFrom<Proxy> for model::Proxy {
    type Error = DecodeError;

    fn try_from(proxy: Proxy) -> Result<Self, DecodeError> {
        if proxy.id.is_empty() {
            return Err(impossible("id"));
        }
        let failed = |it: FailedPort| Ok((port(it.port, "failed port")?, it.why.into()));
        Ok(Self {
            id: proxy.id.into(),
            node: NodeName(proxy.node.into()),
            addresses: ips(proxy.addresses, "address")?,
            ready: proxy.ready,
            listening: proxy.listening.into_iter().map(|it| port(it, "listening port")).collect::<Result<_, _>>()?,
            failed: proxy.failed.into_iter().map(failed).collect::<Result<_, DecodeError>>()?,
        })
    }
}
