use ipnet::IpNet;

use super::{
    DecodeError,
    codes::{impossible, ip, ip_bytes},
};
use crate::{
    NodeName,
    model::{self, WorkloadKind},
};

#[derive(Clone, PartialEq, prost::Message)]
pub(super) struct Workload {
    #[prost(bytes = "vec", tag = "1")]
    address: Vec<u8>,
    #[prost(uint32, tag = "2")]
    prefix: u32,
    /// 1 pod, 2 resolver, 3 node, 4 range of pods.
    #[prost(int32, tag = "3")]
    kind: i32,
    #[prost(string, optional, tag = "4")]
    namespace: Option<String>,
    #[prost(string, tag = "5")]
    name: String,
    #[prost(string, optional, tag = "6")]
    service_account: Option<String>,
    #[prost(string, optional, tag = "7")]
    node: Option<String>,
    #[prost(string, optional, tag = "8")]
    zone: Option<String>,
}

impl From<&model::Workload> for Workload {
    fn from(workload: &model::Workload) -> Self {
        Self {
            address: ip_bytes(workload.address.addr()),
            prefix: workload.address.prefix_len().into(),
            kind: match workload.kind {
                WorkloadKind::Pod => 1,
                WorkloadKind::Resolver => 2,
                WorkloadKind::Node => 3,
                WorkloadKind::PodRange => 4,
            },
            namespace: workload.namespace.as_deref().map(str::to_owned),
            name: workload.name.to_string(),
            service_account: workload.service_account.as_deref().map(str::to_owned),
            node: workload.node.as_ref().map(ToString::to_string),
            zone: workload.zone.as_deref().map(str::to_owned),
        }
    }
}

impl TryFrom<Workload> for model::Workload {
    type Error = DecodeError;

    fn try_from(workload: Workload) -> Result<Self, DecodeError> {
        let prefix = u8::try_from(workload.prefix).map_err(|_| impossible("prefix"))?;
        Ok(Self {
            address: IpNet::new(ip(&workload.address, "address")?, prefix).map_err(|_| impossible("prefix"))?,
            kind: match workload.kind {
                1 => WorkloadKind::Pod,
                2 => WorkloadKind::Resolver,
                3 => WorkloadKind::Node,
                4 => WorkloadKind::PodRange,
                value => return Err(DecodeError::Unknown { field: "kind", value }),
            },
            namespace: workload.namespace.map(Into::into),
            name: workload.name.into(),
            service_account: workload.service_account.map(Into::into),
            node: workload.node.map(|node| NodeName(node.into())),
            zone: workload.zone.map(Into::into),
        })
    }
}
