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
    future::poll_fn,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU32, Ordering},
    },
    task::{Context, Poll, ready},
    time::Duration,
};

use bytes::Bytes;
use http::Version;
use http_body::Frame;
use maesh_http2::{Config, Error, Initiator, Reason, RecvStream, Sender, Session};
use tokio::{
    sync::{Notify, oneshot},
    time::timeout,
};

use self::{io::EndpointIo, upload::Uploading};
use super::{
    Answer, BodyError, Failure, OutboundRequest, ProtocolError, ResponseBody, ResponseLimits, ResponseRest, Tls,
    Upgraded, Upload, has_no_body, length::content_length, link::Link, tls::is_same, upload::RunningUpload,
};
use crate::{
    clock::Clock,
    http2::{Driver, DriverProgress, FrameBudget},
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

/// How long an endpoint may take to end a response that has no body.
const NO_BODY: Duration = Duration::from_secs(5);

/// A connection of HTTP/2 to an endpoint, shared by many requests.
pub(super) struct SharedConnection {
    sender: Sender,
    state: Arc<SharedState>,
    /// Whose certificate was verified; `None` without TLS.
    tls: Option<Arc<Tls>>,
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
    sender: Sender,
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
    /// Begins on a new connection, and waits for the endpoint's first SETTINGS.
    pub(super) async fn begin(link: Link, freed: Arc<Notify>, clock: &Clock) -> Result<Self, Error> {
        let tls = link.identity().cloned();
        let frames = Arc::new(FrameBudget::of_endpoint(clock.coarse()));
        let io = EndpointIo::new(link, frames.clone(), clock.clone());
        let (session, sender) = Session::client(Config {
            stream_window: STREAM_WINDOW,
            connection_window: CONNECTION_WINDOW,
            streams: 0,
            head: HEAD,
        });
        let state = Arc::new(SharedState {
            streams: AtomicU32::new(0),
            limit: AtomicU32::new(0),
            spent: AtomicBool::new(false),
            freed,
            frames,
        });
        let (told, is_told) = oneshot::channel();
        tokio::spawn(run(Driver::new(io, session), state.clone(), told));
        match is_told.await {
            Ok(Ok(())) => Ok(Self { sender, state, tls }),
            Ok(Err(error)) => Err(error),
            Err(_) => Err(Error::Closed),
        }
    }

    /// Whether it is as `tls` asks: verified for just this identity, or without TLS.
    pub(super) fn is_of(&self, tls: Option<&Arc<Tls>>) -> bool {
        is_same(self.tls.as_ref(), tls)
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
async fn run(mut connection: Driver<EndpointIo>, state: Arc<SharedState>, told: oneshot::Sender<Result<(), Error>>) {
    let mut told = Some(told);
    let ended = poll_fn(|cx| {
        loop {
            let progress = connection.poll(cx);
            if let Some(limit) = connection.session().allowed_streams() {
                let limit = limit.min(STREAMS);
                if state.limit.swap(limit, Ordering::Relaxed) != limit {
                    state.freed.notify_waiters();
                }
                if let Some(told) = told.take() {
                    // Nobody waits for it any more where connecting took too long.
                    let _ = told.send(Ok(()));
                }
            }
            match progress {
                Poll::Ready(DriverProgress::Received) => {}
                Poll::Ready(DriverProgress::Ended(ended)) => return Poll::Ready(ended),
                Poll::Pending => return Poll::Pending,
            }
        }
    })
    .await;
    state.spent.store(true, Ordering::Relaxed);
    state.freed.notify_waiters();
    if let Some(told) = told {
        let _ = told.send(Err(ended.err().unwrap_or(Error::Closed)));
    }
}

/// Sends a request and awaits the head of its response. What remains of the upload goes on by itself.
pub(super) async fn exchange<U: Upload>(
    stream: RequestStream,
    ask: &OutboundRequest<'_>,
    upload: Option<U>,
    limits: &ResponseLimits,
) -> Result<Answer, Failure> {
    let RequestStream { sender, guard, reused } = stream;
    if ask.upgrade && !sender.allows_extended_connect() {
        return Err(Failure::Protocol(ProtocolError::NoExtendedConnect));
    }
    let ends = upload.is_none() && !ask.upgrade;
    let (mut recv, send) = sender.request(ask.head, ask.added, ends).map_err(|error| unsent(error, &guard))?;
    drop(sender);
    guard.frames().request();
    let (mut uploading, idle) = match (upload, send) {
        (Some(upload), Some(send)) => (Some(Uploading::new(send, upload, guard.frames().clone())), None),
        (_, send) => (None, send),
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
        recv.poll_response(cx).map_err(|error| failure(error, &guard, reused))
    })
    .await;
    let mut parts = answered?;
    parts.version = Version::HTTP_11;
    limits.check(&parts.headers)?;
    let left = content_length(&mut parts.headers, parts.status)?;
    if let Some(mut send) = idle.filter(|_| ask.upgrade) {
        if parts.status.is_success() {
            return Ok(Answer {
                head: Box::new(parts),
                then: ResponseRest::Upgraded(Upgraded::of_stream(send, recv, guard)),
            });
        }
        // It fails only where the stream is over.
        let _ = send.end();
    }
    let upload = uploading.map(|uploading| {
        let guard = guard.clone();
        RunningUpload::spawn(|stuck| async move {
            uploading.finish(stuck).await;
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
    // Dropping the stream resets it, if the response has not ended.
    let data = poll_fn(|cx| body.recv.poll_data(cx));
    let _ = timeout(NO_BODY, data).await;
    drop(body);
}

/// Reads an error of a request of which nothing was sent.
fn unsent(error: Error, guard: &StreamGuard) -> Failure {
    if error == Error::TooManyStreams {
        return Failure::Refused(error);
    }
    guard.spend();
    Failure::Unsent
}

/// Reads an error of a request whose response has not begun.
fn failure(error: Error, guard: &StreamGuard, reused: bool) -> Failure {
    let refused = error == Error::Reset(Reason::REFUSED_STREAM, Initiator::Peer);
    // Streams above the last one of a GOAWAY fail with it; those below go on.
    let gone = error == Error::GoAway(Reason::NO_ERROR, Initiator::Peer);
    if !error.is_of_stream() || refused {
        guard.spend();
    }
    match error {
        Error::HeadTooLarge => Failure::Protocol(ProtocolError::HeadTooLarge),
        _ if refused || gone => Failure::Refused(error),
        // Ended by what the endpoint sent.
        Error::Reset(_, Initiator::Protocol) | Error::GoAway(_, Initiator::Protocol) => {
            Failure::Protocol(ProtocolError::Http2)
        }
        _ => Failure::Closed { source: Box::new(error), reused: reused && !error.is_of_stream() },
    }
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
            self.recv.release(std::mem::take(&mut self.unreleased));
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
        Poll::Ready(trailers.map(|trailers| Ok(Frame::trailers(trailers))))
    }

    /// See [`http_body::Body::is_end_stream`].
    pub(super) fn is_end_stream(&self) -> bool {
        self.recv.is_at_end()
    }
}
