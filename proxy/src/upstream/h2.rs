//! HTTP/2 to an endpoint.
//!
//! One connection carries many requests and runs in a task of its own. The endpoint says how many in its first SETTINGS
//! frame. A connection counts as made only once that has arrived, so that no request is sent to a server that does not
//! speak HTTP/2.
//!
//! No PING is ever sent: stock gRPC servers end connections that ping more often than every five minutes, and dead nodes are
//! found by TCP keepalive. A connection whose endpoint sends too many frames that do no work is closed.

mod io;
mod upload;

use std::{
    future::{Future as _, poll_fn},
    net::SocketAddr,
    pin::{Pin, pin},
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU32, Ordering},
    },
    task::{Context, Poll, ready},
    time::Duration,
};

use bytes::Bytes;
use h2::{RecvStream, SendStream, client};
use http::{Request, Version};
use http_body::Frame;
use hyper_util::rt::TokioIo;
use tokio::{
    net::TcpStream,
    sync::{Notify, oneshot},
    time::{Instant, timeout, timeout_at},
};

use self::{io::EndpointIo, upload::Uploading};
use super::{
    Answer, BodyError, Failure, OutboundRequest, ProtocolError, ResponseBody, ResponseLimits, ResponseRest, Upgraded,
    Upload, has_no_body, length::content_length, upload::RunningUpload,
};
use crate::{
    clock::Clock,
    connect::{self, ConnectError, Connector},
    fields,
    http2::FrameBudget,
    socket::Socket,
};

/// Requests on one connection at once, where the endpoint allows as many.
const STREAMS: u32 = 64;

/// Bytes of one response that an endpoint may send before its caller has read some.
const STREAM_WINDOW: u32 = 64 * 1024;

/// The same for a whole connection: as much as all its streams together, so that callers that do not read take nothing
/// from those that do.
const CONNECTION_WINDOW: u32 = STREAM_WINDOW * STREAMS;

/// Bytes of a response's head, as HPACK counts them, that are let in at all.
const HEAD: u32 = 256 * 1024;

/// Bytes of uploads that one stream may have waiting in the connection.
const SEND_BUFFER: usize = 64 * 1024;

/// How long an endpoint may take to end a response that has no body.
const NO_BODY: Duration = Duration::from_secs(5);

/// Stands for a limit that the endpoint has not told yet.
const UNTOLD: usize = usize::MAX - 1;

/// A connection of HTTP/2 to an endpoint, shared by many requests.
pub(super) struct SharedConnection {
    sender: client::SendRequest<Bytes>,
    state: Arc<SharedState>,
}

struct SharedState {
    /// Requests on it now.
    streams: AtomicU32,
    /// How many there may be.
    limit: AtomicU32,
    /// It takes no more requests, though those that run may end well.
    spent: AtomicBool,
    /// Told when there may be room for another request.
    freed: Arc<Notify>,
    /// Frames that do no work and may still come.
    frames: Arc<FrameBudget>,
}

/// One request on a shared connection.
pub(super) struct RequestStream {
    sender: client::SendRequest<Bytes>,
    guard: StreamGuard,
    /// The connection has carried a request before.
    reused: bool,
}

/// Holds a request's place on its connection until the last copy is dropped.
#[derive(Clone)]
pub(super) struct StreamGuard(Arc<StreamCount>);

struct StreamCount(Arc<SharedState>);

impl Drop for StreamCount {
    fn drop(&mut self) {
        self.0.streams.fetch_sub(1, Ordering::Relaxed);
        self.0.freed.notify_one();
    }
}

impl SharedConnection {
    /// Connects, and waits for the endpoint's first SETTINGS; at the latest until `within` has passed.
    pub(super) async fn open(
        connector: &Connector,
        to: SocketAddr,
        within: Duration,
        freed: Arc<Notify>,
        clock: &Clock,
    ) -> Result<Self, ConnectError> {
        let deadline = Instant::now() + within;
        let stream = connector.connect(to, within).await?;
        match timeout_at(deadline, Self::begin(stream, freed, clock)).await {
            Ok(Ok(connection)) => Ok(connection),
            Ok(Err(error)) => Err(ConnectError::handshake(to, &error)),
            Err(_) => Err(ConnectError::TimedOut { to, within }),
        }
    }

    async fn begin(stream: TcpStream, freed: Arc<Notify>, clock: &Clock) -> Result<Self, h2::Error> {
        connect::limit_unacknowledged(&stream);
        let frames = Arc::new(FrameBudget::of_endpoint(clock.coarse()));
        let io = TokioIo::new(EndpointIo::new(Socket::new(stream), frames.clone(), clock.clone()));
        let (sender, connection) = client::Builder::new()
            .initial_window_size(STREAM_WINDOW)
            .initial_connection_window_size(CONNECTION_WINDOW)
            .max_header_list_size(HEAD)
            .max_send_buffer_size(SEND_BUFFER)
            .initial_max_send_streams(UNTOLD)
            .enable_push(false)
            .handshake(io)
            .await?;
        let state = Arc::new(SharedState {
            streams: AtomicU32::new(0),
            limit: AtomicU32::new(0),
            spent: AtomicBool::new(false),
            freed,
            frames,
        });
        let (told, is_told) = oneshot::channel();
        tokio::spawn(run(connection, state.clone(), told));
        match is_told.await {
            Ok(Ok(())) => Ok(Self { sender, state }),
            Ok(Err(error)) => Err(error),
            Err(_) => Err(h2::Reason::INTERNAL_ERROR.into()),
        }
    }

    /// Requests on it now.
    pub(super) fn streams(&self) -> u32 {
        self.state.streams.load(Ordering::Relaxed)
    }

    /// It takes no more requests, now or later.
    pub(super) fn is_spent(&self) -> bool {
        self.state.spent.load(Ordering::Relaxed)
    }

    /// It has room for another request.
    pub(super) fn has_room(&self) -> bool {
        self.streams() < self.state.limit.load(Ordering::Relaxed)
    }

    /// The endpoint allows no requests on it for now.
    pub(super) fn is_shut(&self) -> bool {
        self.state.limit.load(Ordering::Relaxed) == 0
    }

    /// Takes a place for one request.
    pub(super) fn stream(&self, reused: bool) -> RequestStream {
        self.state.streams.fetch_add(1, Ordering::Relaxed);
        let guard = StreamGuard(Arc::new(StreamCount(self.state.clone())));
        RequestStream { sender: self.sender.clone(), guard, reused }
    }
}

/// Runs a connection until it ends. `told` hears once the endpoint's limits are known, or why they never will be.
async fn run(
    connection: client::Connection<TokioIo<EndpointIo>, Bytes>,
    state: Arc<SharedState>,
    told: oneshot::Sender<Result<(), h2::Error>>,
) {
    let mut connection = pin!(connection);
    let mut told = Some(told);
    let ended = poll_fn(|cx| {
        let ended = connection.as_mut().poll(cx);
        let limit = connection.max_concurrent_send_streams();
        if limit != UNTOLD {
            let limit = u32::try_from(limit).unwrap_or(u32::MAX).min(STREAMS);
            if state.limit.swap(limit, Ordering::Relaxed) != limit {
                state.freed.notify_waiters();
            }
            if let Some(told) = told.take() {
                // Nobody waits for it any more where connecting took too long.
                let _ = told.send(Ok(()));
            }
        }
        ended
    })
    .await;
    state.spent.store(true, Ordering::Relaxed);
    state.freed.notify_waiters();
    if let Some(told) = told {
        let error = ended.err().unwrap_or_else(|| h2::Reason::PROTOCOL_ERROR.into());
        let _ = told.send(Err(error));
    }
}

/// Sends a request and awaits the head of its response. What remains of the upload goes on by itself.
pub(super) async fn exchange<U: Upload>(
    stream: RequestStream,
    ask: &OutboundRequest<'_>,
    upload: Option<U>,
    limits: &ResponseLimits,
) -> Result<Answer, Failure> {
    let RequestStream { mut sender, guard, reused } = stream;
    let ends = upload.is_none() && !ask.upgrade;
    let (mut response, send) = sender.send_request(request(ask), ends).map_err(|error| unsent(error, &guard))?;
    drop(sender);
    guard.frames().request();
    let mut idle = None;
    let mut uploading = match upload {
        Some(upload) => Some(Uploading::new(send, upload, guard.frames().clone())),
        None => {
            idle = Some(send);
            None
        }
    };
    let answered = poll_fn(|cx| {
        if let Some(running) = &mut uploading
            && let Poll::Ready(sent) = running.poll(cx)
        {
            match sent {
                Ok(()) => uploading = None,
                Err(()) => return Poll::Ready(Err(Failure::Upload)),
            }
        }
        Pin::new(&mut response).poll(cx).map_err(|error| failure(error, &guard, reused))
    })
    .await;
    let (mut parts, recv) = answered?.into_parts();
    parts.version = Version::HTTP_11;
    limits.check(&parts.headers)?;
    fields::trim(&mut parts.headers);
    let left = content_length(&mut parts.headers, parts.status)?;
    if let Some(mut send) = idle.filter(|_| ask.upgrade) {
        if parts.status.is_success() {
            return Ok(Answer {
                head: Box::new(parts),
                then: ResponseRest::Upgraded(Upgraded::of_stream(send, recv, guard)),
            });
        }
        // It fails only where the stream is over.
        let _ = send.send_data(Bytes::new(), true);
    }
    let upload = uploading.map(|uploading| {
        let guard = guard.clone();
        RunningUpload::spawn(async move {
            uploading.finish().await;
            drop(guard);
        })
    });
    let mut body = H2Body { recv, unreleased: 0, left, data_ended: false, upload, _guard: guard };
    body.note_end();
    let body = if body.is_end_stream() {
        ResponseBody::empty()
    } else if has_no_body(parts.status, &ask.head.method) {
        tokio::spawn(await_end(body));
        ResponseBody::empty()
    } else {
        ResponseBody::h2(body)
    };
    Ok(Answer { head: Box::new(parts), then: ResponseRest::Body(body) })
}

/// Waits for the end of a response that has no body. An endpoint that sends one all the same, or is too slow to end,
/// gets a reset of the stream.
async fn await_end(mut body: H2Body) {
    if let Some(upload) = body.upload.take() {
        upload.detach();
    }
    let data = async { while let Some(Ok(b"")) = body.recv.data().await.as_ref().map(|data| data.as_deref()) {} };
    // Dropping the stream resets it, if the response has not ended.
    let _ = timeout(NO_BODY, data).await;
    drop(body);
}

/// The request as the `h2` crate takes it.
fn request(ask: &OutboundRequest<'_>) -> Request<()> {
    let mut request = Request::new(());
    *request.method_mut() = ask.head.method.clone();
    *request.uri_mut() = ask.head.uri.clone();
    *request.version_mut() = Version::HTTP_2;
    *request.headers_mut() = ask.head.headers.clone();
    if let Some(protocol) = ask.head.extensions.get::<hyper::ext::Protocol>() {
        request.extensions_mut().insert(h2::ext::Protocol::from(protocol.as_str()));
    }
    request
}

/// Reads an error of a request that was not even queued.
fn unsent(error: h2::Error, guard: &StreamGuard) -> Failure {
    guard.spend();
    if error.is_go_away() || error.is_io() || error.is_reset() {
        Failure::Unsent
    } else {
        Failure::Protocol(ProtocolError::Http2)
    }
}

/// Reads an error of a request whose response has not begun.
fn failure(error: h2::Error, guard: &StreamGuard, reused: bool) -> Failure {
    use h2::Reason;
    let of_stream = error.is_reset();
    let refused = of_stream && error.reason() == Some(Reason::REFUSED_STREAM);
    // Streams above the last one of a GOAWAY fail with it; those below go on.
    let gone = error.is_go_away() && error.is_remote() && error.reason() == Some(Reason::NO_ERROR);
    if refused && error.is_library() {
        // The endpoint did not refuse it: its head is larger than the limit.
        return Failure::Protocol(ProtocolError::HeadTooLarge);
    }
    if !of_stream || refused {
        guard.spend();
    }
    if refused || gone {
        return Failure::Refused(error);
    }
    // The last one is for a head in more frames than are let in.
    let broken = [
        Reason::PROTOCOL_ERROR,
        Reason::FRAME_SIZE_ERROR,
        Reason::COMPRESSION_ERROR,
        Reason::FLOW_CONTROL_ERROR,
        Reason::ENHANCE_YOUR_CALM,
    ];
    if !error.is_remote() && error.reason().is_some_and(|reason| broken.contains(&reason)) {
        return Failure::Protocol(ProtocolError::Http2);
    }
    Failure::Closed { source: Box::new(error), reused: reused && !of_stream }
}

impl StreamGuard {
    /// Frames that do no work and may still come on its connection.
    pub(super) fn frames(&self) -> &Arc<FrameBudget> {
        &self.0.0.frames
    }

    /// No other request is to be put on the connection.
    fn spend(&self) {
        self.0.0.spent.store(true, Ordering::Relaxed);
    }
}

/// The body of a response.
pub(super) struct H2Body {
    recv: RecvStream,
    /// Bytes given to the caller for which the endpoint was not yet allowed to send more.
    unreleased: usize,
    /// Bytes that are still to come, where the endpoint says how many there are: some readers ask for no more.
    left: Option<u64>,
    data_ended: bool,
    /// What of the upload is still being sent, until the response has come to its end.
    upload: Option<RunningUpload>,
    _guard: StreamGuard,
}

impl H2Body {
    /// Lets the upload go on by itself if all of the response is here.
    fn note_end(&mut self) {
        if (self.left == Some(0) || self.is_end_stream())
            && let Some(upload) = self.upload.take()
        {
            upload.detach();
        }
    }

    /// See [`http_body::Body::poll_frame`].
    pub(super) fn poll_frame(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        if self.unreleased > 0 {
            // The caller has room for more: only now may the endpoint send it. It fails only where the stream is over.
            let _ = self.recv.flow_control().release_capacity(std::mem::take(&mut self.unreleased));
        }
        if !self.data_ended {
            match ready!(self.recv.poll_data(cx)) {
                Some(Ok(data)) => {
                    self.unreleased = data.len();
                    self.left = self.left.map(|left| left.saturating_sub(data.len() as u64));
                    self.note_end();
                    return Poll::Ready(Some(Ok(Frame::data(data))));
                }
                Some(Err(error)) => return Poll::Ready(Some(Err(BodyError::Http2(error)))),
                None => self.data_ended = true,
            }
        }
        let trailers = ready!(self.recv.poll_trailers(cx)).map_err(BodyError::Http2)?;
        self.note_end();
        Poll::Ready(trailers.map(|mut trailers| {
            fields::trim(&mut trailers);
            Ok(Frame::trailers(trailers))
        }))
    }

    /// See [`http_body::Body::is_end_stream`].
    pub(super) fn is_end_stream(&self) -> bool {
        self.recv.is_end_stream()
    }
}

/// Waits for room to send some of `wanted` bytes; `None` when the endpoint takes no more.
pub(super) fn reserve(send: &mut SendStream<Bytes>, wanted: usize, cx: &mut Context<'_>) -> Poll<Option<usize>> {
    send.reserve_capacity(wanted);
    loop {
        let room = send.capacity().min(wanted);
        if room > 0 {
            return Poll::Ready(Some(room));
        }
        match ready!(send.poll_capacity(cx)) {
            Some(Ok(_)) => {}
            Some(Err(_)) | None => return Poll::Ready(None),
        }
    }
}
