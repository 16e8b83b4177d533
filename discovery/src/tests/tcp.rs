//! Over TCP on loopback: TLS, secrets, several addresses.

use std::path::Path;

use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};
use tokio::{net::TcpListener, task::JoinHandle};

use super::*;
use crate::{
    auth::{Authenticate, NoAuthentication, SharedSecret},
    tls::{Certificate, ClientTls, ServerTls},
};

const SERVER: &str = "maesh-controller.maesh.svc";

/// An authority's certificate, and the chain and key of a server that it vouches for. PEM.
struct Papers {
    ca: String,
    chain: String,
    key: String,
}

fn papers() -> Papers {
    let mut authority = CertificateParams::new(Vec::new()).unwrap();
    authority.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let authority = CertifiedIssuer::self_signed(authority, KeyPair::generate().unwrap()).unwrap();
    let key = KeyPair::generate().unwrap();
    let server = CertificateParams::new(vec![SERVER.to_owned()]).unwrap().signed_by(&key, &authority).unwrap();
    Papers { ca: authority.pem(), chain: server.pem(), key: key.serialize_pem() }
}

impl Papers {
    fn server(&self) -> ServerTls {
        ServerTls::new(Certificate::parse(self.chain.as_bytes(), self.key.as_bytes()).unwrap()).unwrap()
    }
}

/// The authority's certificate as a file of this folder, and a server that it vouches for.
pub(super) fn trust() -> (tempfile::TempDir, std::path::PathBuf, ServerTls) {
    let folder = tempfile::tempdir().unwrap();
    let (ca, papers) = (folder.path().join("ca.crt"), papers());
    std::fs::write(&ca, &papers.ca).unwrap();
    (folder, ca, papers.server())
}

/// The end of a listening server.
pub(super) type End = JoinHandle<std::io::Result<()>>;

pub(super) async fn listen(
    server: &Server,
    tls: Option<&ServerTls>,
    auth: Arc<dyn Authenticate>,
    at: &str,
) -> (String, End) {
    let listener = TcpListener::bind(at).await.unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let (server, tls) = (server.clone(), tls.map(ServerTls::config));
    (address, tokio::spawn(async move { server.listen(listener, tls, auth).await }))
}

pub(super) fn secret() -> Arc<SharedSecret> {
    Arc::new(SharedSecret::new("a secret of some length").unwrap())
}

pub(super) fn over_tcp(server: &Server, controllers: &[&str], ca: Option<&Path>, token: Token) -> SubscriberConfig {
    let tls = ca.map(|ca| ClientTls { ca: ca.to_owned(), server_name: Some(SERVER.to_owned()) });
    let controllers = controllers.iter().map(ToString::to_string).collect();
    SubscriberConfig { connect: Connect::Tcp { controllers, tls }, token, ..config(server, &[Kind::Name], &[]) }
}

/// Waits until the subscriber failed once more than `before`; what it says of it.
async fn failure(role: &Applied, before: u64) -> String {
    let status = &role.subscribed.status;
    let failed = tokio::time::timeout(LONG, async {
        while status.failures() <= before || status.last_error().is_none() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    });
    failed.await.expect("no failure in time");
    status.last_error().unwrap().to_string()
}

#[tokio::test]
async fn certificates_change_while_streams_are_open() {
    let folder = tempfile::tempdir().unwrap();
    let (ca, token) = (folder.path().join("ca.crt"), folder.path().join("token"));
    let (first, second) = (papers(), papers());
    std::fs::write(&ca, &first.ca).unwrap();
    std::fs::write(&token, "a secret of some length\n").unwrap();
    let store = complete(&[name("shop/web", 1)]);
    let server = serve(&store);
    let tls = first.server();
    let (address, end) = listen(&server, Some(&tls), secret(), "127.0.0.1:0").await;
    let mut role = role(over_tcp(&server, &[&address], Some(&ca), Token::File(token)));
    role.step().await;

    // The stream that is open goes on.
    tls.replace(Certificate::parse(second.chain.as_bytes(), second.key.as_bytes()).unwrap());
    store.apply(&upserts([name("shop/web", 2)]));
    role.step().await;
    assert_eq!(role.subscribed.status.connects(), 1);

    // A new one needs the new authority, which the subscriber finds without a restart.
    server.shutdown();
    end.await.unwrap().unwrap();
    let store = complete(&[name("shop/web", 3)]);
    let server = serve(&store);
    let (_, _end) = listen(&server, Some(&tls), secret(), &address).await;
    let before = role.subscribed.status.failures();
    let error = failure(&role, before + 1).await;
    assert!(error.contains("certificate") || error.contains("refused"), "{error}");
    std::fs::write(&ca, &second.ca).unwrap();
    role.step().await;
    assert_eq!(role.has.values().map(|it| (**it).clone()).collect::<Vec<_>>(), [name("shop/web", 3)]);
}

#[tokio::test]
async fn who_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let (ca, other_ca) = (folder.path().join("ca.crt"), folder.path().join("other.crt"));
    let (ours, other) = (papers(), papers());
    std::fs::write(&ca, &ours.ca).unwrap();
    std::fs::write(&other_ca, &other.ca).unwrap();
    let server = serve(&complete(&[]));
    let (address, _end) = listen(&server, Some(&ours.server()), secret(), "127.0.0.1:0").await;
    let wrong = Token::Value("another secret, as long".into());
    let right = Token::Value("a secret of some length".into());
    for (case, config, why) in [
        ("the wrong secret", over_tcp(&server, &[&address], Some(&ca), wrong), "not the shared secret"),
        ("no secret", over_tcp(&server, &[&address], Some(&ca), Token::None), "authorization: Bearer is missing"),
        ("another authority", over_tcp(&server, &[&address], Some(&other_ca), right.clone()), "certificate"),
        ("no TLS", over_tcp(&server, &[&address], None, right.clone()), &address),
        ("nobody there", over_tcp(&server, &["127.0.0.1:1"], Some(&ca), right), "127.0.0.1:1"),
    ] {
        let error = failure(&role(config), 0).await;
        assert!(error.contains(why), "{case}: {error}");
    }
    assert_eq!(server.counters().streams(), 0);
}

#[tokio::test]
async fn tls_below_1_3_is_not_spoken() {
    let ours = papers();
    let server = serve(&complete(&[]));
    let (address, _end) = listen(&server, Some(&ours.server()), secret(), "127.0.0.1:0").await;
    let mut roots = rustls::RootCertStore::empty();
    let ca =
        <rustls_pki_types::CertificateDer<'_> as rustls_pki_types::pem::PemObject>::from_pem_slice(ours.ca.as_bytes());
    roots.add(ca.unwrap()).unwrap();
    for (version, spoken) in [(&rustls::version::TLS12, false), (&rustls::version::TLS13, true)] {
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let config = rustls::ClientConfig::builder_with_provider(provider)
            .with_protocol_versions(&[version])
            .unwrap()
            .with_root_certificates(roots.clone())
            .with_no_client_auth();
        let stream = tokio::net::TcpStream::connect(&address).await.unwrap();
        let name = SERVER.try_into().unwrap();
        let shaken = tokio_rustls::TlsConnector::from(Arc::new(config)).connect(name, stream).await;
        assert_eq!(shaken.is_ok(), spoken, "{version:?}");
    }
}

#[tokio::test]
async fn one_controller_of_several_is_enough() {
    let server = serve(&complete(&[name("shop/web", 1)]));
    let (address, _end) = listen(&server, None, Arc::new(NoAuthentication::loopback()), "127.0.0.1:0").await;
    let controllers = ["127.0.0.1:1", &address, "127.0.0.1:2"];
    let mut role = role(over_tcp(&server, &controllers, None, Token::None));
    role.step().await;
    assert_eq!(role.names(Kind::Name), ["shop/web"]);
}
