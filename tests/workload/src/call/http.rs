//! HTTP/1.1 and HTTP/2 without TLS, and HTTPS that takes any certificate.

use std::sync::Arc;

use bytes::Bytes;
use http::{HeaderMap, Method, Request, Uri, header};
use http_body_util::{BodyExt, Full};
use hyper::client::conn::{http1, http2};
use hyper_util::rt::{TokioExecutor, TokioIo};
use rustls::ClientConfig;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, ring};
use rustls::{DigitallySignedStruct, SignatureScheme};
use rustls_pki_types::{CertificateDer, ServerName, UnixTime};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

use super::Failure;

/// A connection that takes requests.
pub(crate) enum Sender {
    One(http1::SendRequest<Full<Bytes>>),
    Two(http2::SendRequest<Full<Bytes>>),
}

/// The server said GOAWAY without an error, and what came of this request says no more: it was not taken up (RFC 9113
/// section 6.8), and belongs on a new connection.
fn is_asked_to_leave(error: &hyper::Error) -> bool {
    let cause = std::error::Error::source(error).and_then(|cause| cause.downcast_ref::<h2::Error>());
    cause.is_some_and(|cause| cause.is_go_away() && cause.is_remote() && cause.reason() == Some(h2::Reason::NO_ERROR))
}

/// What became of a request.
pub(crate) enum Asked {
    /// It was answered.
    Answered(Answer),
    /// The connection had ended before anything was sent, which says nothing of the server: another connection may be
    /// used. Why it ended.
    Unsent(String),
}

impl Asked {
    /// The answer, where there was no connection before this one: then a request that was not sent has failed.
    pub(crate) fn answer(self) -> Result<Answer, Failure> {
        match self {
            Self::Answered(answer) => Ok(answer),
            Self::Unsent(why) => Err(Failure::Unsent(why)),
        }
    }
}

/// A whole response.
pub(crate) struct Answer {
    pub(crate) body: Bytes,
    pub(crate) trailers: HeaderMap,
}

/// What to ask for.
#[derive(Debug, Clone)]
pub(crate) struct Question {
    /// Host and port as the person wrote them.
    pub(crate) authority: String,
    pub(crate) path: String,
    /// Body of a gRPC call.
    pub(crate) grpc: Option<Bytes>,
}

impl Question {
    fn request(&self, second: bool) -> Result<Request<Full<Bytes>>, Failure> {
        let bad = |error: http::Error| Failure::Http(error.to_string());
        let uri: Uri = if second {
            let parts = Uri::builder().scheme("http").authority(self.authority.as_str());
            parts.path_and_query(self.path.as_str()).build().map_err(bad)?
        } else {
            Uri::builder().path_and_query(self.path.as_str()).build().map_err(bad)?
        };
        let mut request = Request::builder().uri(uri);
        if !second {
            request = request.header(header::HOST, &self.authority);
        }
        if let Some(message) = &self.grpc {
            request =
                request.method(Method::POST).header(header::CONTENT_TYPE, "application/grpc").header("te", "trailers");
            return request.body(Full::new(message.clone())).map_err(bad);
        }
        request.body(Full::default()).map_err(bad)
    }
}

impl Sender {
    /// HTTP/1.1 on `stream`.
    pub(crate) async fn first(stream: TcpStream) -> Result<Self, Failure> {
        let (sender, connection) = http1::handshake(TokioIo::new(stream)).await?;
        tokio::spawn(connection);
        Ok(Self::One(sender))
    }

    /// HTTP/2 on `stream`, with prior knowledge.
    pub(crate) async fn second(stream: TcpStream) -> Result<Self, Failure> {
        let (sender, connection) = http2::handshake(TokioExecutor::new(), TokioIo::new(stream)).await?;
        tokio::spawn(connection);
        Ok(Self::Two(sender))
    }

    /// HTTP/1.1 over TLS for `name`.
    pub(crate) async fn secure(stream: TcpStream, name: &str) -> Result<Self, Failure> {
        let bad = |error: rustls::Error| Failure::Http(error.to_string());
        let name = ServerName::try_from(name.to_owned()).map_err(|error| Failure::Http(error.to_string()))?;
        let provider = Arc::new(ring::default_provider());
        let config = ClientConfig::builder_with_provider(provider.clone())
            .with_safe_default_protocol_versions()
            .map_err(bad)?
            .dangerous()
            .with_custom_certificate_verifier(Arc::new(Anybody(provider)))
            .with_no_client_auth();
        let stream = TlsConnector::from(Arc::new(config)).connect(name, stream).await?;
        let (sender, connection) = http1::handshake(TokioIo::new(stream)).await?;
        tokio::spawn(connection);
        Ok(Self::One(sender))
    }

    /// Sends one request and reads the whole answer; an error unless its status is 200.
    pub(crate) async fn ask(&mut self, question: &Question) -> Result<Asked, Failure> {
        let ready = match self {
            Self::One(sender) => sender.ready().await,
            Self::Two(sender) => sender.ready().await,
        };
        if let Err(error) = ready {
            return Ok(Asked::Unsent(format!("not ready: {error:?}")));
        }
        let sent = match self {
            Self::One(sender) => sender.try_send_request(question.request(false)?).await,
            Self::Two(sender) => sender.try_send_request(question.request(true)?).await,
        };
        let response = match sent {
            Ok(response) => response,
            Err(mut failed) => {
                let given_back = failed.take_message().is_some();
                let error = failed.into_error();
                if given_back || is_asked_to_leave(&error) {
                    return Ok(Asked::Unsent(format!("{error:?}")));
                }
                return Err(error.into());
            }
        };
        let (status, reason) = (response.status(), response.headers().get("x-maesh-reason").cloned());
        let collected = response.into_body().collect().await?;
        let trailers = collected.trailers().cloned().unwrap_or_default();
        if status != http::StatusCode::OK {
            let reason = reason.map(|value| format!(" {}", String::from_utf8_lossy(value.as_bytes())));
            return Err(Failure::Status(status.as_u16(), reason.unwrap_or_default()));
        }
        Ok(Asked::Answered(Answer { body: collected.to_bytes(), trailers }))
    }

    /// Whether another request may go out on it.
    pub(crate) fn is_open(&self) -> bool {
        match self {
            Self::One(sender) => !sender.is_closed(),
            Self::Two(sender) => !sender.is_closed(),
        }
    }
}

/// Takes any certificate: the echo server makes its own.
#[derive(Debug)]
struct Anybody(Arc<CryptoProvider>);

impl ServerCertVerifier for Anybody {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        rustls::crypto::verify_tls12_signature(message, certificate, signed, &self.0.signature_verification_algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        rustls::crypto::verify_tls13_signature(message, certificate, signed, &self.0.signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}
