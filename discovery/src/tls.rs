//! TLS 1.3 between subscribers and controllers, with certificates that change while streams are open; and the serving side
//! of DNS over TLS, whose certificates change in the same way.
//!
//! A handshake uses what is current when it begins; nothing here touches a connection that is established. The server
//! swaps its certificate in place; a subscriber reads its authority's certificates anew for each connection, which are
//! few.

use std::{io, path::PathBuf, sync::Arc, time::Duration};

use arc_swap::ArcSwap;
use rustls::{
    ClientConfig, RootCertStore, ServerConfig, SupportedProtocolVersion,
    crypto::{CryptoProvider, aws_lc_rs},
    server::{ClientHello, ResolvesServerCert},
    sign::CertifiedKey,
    version::{TLS12, TLS13},
};
use rustls_pki_types::{CertificateDer, PrivateKeyDer, ServerName, pem::PemObject};
use tokio::net::TcpStream;
use tokio_rustls::{TlsConnector, client::TlsStream};

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
    #[error("{what}: {why}")]
    Pem {
        /// What was expected.
        what: &'static str,
        /// What is wrong.
        why: String,
    },
    /// Certificate and key do not fit each other, or the library refuses them.
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

fn provider() -> Arc<CryptoProvider> {
    Arc::new(aws_lc_rs::default_provider())
}

/// The serving side: one certificate, exchangeable. Clones share it.
#[derive(Clone, Debug)]
pub struct ServerTls {
    current: Arc<Current>,
    config: Arc<ServerConfig>,
}

#[derive(Debug)]
struct Current(ArcSwap<CertifiedKey>);

impl ResolvesServerCert for Current {
    fn resolve(&self, _: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(self.0.load_full())
    }
}

impl ServerTls {
    /// Serves with this chain (PEM, the server's own certificate first) and key (PEM).
    ///
    /// # Errors
    /// When they are unreadable or do not belong together.
    pub fn new(chain: &[u8], key: &[u8]) -> Result<Self, TlsError> {
        Self::with(chain, key, &[&TLS13], ALPN)
    }

    /// The same for DNS over TLS, whose clients are not ours: TLS 1.2 is allowed too.
    ///
    /// # Errors
    /// As [`ServerTls::new`].
    pub fn for_dns(chain: &[u8], key: &[u8]) -> Result<Self, TlsError> {
        Self::with(chain, key, &[&TLS13, &TLS12], ALPN_DNS)
    }

    fn with(
        chain: &[u8],
        key: &[u8],
        versions: &[&'static SupportedProtocolVersion],
        alpn: &[u8],
    ) -> Result<Self, TlsError> {
        let current = Arc::new(Current(ArcSwap::from_pointee(certified(chain, key)?)));
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
    #[cfg(test)]
    pub(super) fn current(&self) -> Arc<CertifiedKey> {
        self.current.0.load_full()
    }

    /// Handshakes from now on use this chain and key.
    ///
    /// # Errors
    /// As [`ServerTls::new`]; the present ones stay in use.
    pub fn replace(&self, chain: &[u8], key: &[u8]) -> Result<(), TlsError> {
        self.current.0.store(Arc::new(certified(chain, key)?));
        Ok(())
    }
}

/// A server's certificate and key in two files, as a Secret is mounted.
#[derive(Clone, Debug)]
pub struct CertificateFiles {
    /// The chain, PEM.
    pub chain: PathBuf,
    /// The key, PEM.
    pub key: PathBuf,
}

impl CertificateFiles {
    /// Reads them once.
    ///
    /// # Errors
    /// When they cannot be read or used.
    pub fn load(&self) -> Result<ServerTls, TlsError> {
        let (chain, key) = self.read()?;
        ServerTls::new(&chain, &key).map_err(|error| self.named(error))
    }

    /// Reads them once, for DNS over TLS.
    ///
    /// # Errors
    /// When they cannot be read or used.
    pub fn load_for_dns(&self) -> Result<ServerTls, TlsError> {
        let (chain, key) = self.read()?;
        ServerTls::for_dns(&chain, &key).map_err(|error| self.named(error))
    }

    /// `source` with the names of the files that it is about.
    fn named(&self, source: TlsError) -> TlsError {
        let (chain, key) = (self.chain.display(), self.key.display());
        let files = match &source {
            TlsError::Pem { what: CERTIFICATES, .. } => chain.to_string(),
            TlsError::Pem { .. } => key.to_string(),
            _ => format!("{chain} and {key}"),
        };
        TlsError::Files { files, source: Box::new(source) }
    }

    /// Looks every `interval` whether they changed, and uses what is new. Files that cannot be used, such as a chain that
    /// was replaced a moment before its key, leave the present ones in use; they are looked at again. Never returns.
    pub async fn keep_current(&self, tls: &ServerTls, interval: Duration) {
        let mut used = self.read().ok();
        let mut warned = None;
        loop {
            tokio::time::sleep(interval).await;
            let found = match self.read() {
                Ok(found) => found,
                Err(error) => {
                    warn_once(&mut warned, &error);
                    continue;
                }
            };
            if used.as_ref() == Some(&found) {
                continue;
            }
            match tls.replace(&found.0, &found.1) {
                Ok(()) => {
                    tracing::info!(chain = %self.chain.display(), "serving with a new certificate");
                    (used, warned) = (Some(found), None);
                }
                Err(error) => warn_once(&mut warned, &self.named(error)),
            }
        }
    }

    fn read(&self) -> Result<(Vec<u8>, Vec<u8>), TlsError> {
        Ok((read(&self.chain)?, read(&self.key)?))
    }
}

fn warn_once(warned: &mut Option<String>, error: &TlsError) {
    let text = error.to_string();
    if warned.as_ref() != Some(&text) {
        tracing::warn!(error = text, "cannot use the new certificate; the present one stays in use");
        *warned = Some(text);
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
        for certificate in certificates(&read(&self.ca)?)? {
            roots.add(certificate)?;
        }
        let mut config = ClientConfig::builder_with_provider(provider())
            .with_protocol_versions(&[&TLS13])?
            .with_root_certificates(roots)
            .with_no_client_auth();
        config.alpn_protocols = vec![ALPN.to_vec()];
        Ok(config)
    }
}

fn read(path: &PathBuf) -> Result<Vec<u8>, TlsError> {
    std::fs::read(path).map_err(|source| TlsError::Read { path: path.clone(), source })
}

/// What a chain consists of.
const CERTIFICATES: &str = "certificates";

fn certificates(pem: &[u8]) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    let bad = |why: String| TlsError::Pem { what: CERTIFICATES, why };
    let all: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(pem).collect();
    let all = all.map_err(|error| bad(error.to_string()))?;
    if all.is_empty() { Err(bad("there are none".to_owned())) } else { Ok(all) }
}

fn certified(chain: &[u8], key: &[u8]) -> Result<CertifiedKey, TlsError> {
    let chain = certificates(chain)?;
    let key = PrivateKeyDer::from_pem_slice(key)
        .map_err(|error| TlsError::Pem { what: "private key", why: error.to_string() })?;
    let certified = CertifiedKey::new(chain, aws_lc_rs::sign::any_supported_type(&key)?);
    certified.keys_match()?;
    Ok(certified)
}
