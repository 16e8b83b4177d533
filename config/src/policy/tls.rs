//! How endpoints of `scheme: https` prove who they are.
//!
//! A version that does not know this must not ignore it: it would speak to an endpoint that it has not verified.

use std::{fmt, sync::Arc};

use serde::{Serialize, Serializer};

use crate::decode::{DecodeError, impossible};

/// What the certificate of an endpoint is verified against. It is never left out.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct EndpointTls {
    /// The name that the certificate must have; also the one that is sent (SNI).
    pub server_name: Arc<str>,
    /// Who may have issued it.
    pub roots: TlsRoots,
}

/// Certificate authorities that endpoints' certificates may come from.
#[derive(Clone, PartialEq, Eq, Hash)]
pub enum TlsRoots {
    /// Those of the proxy's system; in the image, Mozilla's.
    System,
    /// These, in DER, and no others.
    Certificates(Arc<[Box<[u8]>]>),
    /// None could be read, and why: no endpoint can be verified, so nothing is sent to any.
    Unusable(Arc<str>),
}

impl fmt::Display for TlsRoots {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::System => f.write_str("system roots"),
            Self::Certificates(all) if all.len() == 1 => f.write_str("1 certificate"),
            Self::Certificates(all) => write!(f, "{} certificates", all.len()),
            Self::Unusable(why) => write!(f, "none: {why}"),
        }
    }
}

/// Nobody reads certificates in a log.
impl fmt::Debug for TlsRoots {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "TlsRoots({self})")
    }
}

impl Serialize for TlsRoots {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

/// The wire form of [`EndpointTls`].
#[derive(Clone, PartialEq, prost::Message)]
pub(super) struct TlsMessage {
    #[prost(string, tag = "1")]
    server_name: String,
    /// 1 those of the system, 2 `certificates`, 3 none, for the reason in `unusable`. Of another one nothing can be verified.
    #[prost(int32, tag = "2")]
    roots: i32,
    #[prost(bytes = "vec", repeated, tag = "3")]
    certificates: Vec<Vec<u8>>,
    #[prost(string, tag = "4")]
    unusable: String,
}

impl From<&EndpointTls> for TlsMessage {
    fn from(tls: &EndpointTls) -> Self {
        let server_name = tls.server_name.as_ref().to_owned();
        let (roots, certificates, unusable) = match &tls.roots {
            TlsRoots::System => (1, Vec::new(), String::new()),
            TlsRoots::Certificates(all) => (2, all.iter().map(|one| one.to_vec()).collect(), String::new()),
            TlsRoots::Unusable(why) => (3, Vec::new(), why.as_ref().to_owned()),
        };
        Self { server_name, roots, certificates, unusable }
    }
}

impl TryFrom<TlsMessage> for EndpointTls {
    type Error = DecodeError;

    fn try_from(message: TlsMessage) -> Result<Self, DecodeError> {
        if message.server_name.is_empty() {
            return Err(impossible("server name of TLS"));
        }
        let roots = match message.roots {
            0 => return Err(DecodeError::Unknown { field: "roots of TLS", value: 0 }),
            1 => TlsRoots::System,
            2 => TlsRoots::Certificates(message.certificates.into_iter().map(Vec::into_boxed_slice).collect()),
            3 => TlsRoots::Unusable(message.unusable.into()),
            _ => TlsRoots::Unusable(
                "the controller is newer than this proxy and names roots that it does not know".into(),
            ),
        };
        Ok(Self { server_name: message.server_name.into(), roots })
    }
}

#[cfg(test)]
pub(crate) fn arbitrary() -> impl proptest::strategy::Strategy<Value = EndpointTls> {
    use proptest::{collection::vec, prelude::*};
    let certificates = vec(vec(any::<u8>(), 0..20).prop_map(Vec::into_boxed_slice), 0..3);
    let roots = prop_oneof![
        Just(TlsRoots::System),
        certificates.prop_map(|all| TlsRoots::Certificates(all.into())),
        "[a-z]{1,9}".prop_map(|why| TlsRoots::Unusable(why.into())),
    ];
    ("[a-z]{1,5}", roots).prop_map(|(name, roots)| EndpointTls { server_name: name.into(), roots })
}
