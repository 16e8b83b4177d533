//! TLS to endpoints.
//!
//! An endpoint is verified by name, always: there is no way to a connection that was not. Where nothing can be verified,
//! because the roots are missing, nothing is connected.
//!
//! [`Tls`] is an identity, the name and the roots of one backend. Whoever has the same one shares connections; a connection
//! of another one, or without TLS, is never used in its place.

mod sessions;
mod stream;

use std::{
    fmt,
    sync::{Arc, OnceLock},
    time::Duration,
};

use maesh_config::policy::{EndpointTls, TlsRoots};
use parking_lot::Mutex;
use rustls::{
    ClientConfig, RootCertStore,
    client::Resumption,
    crypto::ring,
    pki_types::{CertificateDer, ServerName},
    version::{TLS12, TLS13},
};
use tokio::time::{Instant, timeout_at};

use self::sessions::Sessions;
pub(super) use self::stream::TlsSocket;
use super::{Peer, WorkerUpstream};
use crate::connect::{self, ConnectError, TlsFailure};

/// Names of application protocols (RFC 7301 section 6).
const HTTP1: &[u8] = b"http/1.1";
const HTTP2: &[u8] = b"h2";

/// After this time, an endpoint that chose HTTP/1.1 is offered HTTP/2 again.
const OFFER_AGAIN: Duration = Duration::from_secs(30);

/// The application protocols that are offered to an endpoint.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Offer {
    /// HTTP/1.1 alone.
    Http1,
    /// HTTP/2, or else HTTP/1.1.
    Http2,
}

impl Offer {
    fn protocols(self) -> Vec<Vec<u8>> {
        let names: &[&[u8]] = match self {
            Self::Http1 => &[HTTP1],
            Self::Http2 => &[HTTP2, HTTP1],
        };
        names.iter().map(|name| name.to_vec()).collect()
    }
}

/// Whom endpoints of a backend have to be, and who vouches for it.
pub(crate) struct Tls {
    asked: EndpointTls,
    /// Made at the first connection.
    verifier: OnceLock<Result<Verifier, TlsFailure>>,
}

/// What a handshake is made with, but for what is remembered of earlier ones.
struct Verifier {
    name: ServerName<'static>,
    config: ClientConfig,
}

impl fmt::Debug for Tls {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.asked.fmt(f)
    }
}

/// Whether both are the same identity, or none.
pub(super) fn is_same(one: Option<&Arc<Tls>>, other: Option<&Arc<Tls>>) -> bool {
    one.map(Arc::as_ptr) == other.map(Arc::as_ptr)
}

impl Tls {
    /// An identity of which nothing is prepared yet.
    pub(crate) fn new(asked: EndpointTls) -> Arc<Self> {
        Arc::new(Self { asked, verifier: OnceLock::new() })
    }

    /// What it was made of.
    pub(crate) fn asked(&self) -> &EndpointTls {
        &self.asked
    }

    /// What handshakes are made with. The first time this reads files, off the event loop.
    async fn verifier(self: &Arc<Self>) -> Result<&Verifier, TlsFailure> {
        if self.verifier.get().is_none() {
            let this = self.clone();
            let prepared = tokio::task::spawn_blocking(move || {
                this.verifier.get_or_init(|| Verifier::of(&this.asked));
            });
            if prepared.await.is_err() {
                return Err(TlsFailure::NoRoots("the proxy is ending".into()));
            }
        }
        let nothing = || Err(TlsFailure::NoRoots("nothing was prepared".into()));
        self.verifier.get_or_init(nothing).as_ref().map_err(Clone::clone)
    }
}

impl Verifier {
    fn of(asked: &EndpointTls) -> Result<Self, TlsFailure> {
        let roots = roots(&asked.roots)?;
        let name = ServerName::try_from(asked.server_name.to_string()).map_err(|_| TlsFailure::BadName)?;
        let config = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
            .with_protocol_versions(&[&TLS13, &TLS12])
            .map_err(|error| TlsFailure::from(&error))?
            .with_root_certificates(roots)
            .with_no_client_auth();
        Ok(Self { name, config })
    }
}

fn roots(asked: &TlsRoots) -> Result<Arc<RootCertStore>, TlsFailure> {
    match asked {
        TlsRoots::System => system_roots(),
        TlsRoots::Certificates(all) => {
            let mut store = RootCertStore::empty();
            for der in all.iter() {
                store.add(CertificateDer::from_slice(der)).map_err(|error| {
                    TlsFailure::NoRoots(format!("a certificate of ca.crt cannot be read: {error}").into())
                })?;
            }
            if store.is_empty() {
                Err(TlsFailure::NoRoots("there is no certificate in ca.crt".into()))
            } else {
                Ok(store.into())
            }
        }
        TlsRoots::Unusable(why) => Err(TlsFailure::NoRoots(why.clone())),
    }
}

/// The roots of the system, read once: those of the image do not change while it runs.
fn system_roots() -> Result<Arc<RootCertStore>, TlsFailure> {
    static ROOTS: OnceLock<Result<Arc<RootCertStore>, TlsFailure>> = OnceLock::new();
    let read = || {
        let mut store = RootCertStore::empty();
        let found = rustls_native_certs::load_native_certs();
        store.add_parsable_certificates(found.certs);
        if store.is_empty() {
            return Err(TlsFailure::NoRoots("the system of the proxy has no certificate authorities".into()));
        }
        Ok(Arc::new(store))
    };
    ROOTS.get_or_init(read).clone()
}

/// What is used for handshakes with one endpoint.
#[derive(Clone)]
struct Current {
    tls: Arc<Tls>,
    config: Arc<ClientConfig>,
    sessions: Arc<Sessions>,
}

/// What one endpoint is remembered by. Most are never spoken to over TLS.
#[derive(Default)]
pub(super) struct PeerTls(OnceLock<Box<Mutex<PeerTlsState>>>);

#[derive(Default)]
struct PeerTlsState {
    /// The identity of the last handshake, with the sessions that the endpoint gave it. Another identity begins anew, so that
    /// no session outlives the roots that it was verified against.
    current: Option<Current>,
    /// Whether the endpoint chose HTTP/2 when it was last offered, under that identity, and when that was.
    http2: Option<(bool, Instant)>,
    /// Why the last handshake failed.
    failure: Option<TlsFailure>,
}

impl PeerTls {
    fn current(&self, tls: &Arc<Tls>, verifier: &Verifier) -> Current {
        let mut state = self.0.get_or_init(Box::default).lock();
        if let Some(current) = state.current.as_ref().filter(|current| Arc::ptr_eq(&current.tls, tls)) {
            return current.clone();
        }
        let sessions = Arc::<Sessions>::default();
        let mut config = verifier.config.clone();
        config.resumption = Resumption::store(sessions.clone());
        let current = Current { tls: tls.clone(), config: Arc::new(config), sessions };
        state.http2 = None;
        state.current.insert(current).clone()
    }

    /// Whether the endpoint chose HTTP/2 when it was last offered; `None` if it is to be offered.
    pub(super) fn chosen(&self, tls: &Arc<Tls>) -> Option<bool> {
        let state = self.0.get()?.lock();
        state.current.as_ref().filter(|current| Arc::ptr_eq(&current.tls, tls))?;
        let (http2, since) = state.http2?;
        (http2 || since.elapsed() < OFFER_AGAIN).then_some(http2)
    }

    /// Notes what the endpoint chose; `None` if that is not known any more.
    fn note_chosen(&self, tls: &Arc<Tls>, http2: Option<bool>) {
        let mut state = self.0.get_or_init(Box::default).lock();
        if state.current.as_ref().is_some_and(|current| Arc::ptr_eq(&current.tls, tls)) {
            state.http2 = http2.map(|http2| (http2, Instant::now()));
        }
    }

    /// Notes how a handshake ended. Returns whether that is news.
    fn note(&self, failure: Option<&TlsFailure>) -> bool {
        let mut state = self.0.get_or_init(Box::default).lock();
        let news = state.failure.as_ref() != failure;
        if news {
            state.failure = failure.cloned();
        }
        news
    }

    /// Why the last handshake failed, if it did.
    pub(super) fn failure(&self) -> Option<TlsFailure> {
        self.0.get()?.lock().failure.clone()
    }
}

/// A verified connection to `peer`, on which it has chosen among the protocols of `offer`; at the latest until `within` has
/// passed, for all of it.
pub(super) async fn connect(
    local: &WorkerUpstream,
    peer: &Peer,
    within: Duration,
    tls: &Arc<Tls>,
    offer: Offer,
) -> Result<TlsSocket, ConnectError> {
    let to = peer.address;
    let deadline = Instant::now() + within;
    let made = async {
        let failed = |failure| Err(ConnectError::Tls { to, failure });
        let verifier = match tls.verifier().await {
            Ok(verifier) => verifier,
            Err(failure) => return failed(failure),
        };
        let stream = local.connector.connect(to, within).await?;
        connect::limit_unacknowledged(&stream);
        let Current { config, sessions, .. } = peer.tls.current(tls, verifier);
        let handshake = TlsSocket::connect(stream, config, verifier.name.clone(), offer, tls, &sessions);
        match timeout_at(deadline, handshake).await {
            Ok(Ok(socket)) => Ok(socket),
            Ok(Err(error)) => failed(TlsFailure::of(&error)),
            Err(_) => Err(ConnectError::TimedOut { to, within }),
        }
    };
    let made = made.await;
    match &made {
        Ok(socket) => {
            let _ = peer.tls.note(None);
            if offer == Offer::Http2 {
                peer.tls.note_chosen(tls, Some(socket.chose_http2()));
            }
        }
        Err(ConnectError::Tls { failure, .. }) if offer == Offer::Http1 && failure.is_of_protocol() => {
            if peer.tls.chosen(tls) == Some(false) {
                // It is another program by now.
                peer.tls.note_chosen(tls, None);
            }
            return Err(ConnectError::OtherProtocol { to, wanted: "HTTP/1.1" });
        }
        Err(ConnectError::Tls { failure, .. }) => local.connector.tls_failed(failure),
        Err(_) => {}
    }
    made
}

impl Peer {
    /// Notes why a handshake failed. Returns whether the last one failed otherwise, or not at all.
    pub(crate) fn note_tls_failure(&self, failure: &TlsFailure) -> bool {
        self.tls.note(Some(failure))
    }

    /// Why the last handshake failed, if it did.
    pub(crate) fn tls_failure(&self) -> Option<TlsFailure> {
        self.tls.failure()
    }
}
