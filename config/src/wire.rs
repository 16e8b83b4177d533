//! How resources look in transit and on disk: protobuf, one message a kind.
//!
//! The bytes of a resource are deterministic (fields in order, lists as the compiler sorted them, no maps), so their
//! hash is its version in every replica. A value that cannot be understood makes that one resource unreadable and no
//! other. Fields of newer versions are skipped, except those of routes and policies that must not be: see [`crate::skew`].
//!
//! Every message is written out here as a struct, so a build needs no protobuf compiler. Field numbers are never
//! reused.

mod codes;
mod endpoints;
mod listener;
mod mesh;
mod names;
mod proxy;
mod service;
mod workload;

use std::fmt;

use bytes::Bytes;
use prost::Message;

pub use crate::decode::DecodeError;
use crate::{Kind, Resource};

/// Version of a resource: a hash of its bytes.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Version([u8; 16]);

impl Version {
    /// The version of a resource that has these bytes.
    pub fn of(bytes: &[u8]) -> Self {
        Self(xxhash_rust::xxh3::xxh3_128(bytes).to_be_bytes())
    }

    /// Reads the text form; `None` for versions that another server made up.
    pub fn parse(text: &str) -> Option<Self> {
        let canonical = text.len() == 32 && text.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'));
        let number = canonical.then(|| u128::from_str_radix(text, 16).ok()).flatten()?;
        Some(Self(number.to_be_bytes()))
    }
}

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:032x}", u128::from_be_bytes(self.0))
    }
}

impl fmt::Debug for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

const TYPE_URLS: [(Kind, &str); 7] = [
    (Kind::Mesh, "type.maesh.io/maesh.v1.Mesh"),
    (Kind::Name, "type.maesh.io/maesh.v1.Name"),
    (Kind::Listener, "type.maesh.io/maesh.v1.Listener"),
    (Kind::Service, "type.maesh.io/maesh.v1.Service"),
    (Kind::Endpoints, "type.maesh.io/maesh.v1.Endpoints"),
    (Kind::Workload, "type.maesh.io/maesh.v1.Workload"),
    (Kind::Proxy, "type.maesh.io/maesh.v1.Proxy"),
];

impl Kind {
    /// The kind's name on the discovery stream.
    pub fn type_url(self) -> &'static str {
        match self {
            Self::Mesh => TYPE_URLS[0].1,
            Self::Name => TYPE_URLS[1].1,
            Self::Listener => TYPE_URLS[2].1,
            Self::Service => TYPE_URLS[3].1,
            Self::Endpoints => TYPE_URLS[4].1,
            Self::Workload => TYPE_URLS[5].1,
            Self::Proxy => TYPE_URLS[6].1,
        }
    }

    /// The kind with this name on the discovery stream.
    pub fn of_type_url(type_url: &str) -> Option<Self> {
        TYPE_URLS.iter().find(|(_, url)| *url == type_url).map(|(kind, _)| *kind)
    }
}

/// The deterministic bytes of a resource.
pub fn encode(resource: &Resource) -> Bytes {
    match resource {
        Resource::Mesh(it) => mesh::Mesh::from(it).encode_to_vec(),
        Resource::Name(it) => names::Name::from(it).encode_to_vec(),
        Resource::Listener(it) => listener::Listener::from(it).encode_to_vec(),
        Resource::Service(it) => service::Service::from(it).encode_to_vec(),
        Resource::Endpoints(it) => endpoints::Endpoints::from(it).encode_to_vec(),
        Resource::Workload(it) => workload::Workload::from(it).encode_to_vec(),
        Resource::Proxy(it) => proxy::Proxy::from(it).encode_to_vec(),
    }
    .into_boxed_slice()
    .into()
}

/// Reads a resource of `kind`.
///
/// # Errors
/// When the bytes are no such message, or say something that this version of the program does not know.
pub fn decode(kind: Kind, bytes: &[u8]) -> Result<Resource, DecodeError> {
    Ok(match kind {
        Kind::Mesh => Resource::Mesh(mesh::Mesh::decode(bytes)?.try_into()?),
        Kind::Name => Resource::Name(names::Name::decode(bytes)?.try_into()?),
        Kind::Listener => Resource::Listener(listener::Listener::decode(bytes)?.try_into()?),
        Kind::Service => Resource::Service(service::Service::decode(bytes)?.try_into()?),
        Kind::Endpoints => Resource::Endpoints(endpoints::Endpoints::decode(bytes)?.try_into()?),
        Kind::Workload => Resource::Workload(workload::Workload::decode(bytes)?.try_into()?),
        Kind::Proxy => Resource::Proxy(proxy::Proxy::decode(bytes)?.try_into()?),
    })
}

/// Reads a resource of `kind` that came under `name`, and holds it to that name.
///
/// # Errors
/// As [`decode`], and when the content has another name.
pub fn decode_named(kind: Kind, name: &str, bytes: &[u8]) -> Result<Resource, DecodeError> {
    let resource = decode(kind, bytes)?;
    let inside = resource.key().name;
    if *inside == *name { Ok(resource) } else { Err(DecodeError::Misnamed { inside: inside.to_string() }) }
}

#[cfg(test)]
pub(crate) mod arbitrary;
#[cfg(test)]
mod tests;
