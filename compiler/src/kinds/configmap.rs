//! Certificate authorities in ConfigMaps.
//!
//! Nothing else of a ConfigMap is kept: what other keys hold is nobody's business here.

use std::sync::Arc;

use rustls_pki_types::{CertificateDer, pem::PemObject as _};
use serde_json::Value;

use super::{BadField, Meta, Names, Object, ObjectKind, ReadContext, Registration, read::BadValues};

/// The key under which the certificates stand, in PEM.
pub const CA_KEY: &str = "ca.crt";

/// Certificates in one ConfigMap, and bytes of them in all. As many as all authorities of a browser, and some more.
const MOST: usize = 256;
const MOST_BYTES: usize = 256 * 1024;

/// What is kept of a ConfigMap.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConfigMap {
    /// Metadata.
    pub meta: Meta,
    /// The certificates under `ca.crt`, in DER; or why there are none.
    pub ca: Result<Arc<[Box<[u8]>]>, BadCa>,
}

/// Why a ConfigMap names no authorities.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BadCa {
    /// The key is not there.
    #[error("has no {CA_KEY}")]
    NoKey,
    /// The value is not PEM.
    #[error("has a {CA_KEY} that is not PEM")]
    NotPem,
    /// There is no certificate in it.
    #[error("has a {CA_KEY} without a certificate")]
    Empty,
    /// One of them cannot be read.
    #[error("has a {CA_KEY} whose certificate {0} cannot be read")]
    Unreadable(usize),
    /// There are too many of them.
    #[error("has a {CA_KEY} with more than {MOST} certificates, or {MOST_BYTES} bytes of them")]
    TooMany,
}

impl ConfigMap {
    pub(super) const REGISTRATION: Registration = Registration {
        kind: ObjectKind::ConfigMap,
        group: "",
        name: "ConfigMap",
        plural: "configmaps",
        versions: &["v1"],
        namespaced: true,
        always_served: true,
        names: Names::Subdomain,
        read: |meta, value, door, bad| Self::read(meta, value, door, bad).map(Object::ConfigMap),
    };

    #[allow(clippy::unnecessary_wraps)]
    fn read(meta: Meta, value: &Value, _: &ReadContext, _: &mut BadValues) -> Result<Self, BadField> {
        let text = value.get("data").and_then(|data| data.get(CA_KEY)?.as_str());
        Ok(Self { meta, ca: text.ok_or(BadCa::NoKey).and_then(certificates) })
    }
}

/// The certificates in a text.
fn certificates(text: &str) -> Result<Arc<[Box<[u8]>]>, BadCa> {
    let (mut all, mut bytes) = (Vec::new(), 0);
    for (at, read) in CertificateDer::pem_slice_iter(text.as_bytes()).enumerate() {
        let der = read.map_err(|_| BadCa::NotPem)?;
        webpki::anchor_from_trusted_cert(&der).map_err(|_| BadCa::Unreadable(at + 1))?;
        bytes += der.len();
        if at >= MOST || bytes > MOST_BYTES {
            return Err(BadCa::TooMany);
        }
        all.push(Box::from(der.as_ref()));
    }
    match (all.is_empty(), text.contains("-----BEGIN")) {
        (true, true) => Err(BadCa::Empty),
        (true, false) => Err(BadCa::NotPem),
        (false, _) => Ok(all.into()),
    }
}
