//! A caller of either version, who says what it was given and whether that was whole.

use std::{convert::Infallible, net::SocketAddr};

use bytes::Bytes;
use futures_util::stream;
use http::{Request, Response};
use http_body_util::{BodyExt, Empty, StreamBody, combinators::UnsyncBoxBody};
use hyper::{
    body::{Frame, Incoming},
    client::conn,
};
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::{net::TcpStream, sync::watch, task::JoinHandle};

use super::within;

type Body = UnsyncBoxBody<Bytes, Infallible>;

/// The version of HTTP that a caller speaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Version {
    Http1,
    Http2,
}

impl Version {
    pub const ALL: [Self; 2] = [Self::Http1, Self::Http2];
}

/// The body of a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Upload {
    None,
    /// A piece.
    Small,
    /// A piece, and another one once the response has begun.
    Slow,
    /// More than all buffers on the way hold.
    Large,
}

/// Bytes of a piece of an upload, and pieces of a large one.
const PIECE: usize = 16 * 1024;
const PIECES: usize = 512;

/// What came back. Without a response the status is 0, and the reason says what happened.
#[derive(Debug, Default)]
pub struct Answer {
    pub status: u16,
    pub reason: String,
    pub body: String,
    pub is_whole: bool,
}

/// Somebody who sends one request after the other: of HTTP/2 on one connection while it lasts, of HTTP/1.1 on one each. Its
/// connection ends with the response, or with it, whatever it still sends.
pub struct Caller {
    pub version: Version,
    to: SocketAddr,
    host: String,
    open: Option<conn::http2::SendRequest<Body>>,
    running: AbortOnDrop,
}

/// The task of a connection, which ends when this is dropped.
#[derive(Default)]
struct AbortOnDrop(Option<JoinHandle<()>>);

impl AbortOnDrop {
    fn spawn<F: Future<Output = hyper::Result<()>> + Send + 'static>(connection: F) -> Self {
        // Requests hear of an error.
        Self(Some(tokio::spawn(async move { drop(connection.await) })))
    }
}

impl Drop for AbortOnDrop {
    fn drop(&mut self) {
        if let Some(task) = self.0.take() {
            task.abort();
        }
    }
}

impl Caller {
    pub fn new(version: Version, to: SocketAddr, host: &str) -> Self {
        Self { version, to, host: host.to_owned(), open: None, running: AbortOnDrop::default() }
    }

    /// Sends a request and reads all of its response.
    pub async fn ask(&mut self, path: &str, upload: Upload) -> Answer {
        let (hear, heard) = watch::channel(false);
        let sent = match self.version {
            Version::Http1 => self.over_http1(path, upload, heard).await,
            Version::Http2 => self.over_http2(path, upload, heard).await,
        };
        hear.send_replace(true);
        let answer = match sent {
            Ok(response) => read(response).await,
            Err(error) => Answer { reason: format!("{error:?}"), ..Answer::default() },
        };
        if self.version == Version::Http1 {
            self.running = AbortOnDrop::default();
        }
        answer
    }

    async fn over_http1(
        &mut self,
        path: &str,
        upload: Upload,
        heard: watch::Receiver<bool>,
    ) -> hyper::Result<Response<Incoming>> {
        let io = TokioIo::new(TcpStream::connect(self.to).await.expect("connected"));
        let (mut sender, connection) = conn::http1::handshake(io).await?;
        self.running = AbortOnDrop::spawn(connection);
        let request = request(upload).uri(path).header("host", &self.host);
        within(sender.send_request(request.body(body(upload, heard)).expect("a request"))).await
    }

    async fn over_http2(
        &mut self,
        path: &str,
        upload: Upload,
        heard: watch::Receiver<bool>,
    ) -> hyper::Result<Response<Incoming>> {
        let mut sender = match self.open.take().filter(|sender| !sender.is_closed()) {
            Some(sender) => sender,
            None => {
                let io = TokioIo::new(TcpStream::connect(self.to).await.expect("connected"));
                let (sender, connection) = conn::http2::handshake(TokioExecutor::new(), io).await?;
                self.running = AbortOnDrop::spawn(connection);
                sender
            }
        };
        let request = request(upload).uri(format!("http://{}{path}", self.host));
        let sent = within(sender.send_request(request.body(body(upload, heard)).expect("a request"))).await;
        self.open = Some(sender);
        sent
    }
}

fn request(upload: Upload) -> http::request::Builder {
    Request::builder().method(if upload == Upload::None { "GET" } else { "POST" })
}

/// The body of a request; `heard` turns true once the response has begun.
fn body(upload: Upload, heard: watch::Receiver<bool>) -> Body {
    let (pieces, waits) = match upload {
        Upload::None => return Empty::new().boxed_unsync(),
        Upload::Small => (1, false),
        Upload::Slow => (2, true),
        Upload::Large => (PIECES, false),
    };
    let pieces = stream::unfold((0, heard), move |(sent, mut heard)| async move {
        if sent == pieces {
            return None;
        }
        if waits && sent > 0 {
            // An error means that there will be no response.
            let _ = heard.wait_for(|heard| *heard).await;
        }
        Some((Ok(Frame::data(Bytes::from_static(&[b'u'; PIECE]))), (sent + 1, heard)))
    });
    StreamBody::new(pieces).boxed_unsync()
}

/// Reads a response to its end, or until it breaks off.
async fn read(response: Response<Incoming>) -> Answer {
    let (head, mut body) = response.into_parts();
    let reason = head.headers.get("x-maesh-reason").map_or("", |reason| reason.to_str().expect("text")).to_owned();
    let mut answer = Answer { status: head.status.as_u16(), reason, ..Answer::default() };
    loop {
        match within(body.frame()).await {
            Some(Ok(frame)) => {
                let data = frame.into_data().unwrap_or_default();
                answer.body.push_str(&String::from_utf8_lossy(&data));
            }
            Some(Err(_)) => return answer,
            None => {
                answer.is_whole = true;
                return answer;
            }
        }
    }
}
