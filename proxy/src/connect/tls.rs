//! Why a TLS handshake with an endpoint failed. Nothing of a request was sent.

use std::{fmt, io, sync::Arc};

use rustls::{CertificateError, Error};

/// Names of a certificate that are shown.
const SHOWN_NAMES: usize = 4;

/// Why an endpoint could not be verified, or was not spoken to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum TlsFailure {
    /// Its certificate is no longer valid.
    Expired,
    /// Its certificate is not valid yet.
    NotYetValid,
    /// Its certificate comes from nobody who is trusted.
    UnknownIssuer,
    /// Its certificate is for other names.
    WrongName {
        /// These, or as many of them as are shown.
        presented: Arc<str>,
    },
    /// Something else is wrong with its certificate.
    BadCertificate(Arc<str>),
    /// It answered something that is not TLS.
    NotTls,
    /// It refused the handshake, with this alert.
    Alert(Arc<str>),
    /// It closed the connection within the handshake.
    Closed,
    /// It broke the protocol, or has no version or cipher in common with us.
    Protocol(Arc<str>),
    /// There is nothing to verify a certificate against, for this reason. Nothing was connected.
    NoRoots(Arc<str>),
    /// The name to verify is no name. Nothing was connected.
    BadName,
}

impl TlsFailure {
    /// The value of the metric's label.
    pub(crate) fn code(&self) -> &'static str {
        match self {
            Self::Expired => "expired",
            Self::NotYetValid => "not_yet_valid",
            Self::UnknownIssuer => "unknown_issuer",
            Self::WrongName { .. } => "wrong_name",
            Self::BadCertificate(_) => "bad_certificate",
            Self::NotTls => "not_tls",
            Self::Alert(_) => "alert",
            Self::Closed => "closed",
            Self::Protocol(_) => "protocol",
            Self::NoRoots(_) => "no_roots",
            Self::BadName => "bad_name",
        }
    }

    /// What is wrong, and what a person does about it. `name` is the one that the certificate must have.
    pub(crate) fn advice(&self, name: &str) -> String {
        let what = self.to_string();
        match self {
            Self::Expired | Self::NotYetValid => format!("{what}; renew it, and check the clocks of both nodes"),
            Self::UnknownIssuer => format!(
                "{what}; put the certificate of its authority into a ConfigMap under ca.crt, and name that with the \
                 annotation tls-ca"
            ),
            Self::WrongName { .. } => format!(
                "{what}, not for {name}; set the annotation tls-server-name to one of its names, or issue one for {name}"
            ),
            Self::BadCertificate(_) => format!("{what}; issue a certificate for servers that its authority has signed"),
            Self::NotTls => format!("{what}; set the annotation scheme to http, or let it serve TLS on this port"),
            Self::Alert(_) | Self::Closed | Self::Protocol(_) => {
                format!("{what}; {name} was asked for, with TLS 1.2 or 1.3: look into the log of the endpoint")
            }
            Self::NoRoots(_) => format!("{what}; correct the annotation tls-ca or its ConfigMap"),
            Self::BadName => format!("{what}: {name:?}; correct the annotation tls-server-name"),
        }
    }

    /// It speaks none of the application protocols that it was offered (RFC 7301 section 3.2).
    pub(crate) fn is_of_protocol(&self) -> bool {
        matches!(self, Self::Alert(alert) if &**alert == "NoApplicationProtocol")
    }

    /// Reads an error of a handshake.
    pub(crate) fn of(error: &io::Error) -> Self {
        match error.get_ref().and_then(|inner| inner.downcast_ref::<Error>()) {
            Some(error) => error.into(),
            None if error.kind() == io::ErrorKind::UnexpectedEof => Self::Closed,
            None if error.kind() == io::ErrorKind::ConnectionReset => Self::Closed,
            None => Self::Protocol(error.to_string().into()),
        }
    }
}

impl From<&Error> for TlsFailure {
    fn from(error: &Error) -> Self {
        match error {
            Error::InvalidCertificate(error) => error.into(),
            Error::InvalidMessage(rustls::InvalidMessage::InvalidContentType) => Self::NotTls,
            Error::AlertReceived(alert) => Self::Alert(format!("{alert:?}").into()),
            other => Self::Protocol(other.to_string().into()),
        }
    }
}

impl From<&CertificateError> for TlsFailure {
    fn from(error: &CertificateError) -> Self {
        match error {
            CertificateError::Expired | CertificateError::ExpiredContext { .. } => Self::Expired,
            CertificateError::NotValidYet | CertificateError::NotValidYetContext { .. } => Self::NotYetValid,
            // The latter where an authority of the same name, with another key, is trusted.
            CertificateError::UnknownIssuer | CertificateError::BadSignature => Self::UnknownIssuer,
            CertificateError::NotValidForName => Self::WrongName { presented: "other names".into() },
            CertificateError::NotValidForNameContext { presented, .. } => {
                Self::WrongName { presented: shown(presented).into() }
            }
            other => Self::BadCertificate(other.to_string().into()),
        }
    }
}

/// The names of a certificate, without the words that the library puts around them; they are the endpoint's text.
fn shown(presented: &[String]) -> String {
    if presented.is_empty() {
        return "no name at all".to_owned();
    }
    let bare = |name: &String| {
        let name = name.strip_prefix("DnsName(\"").and_then(|name| name.strip_suffix("\")")).unwrap_or(name);
        name.chars().filter(|letter| letter.is_ascii_graphic()).take(253).collect::<String>()
    };
    let mut text = presented.iter().take(SHOWN_NAMES).map(bare).collect::<Vec<_>>().join(", ");
    if presented.len() > SHOWN_NAMES {
        text += " and others";
    }
    text
}

impl fmt::Display for TlsFailure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Expired => f.write_str("its certificate has expired"),
            Self::NotYetValid => f.write_str("its certificate is not valid yet"),
            Self::UnknownIssuer => f.write_str("its certificate is not signed by an authority that is trusted"),
            Self::WrongName { presented } => write!(f, "its certificate is for {presented}"),
            Self::BadCertificate(why) => write!(f, "its certificate cannot be used ({why})"),
            Self::NotTls => f.write_str("it does not speak TLS"),
            Self::Alert(alert) => write!(f, "it refused the TLS handshake (alert {alert})"),
            Self::Closed => f.write_str("it closed the connection within the TLS handshake"),
            Self::Protocol(why) => write!(f, "the TLS handshake failed ({why})"),
            Self::NoRoots(why) => write!(f, "its certificate cannot be verified ({why})"),
            Self::BadName => f.write_str("the name that its certificate must have is not a DNS name or an address"),
        }
    }
}

impl std::error::Error for TlsFailure {}
