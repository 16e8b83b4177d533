//! HTTP/1.1 and HTTP/2 without TLS, and HTTPS that takes any certificate.

use std::io;
use std::os::fd::AsFd;
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
pub(crate) struct Sender {
    requests: Requests,
    socket: std::net::TcpStream,
}

enum Requests {
    One(http1::SendRequest<Full<Bytes>>),
    Two(http2::SendRequest<Full<Bytes>>),
}

/// Another handle of the same socket.
fn handle_of(stream: &TcpStream) -> Result<std::net::TcpStream, Failure> {
    Ok(stream.as_fd().try_clone_to_owned()?.into())
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
        let socket = handle_of(&stream)?;
        let (sender, connection) = http1::handshake(TokioIo::new(stream)).await?;
        tokio::spawn(connection);
        Ok(Self { requests: Requests::One(sender), socket })
    }

    /// HTTP/2 on `stream`, with prior knowledge.
    pub(crate) async fn second(stream: TcpStream) -> Result<Self, Failure> {
        let socket = handle_of(&stream)?;
        let (sender, connection) = http2::handshake(TokioExecutor::new(), TokioIo::new(stream)).await?;
        tokio::spawn(connection);
        Ok(Self { requests: Requests::Two(sender), socket })
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
        let socket = handle_of(&stream)?;
        let stream = TlsConnector::from(Arc::new(config)).connect(name, stream).await?;
        let (sender, connection) = http1::handshake(TokioIo::new(stream)).await?;
        tokio::spawn(connection);
        Ok(Self { requests: Requests::One(sender), socket })
    }

    /// Sends one request and reads the whole answer; an error unless its status is 200.
    pub(crate) async fn ask(&mut self, question: &Question) -> Result<Asked, Failure> {
        let ready = match &mut self.requests {
            Requests::One(sender) => sender.ready().await,
            Requests::Two(sender) => sender.ready().await,
        };
        if let Err(error) = ready {
            return Ok(Asked::Unsent(format!("not ready: {error:?}")));
        }
        if self.has_ended() {
            return Ok(Asked::Unsent("the server has ended the connection".to_owned()));
        }
        let sent = match &mut self.requests {
            Requests::One(sender) => sender.try_send_request(question.request(false)?).await,
            Requests::Two(sender) => sender.try_send_request(question.request(true)?).await,
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
        match &self.requests {
            Requests::One(sender) => !sender.is_closed(),
            Requests::Two(sender) => !sender.is_closed(),
        }
    }

    /// Whether the end of the connection has arrived, also where the event loop has not seen it yet. On a machine that is
    /// overloaded that takes long, and a request would be sent to a server that has ended the connection long ago.
    fn has_ended(&self) -> bool {
        match self.socket.peek(&mut [0]) {
            Ok(read) => read == 0,
            Err(error) => error.kind() != io::ErrorKind::WouldBlock,
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

#[cfg(test)]
mod tests {
    use std::io::{Read as _, Write as _};
    use std::net::TcpListener;
    use std::sync::mpsc::channel;

    use super::*;

    /// The event loop does not run between the end and the next request: this thread waits for the end itself.
    #[tokio::test]
    async fn a_request_is_not_sent_on_a_connection_that_has_ended() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let (end, ending) = channel::<()>();
        let server = std::thread::spawn(move || {
            let (mut stream, _) = listener.accept().unwrap();
            let mut asked = Vec::new();
            while !asked.ends_with(b"\r\n\r\n") {
                let mut byte = [0];
                stream.read_exact(&mut byte).unwrap();
                asked.push(byte[0]);
            }
            stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n").unwrap();
            ending.recv().unwrap();
        });
        let mut sender = Sender::first(TcpStream::connect(address).await.unwrap()).await.unwrap();
        let question = Question { authority: address.to_string(), path: "/".to_owned(), grpc: None };
        assert!(matches!(sender.ask(&question).await, Ok(Asked::Answered(_))));
        while matches!(&sender.requests, Requests::One(requests) if !requests.is_ready()) {
            tokio::task::yield_now().await;
        }
        end.send(()).unwrap();
        server.join().unwrap();
        let why = match sender.ask(&question).await {
            Ok(Asked::Unsent(why)) => why,
            Ok(Asked::Answered(_)) => panic!("it was answered"),
            Err(failure) => panic!("it was sent: {failure}"),
        };
        assert_eq!(why, "the server has ended the connection");
    }
}
