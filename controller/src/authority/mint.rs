//! Makes authorities and the certificates that they sign. Keys are P-256, drawn by aws-lc-rs.

use std::time::Duration;

use jiff::Timestamp;
use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    KeyUsagePurpose, SerialNumber, date_time_ymd,
};

use super::{Authority, CaLifetimes, plan::after};

/// A certificate counts from this long before it was made, for clocks that are behind.
const EARLIER: i64 = 3600;

/// Why there is no certificate.
#[derive(Debug, thiserror::Error)]
pub enum MintError {
    /// A name cannot stand in a certificate, or a key that was written down cannot be read.
    #[error("certificate: {0}")]
    Certificate(#[from] rcgen::Error),
    /// The authority is only believed.
    #[error("authority {0:?} has no key")]
    NoKey(String),
}

/// A server's certificate with its key.
pub(super) struct Served {
    /// PEM.
    pub(super) chain: String,
    /// PEM.
    pub(super) key: String,
    pub(super) until: Timestamp,
}

/// A new authority, named `name`, made at `now`; it signs from `signs_from` on.
pub(super) fn authority(
    name: &str,
    now: Timestamp,
    signs_from: Option<Timestamp>,
    terms: &CaLifetimes,
) -> Result<Authority, MintError> {
    let until = after(now, terms.authority);
    let key = KeyPair::generate()?;
    let mut params = issuer(name);
    valid(&mut params, now, until);
    let certificate = params.self_signed(&key)?.pem();
    Ok(Authority { name: name.to_owned(), certificate, key: Some(key.serialize_pem()), signs_from, until })
}

/// What a server's certificate says.
pub(super) struct Subject<'a> {
    /// For people.
    pub(super) title: &'a str,
    /// DNS names and IP addresses.
    pub(super) names: Vec<String>,
    pub(super) life: Duration,
}

/// A certificate for a server, signed by `authority` at `now`, with the serial number `serial`.
pub(super) fn serving(
    authority: &Authority,
    subject: Subject<'_>,
    serial: u64,
    now: Timestamp,
) -> Result<Served, MintError> {
    let key = authority.key.as_deref().ok_or_else(|| MintError::NoKey(authority.name.clone()))?;
    let issuer = Issuer::new(issuer(&authority.name), KeyPair::from_pem(key)?);
    let until = after(now, subject.life).min(authority.until);
    let key = KeyPair::generate()?;
    let mut params = CertificateParams::new(subject.names)?;
    params.distinguished_name = named(subject.title);
    params.serial_number = Some(SerialNumber::from(serial));
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
    params.use_authority_key_identifier_extension = true;
    valid(&mut params, now, until);
    Ok(Served { chain: params.signed_by(&key, &issuer)?.pem(), key: key.serialize_pem(), until })
}

/// What certificates say of the authority `name`.
fn issuer(name: &str) -> CertificateParams {
    let mut params = CertificateParams::default();
    params.distinguished_name = named(name);
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign];
    params
}

fn named(name: &str) -> DistinguishedName {
    let mut names = DistinguishedName::new();
    names.push(DnType::CommonName, name);
    names
}

/// Sets when `params` are valid: from a little before `from`, to the second of `until`.
fn valid(params: &mut CertificateParams, from: Timestamp, until: Timestamp) {
    let since_epoch = |second: i64| Duration::from_secs(u64::try_from(second).unwrap_or(0));
    let epoch = date_time_ymd(1970, 1, 1);
    params.not_before = epoch + since_epoch(from.as_second() - EARLIER);
    params.not_after = epoch + since_epoch(until.as_second());
}
