//! A certificate with its key, read from PEM; and what is wrong with either, in words that say what to do.

use std::{sync::Arc, time::Duration};

use jiff::Timestamp;
use rustls::{
    InconsistentKeys, RootCertStore,
    client::{verify_server_cert_signed_by_trust_anchor, verify_server_name},
    crypto::ring,
    server::ParsedCertificate,
    sign::{CertifiedKey, SigningKey},
};
use rustls_pki_types::{
    CertificateDer, PrivateKeyDer, ServerName, UnixTime,
    pem::{self, PemObject},
};

use super::{Part, TlsError, provider, validity::Validity};

/// A server's certificate with the rest of its chain, and its key.
#[derive(Clone, Debug)]
pub struct Certificate {
    pub(super) key: Arc<CertifiedKey>,
    validity: Validity,
}

impl Certificate {
    /// Reads a chain (PEM, the server's own certificate first) and its key (PEM).
    ///
    /// # Errors
    /// When one of them cannot be read, or they do not belong together. One that has expired is no error.
    pub fn parse(chain: &[u8], key: &[u8]) -> Result<Self, TlsError> {
        let chain = certificates(chain)?;
        let key = private_key(key)?;
        match belongs_to(&chain, key.as_ref())? {
            Some(0) => {}
            Some(at) => return Err(TlsError::NotFirst { number: at + 1 }),
            None => return Err(TlsError::NotItsKey),
        }
        let validity = Validity::of(&chain);
        Ok(Self { key: Arc::new(CertifiedKey::new(chain, key)), validity })
    }

    /// When clients accept it.
    pub fn validity(&self) -> Validity {
        self.validity
    }

    /// Whether a client that trusts only the CA certificate `ca` (PEM) accepts it at `now`.
    pub fn is_signed_by(&self, ca: &str, now: Timestamp) -> bool {
        let Ok(seconds) = u64::try_from(now.as_second()) else { return false };
        let now = UnixTime::since_unix_epoch(Duration::from_secs(seconds));
        let mut roots = RootCertStore::empty();
        let trusted = certificates(ca.as_bytes()).is_ok_and(|all| all.into_iter().all(|it| roots.add(it).is_ok()));
        trusted
            && self.parsed().is_some_and(|parsed| {
                let (intermediates, algorithms) = (&self.key.cert[1..], provider().signature_verification_algorithms);
                verify_server_cert_signed_by_trust_anchor(&parsed, &roots, intermediates, now, algorithms.all).is_ok()
            })
    }

    /// Whether it is for `name`, a DNS name or an IP address.
    pub fn has_name(&self, name: &str) -> bool {
        let Ok(name) = ServerName::try_from(name) else { return false };
        self.parsed().is_some_and(|parsed| verify_server_name(&parsed, &name).is_ok())
    }

    fn parsed(&self) -> Option<ParsedCertificate<'_>> {
        ParsedCertificate::try_from(self.key.cert.first()?).ok()
    }
}

/// The certificates in a PEM text, of which there is one at least.
pub(super) fn certificates(text: &[u8]) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    let bad = |why: String| TlsError::Pem { part: Part::Chain, why };
    let all: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(text).collect();
    let all = all.map_err(|error| bad(pem_problem(error)))?;
    if all.is_empty() {
        let why = "it holds no certificate; write one as PEM, which begins with -----BEGIN CERTIFICATE-----";
        return Err(bad(why.to_owned()));
    }
    Ok(all)
}

fn private_key(text: &[u8]) -> Result<Arc<dyn SigningKey>, TlsError> {
    let bad = |why: String| TlsError::Pem { part: Part::Key, why };
    if is_encrypted(text) {
        let why =
            "the private key is encrypted with a passphrase; write it without one: `openssl pkey -in KEY -out PLAIN`";
        return Err(bad(why.to_owned()));
    }
    let key = PrivateKeyDer::from_pem_slice(text).map_err(|error| match error {
        pem::Error::NoItemsFound => {
            bad("it holds no private key; write one as PEM, which begins with -----BEGIN PRIVATE KEY-----".to_owned())
        }
        error => bad(pem_problem(error)),
    })?;
    ring::sign::any_supported_type(&key).map_err(|_| {
        bad("the private key is damaged or of an unknown kind; use an ECDSA key (P-256, P-384), Ed25519, or RSA \
             of at least 2048 bits"
            .to_owned())
    })
}

/// PKCS #8 says so in its first line, the older forms in the second.
fn is_encrypted(text: &[u8]) -> bool {
    [&b"-----BEGIN ENCRYPTED PRIVATE KEY-----"[..], b"Proc-Type: 4,ENCRYPTED"]
        .iter()
        .any(|mark| text.windows(mark.len()).any(|window| window == *mark))
}

fn pem_problem(error: pem::Error) -> String {
    match error {
        pem::Error::MissingSectionEnd { end_marker } => format!(
            "the line -----END {}----- is missing; the file is cut off: write all of it",
            String::from_utf8_lossy(&end_marker).trim()
        ),
        pem::Error::IllegalSectionStart { line } => format!(
            "the line {:?} is not PEM; it should begin and end with five hyphens",
            String::from_utf8_lossy(&line).trim()
        ),
        pem::Error::Base64Decode(_) => "the text between BEGIN and END is not Base64; write the file again".to_owned(),
        error => format!("{error}; write it as PEM"),
    }
}

/// Which certificate of `chain` has this key.
fn belongs_to(chain: &[CertificateDer<'_>], key: &dyn SigningKey) -> Result<Option<usize>, TlsError> {
    let Some(public) = key.public_key() else {
        return Err(rustls::Error::InconsistentKeys(InconsistentKeys::Unknown).into());
    };
    for (at, certificate) in chain.iter().enumerate() {
        match ParsedCertificate::try_from(certificate) {
            Ok(parsed) if parsed.subject_public_key_info() == public => return Ok(Some(at)),
            Ok(_) => {}
            Err(_) if at > 0 => {}
            Err(error) => {
                let why =
                    format!("the first certificate cannot be read ({error}); write an X.509 certificate of version 3");
                return Err(TlsError::Pem { part: Part::Chain, why });
            }
        }
    }
    Ok(None)
}
