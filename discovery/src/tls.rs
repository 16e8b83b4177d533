//! TLS 1.3 between subscribers and controllers, with certificates that change while streams are open; and the serving side
//! of DNS over TLS, whose certificates change in the same way.
//!
//! A handshake uses what is current when it begins; nothing here touches a connection that is established. The server
//! swaps its certificate in place; a subscriber reads its authority's certificates anew for each connection, which are
//! few.

mod certificate;
mod files;
mod validity;

use std::{io, path::PathBuf, sync::Arc};

use arc_swap::ArcSwap;
use rustls::{
    ClientConfig, RootCertStore, ServerConfig, SupportedProtocolVersion,
    crypto::{CryptoProvider, ring},
    server::{ClientHello, ResolvesServerCert},
    sign::CertifiedKey,
    version::{TLS12, TLS13},
};
use rustls_pki_types::ServerName;
use tokio::net::TcpStream;
use tokio_rustls::{TlsConnector, client::TlsStream};

use self::certificate::certificates;
pub use self::{
    certificate::Certificate,
    files::CertificateFiles,
    validity::{NotValid, Validity},
};

/// The application protocol of the discovery stream: HTTP/2.
const ALPN: &[u8] = b"h2";
/// The application protocol of DNS over TLS (RFC 7858). Clients may name none.
const ALPN_DNS: &[u8] = b"dot";

/// Why certificates cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// A file cannot be read.
    #[error("{path}: {source}", path = path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// A text is not PEM, or holds nothing of what it should.
    #[error("{why}")]
    Pem {
        /// Which of them.
        part: Part,
        /// What is wrong, and what to do.
        why: String,
    },
    /// The key belongs to none of the certificates.
    #[error("the private key does not belong to the certificate; write a certificate together with its own key")]
    NotItsKey,
    /// The key belongs to another certificate of the chain than the first.
    #[error(
        "the private key belongs to certificate {number} of the chain; write that certificate first, the one that signed \
         it next"
    )]
    NotFirst {
        /// Its position; the first is 1.
        number: usize,
    },
    /// The library refuses it.
    #[error("certificate or key: {0}")]
    Refused(#[from] rustls::Error),
    /// What is in these files cannot be used.
    #[error("{files}: {source}")]
    Files {
        /// Their names.
        files: String,
        /// Why not.
        source: Box<Self>,
    },
}

/// A chain of certificates, or its key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Part {
    /// The certificates.
    Chain,
    /// The private key.
    Key,
}

fn provider() -> Arc<CryptoProvider> {
    Arc::new(ring::default_provider())
}

/// The serving side: one certificate, exchangeable. Clones share it.
#[derive(Clone, Debug)]
pub struct ServerTls {
    current: Arc<CurrentCertificate>,
    config: Arc<ServerConfig>,
}

#[derive(Debug)]
struct CurrentCertificate(ArcSwap<Certificate>);

impl ResolvesServerCert for CurrentCertificate {
    fn resolve(&self, _: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(self.0.load().key.clone())
    }
}

impl ServerTls {
    /// Serves with this certificate.
    ///
    /// # Errors
    /// When the library refuses the configuration.
    pub fn new(certificate: Certificate) -> Result<Self, TlsError> {
        Self::with(certificate, &[&TLS13], ALPN)
    }

    /// The same for DNS over TLS, whose clients are not ours: TLS 1.2 is allowed too.
    ///
    /// # Errors
    /// As [`ServerTls::new`].
    pub fn for_dns(certificate: Certificate) -> Result<Self, TlsError> {
        Self::with(certificate, &[&TLS13, &TLS12], ALPN_DNS)
    }

    fn with(
        certificate: Certificate,
        versions: &[&'static SupportedProtocolVersion],
        alpn: &[u8],
    ) -> Result<Self, TlsError> {
        let current = Arc::new(CurrentCertificate(ArcSwap::from_pointee(certificate)));
        let mut config = ServerConfig::builder_with_provider(provider())
            .with_protocol_versions(versions)?
            .with_no_client_auth()
            .with_cert_resolver(current.clone());
        config.alpn_protocols = vec![alpn.to_vec()];
        Ok(Self { current, config: Arc::new(config) })
    }

    /// The configuration of a listener; it follows the certificate.
    pub fn config(&self) -> Arc<ServerConfig> {
        self.config.clone()
    }

    /// What handshakes use now.
    pub fn current(&self) -> Arc<Certificate> {
        self.current.0.load_full()
    }

    /// Handshakes from now on use this certificate.
    pub fn replace(&self, certificate: Certificate) {
        self.current.0.store(Arc::new(certificate));
    }
}

/// The subscribing side: whom it believes.
#[derive(Clone, Debug)]
pub struct ClientTls {
    /// Certificates of the authorities, PEM; read anew for each connection.
    pub ca: PathBuf,
    /// The name that the server's certificate must have; by default the host that was connected to.
    pub server_name: Option<String>,
}

impl ClientTls {
    pub(super) async fn connect(&self, host: &str, stream: TcpStream) -> io::Result<TlsStream<TcpStream>> {
        let config = self.config().map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error))?;
        let name = self.server_name.as_deref().unwrap_or(host).to_owned();
        let name = ServerName::try_from(name).map_err(|error| io::Error::new(io::ErrorKind::InvalidInput, error))?;
        TlsConnector::from(Arc::new(config)).connect(name, stream).await
    }

    fn config(&self) -> Result<ClientConfig, TlsError> {
        let mut roots = RootCertStore::empty();
        let named = |source| TlsError::Files { files: self.ca.display().to_string(), source: Box::new(source) };
        for certificate in certificates(&files::read(&self.ca)?).map_err(named)? {
            roots.add(certificate).map_err(|error| named(error.into()))?;
        }
        let mut config = ClientConfig::builder_with_provider(provider())
            .with_protocol_versions(&[&TLS13])?
            .with_root_certificates(roots)
            .with_no_client_auth();
        config.alpn_protocols = vec![ALPN.to_vec()];
        Ok(config)
    }
}

#[cfg(test)]
mod tests;
