//! Mirroring: a share of the requests is sent to another Service as well, and what that one answers is ignored.

use serde::Serialize;

use super::{ServiceRef, percent::Percent};
use crate::decode::{DecodeError, impossible, port, service_name};

/// Where copies of requests go.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize)]
pub struct Mirror {
    /// The Service that gets copies.
    pub to: ServiceRef,
    /// Share of the requests that are copied.
    pub share: Percent,
}

/// The wire form of [`Mirror`].
#[derive(Clone, PartialEq, prost::Message)]
pub(crate) struct MirrorMessage {
    #[prost(string, tag = "1")]
    service: String,
    #[prost(uint32, tag = "2")]
    port: u32,
    /// Hundredths of a percent.
    #[prost(uint32, tag = "3")]
    share: u32,
}

impl From<&Mirror> for MirrorMessage {
    fn from(mirror: &Mirror) -> Self {
        Self {
            service: mirror.to.service.to_string(),
            port: mirror.to.port.into(),
            share: mirror.share.as_hundredths(),
        }
    }
}

impl TryFrom<MirrorMessage> for Mirror {
    type Error = DecodeError;

    fn try_from(message: MirrorMessage) -> Result<Self, DecodeError> {
        let (service, port) = (service_name(&message.service, "mirror")?, port(message.port, "mirror's port")?);
        let share = Percent::hundredths(message.share).ok_or_else(|| impossible("mirror's share"))?;
        Ok(Self { to: ServiceRef { service, port }, share })
    }
}

#[cfg(test)]
pub(crate) fn arbitrary() -> impl proptest::strategy::Strategy<Value = Mirror> {
    use proptest::prelude::*;
    (super::arbitrary_service_ref(), super::percent::arbitrary()).prop_map(|(to, share)| Mirror { to, share })
}
