//! From when and until when clients accept a certificate.

use std::fmt;

use jiff::Timestamp;
use rustls::{
    CertificateError, Error, RootCertStore, client::verify_server_cert_signed_by_trust_anchor,
    server::ParsedCertificate,
};
use rustls_pki_types::{CertificateDer, UnixTime};

use super::provider;

/// When all certificates of a chain are valid. A limit that cannot be read is `None`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Validity {
    from: Option<Limit>,
    until: Option<Limit>,
}

/// A limit that one certificate of the chain sets.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Limit {
    at: Timestamp,
    /// Position of the certificate in the chain; the server's own is 0.
    position: usize,
}

/// Why clients do not accept a certificate.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NotValid {
    limit: Limit,
    is_over: bool,
}

impl NotValid {
    /// Whether it has expired; otherwise it is not valid yet.
    pub fn is_over(self) -> bool {
        self.is_over
    }
}

impl fmt::Display for NotValid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.limit.position {
            0 => write!(f, "the certificate ")?,
            position => write!(f, "certificate {} of the chain ", position + 1)?,
        }
        let at = self.limit.at;
        if self.is_over { write!(f, "expired at {at}") } else { write!(f, "is not valid before {at}") }
    }
}

impl Validity {
    /// That of a chain: from when the last of its certificates begins until the first of them ends.
    pub(super) fn of(chain: &[CertificateDer<'_>]) -> Self {
        let each: Vec<_> = chain.iter().enumerate().map(|(position, it)| Self::of_one(it, position)).collect();
        Self { from: each.iter().filter_map(|it| it.from).max(), until: each.iter().filter_map(|it| it.until).min() }
    }

    fn of_one(certificate: &CertificateDer<'_>, position: usize) -> Self {
        let Ok(parsed) = ParsedCertificate::try_from(certificate) else { return Self::default() };
        let limit = |time: UnixTime| Some(Limit { at: timestamp(time), position });
        let from = match verify(&parsed, 0) {
            Err(Error::InvalidCertificate(CertificateError::NotValidYetContext { not_before, .. })) => {
                limit(not_before)
            }
            _ => None,
        };
        let until = match verify(&parsed, u64::MAX) {
            Err(Error::InvalidCertificate(CertificateError::ExpiredContext { not_after, .. })) => limit(not_after),
            _ => None,
        };
        Self { from, until }
    }

    /// From when on clients accept it.
    pub fn from(self) -> Option<Timestamp> {
        self.from.map(|limit| limit.at)
    }

    /// Until when clients accept it.
    pub fn until(self) -> Option<Timestamp> {
        self.until.map(|limit| limit.at)
    }

    /// Why clients do not accept it at `now`; `None` if they do.
    pub fn problem(self, now: Timestamp) -> Option<NotValid> {
        let over = self.until.filter(|limit| limit.at < now).map(|limit| NotValid { limit, is_over: true });
        over.or_else(|| self.from.filter(|limit| now < limit.at).map(|limit| NotValid { limit, is_over: false }))
    }
}

/// What a client finds at a time. The library has no other way to read the limits: it compares the time with them before
/// it looks for the CA, of which there is none here.
fn verify(certificate: &ParsedCertificate<'_>, second: u64) -> Result<(), Error> {
    let now = UnixTime::since_unix_epoch(std::time::Duration::from_secs(second));
    let algorithms = provider().signature_verification_algorithms.all;
    verify_server_cert_signed_by_trust_anchor(certificate, &RootCertStore::empty(), &[], now, algorithms)
}

fn timestamp(time: UnixTime) -> Timestamp {
    i64::try_from(time.as_secs()).ok().and_then(|it| Timestamp::from_second(it).ok()).unwrap_or(Timestamp::MAX)
}
