//! Outlier ejection: endpoints that fail several times in a row are left out for a while.

use serde::Serialize;

use crate::decode::{DecodeError, impossible};

/// When an endpoint is ejected.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize)]
pub struct Eject {
    /// Failures in a row after which an endpoint is ejected; 0: never.
    pub failures: u32,
    /// Most endpoints that may be ejected at the same time, in percent: 0 to 100.
    pub most_percent: u32,
}

impl Default for Eject {
    fn default() -> Self {
        Self { failures: 5, most_percent: 50 }
    }
}

/// The wire form of [`Eject`].
#[derive(Clone, PartialEq, prost::Message)]
pub(crate) struct EjectMessage {
    #[prost(uint32, tag = "1")]
    failures: u32,
    #[prost(uint32, tag = "2")]
    most_percent: u32,
}

impl From<&Eject> for EjectMessage {
    fn from(eject: &Eject) -> Self {
        Self { failures: eject.failures, most_percent: eject.most_percent }
    }
}

impl TryFrom<EjectMessage> for Eject {
    type Error = DecodeError;

    fn try_from(message: EjectMessage) -> Result<Self, DecodeError> {
        if message.most_percent > 100 {
            return Err(impossible("share of ejected endpoints"));
        }
        Ok(Self { failures: message.failures, most_percent: message.most_percent })
    }
}

#[cfg(test)]
pub(crate) fn arbitrary() -> impl proptest::strategy::Strategy<Value = Eject> {
    use proptest::prelude::*;
    (any::<u32>(), 0..=100_u32).prop_map(|(failures, most_percent)| Eject { failures, most_percent })
}
