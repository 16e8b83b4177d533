//! Authorities, certificates, and endpoints that serve TLS.

use std::{net::SocketAddr, sync::Arc};

use maesh_config::{
    model::{BackendPolicy, Scheme},
    policy::{EndpointTls, TlsRoots},
};
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair, date_time_ymd};
use rustls::{
    ServerConfig, SupportedProtocolVersion,
    crypto::ring,
    pki_types::{CertificateDer, PrivateKeyDer},
    version::{TLS12, TLS13},
};
use tokio::net::TcpStream;
use tokio_rustls::{TlsAcceptor, server::TlsStream};

use super::endpoints;

/// Name that certificates have, unless a test says otherwise.
pub const NAME: &str = "web.shop.svc";

/// Whoever signs certificates.
pub struct Authority(CertifiedIssuer<'static, KeyPair>);

/// A certificate and its key.
pub struct Papers {
    chain: Vec<CertificateDer<'static>>,
    key: PrivateKeyDer<'static>,
}

impl Authority {
    pub fn new() -> Self {
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        Self(CertifiedIssuer::self_signed(params, KeyPair::generate().expect("a key")).expect("an authority"))
    }

    pub fn der(&self) -> Box<[u8]> {
        self.0.der().as_ref().into()
    }

    /// A certificate for `name` that is valid until the year `until`.
    pub fn issue(&self, name: &str, until: i32) -> Papers {
        let key = KeyPair::generate().expect("a key");
        let mut params = CertificateParams::new(vec![name.to_owned()]).expect("a name");
        params.not_before = date_time_ymd(2010, 1, 1);
        params.not_after = date_time_ymd(until, 1, 1);
        let chain = vec![params.signed_by(&key, &self.0).expect("signed").der().clone()];
        Papers { chain, key: PrivateKeyDer::Pkcs8(key.serialize_der().into()) }
    }

    /// A policy that believes this authority.
    pub fn policy(&self, name: &str) -> BackendPolicy {
        policy(name, TlsRoots::Certificates([self.der()].into()))
    }
}

/// HTTPS, with this name and these roots.
pub fn policy(name: &str, roots: TlsRoots) -> BackendPolicy {
    BackendPolicy {
        scheme: Scheme::Https,
        tls: Some(Box::new(EndpointTls { server_name: name.into(), roots })),
        ..BackendPolicy::default()
    }
}

impl Papers {
    /// What a server is configured with.
    pub fn config(self, versions: &[&'static SupportedProtocolVersion]) -> ServerConfig {
        ServerConfig::builder_with_provider(Arc::new(ring::default_provider()))
            .with_protocol_versions(versions)
            .expect("versions")
            .with_no_client_auth()
            .with_single_cert(self.chain, self.key)
            .expect("a certificate and its key")
    }
}

/// A good certificate, TLS 1.2 and 1.3.
pub fn usual(authority: &Authority) -> ServerConfig {
    authority.issue(NAME, 2099).config(&[&TLS13, &TLS12])
}

/// A server that makes a handshake on each connection, and then does what `serve` says.
pub async fn serve<A>(
    config: ServerConfig,
    serve: impl Fn(TlsStream<TcpStream>) -> A + Send + Sync + 'static,
) -> SocketAddr
where
    A: Future<Output = ()> + Send + 'static,
{
    let (acceptor, serve) = (TlsAcceptor::from(Arc::new(config)), Arc::new(serve));
    endpoints::raw(move |stream| {
        let (acceptor, serve) = (acceptor.clone(), serve.clone());
        async move {
            // A handshake may be made to fail.
            if let Ok(stream) = acceptor.accept(stream).await {
                serve(stream).await;
            }
        }
    })
    .await
}
