//! Bodies, both ways, and what ends with them.

use std::{
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicU8, Ordering},
    },
    task::{Context, Poll, Waker},
};

use bytes::Bytes;
use http_body::{Frame, SizeHint};
use hyper::body::Incoming;

use super::{
    server::RequestBody,
    upstream::{H1, H2Stream, Home},
};

/// The body of a response.
pub(crate) struct Body {
    /// Read before the source.
    first: Bytes,
    source: Source,
}

enum Source {
    Empty,
    Full(Bytes),
    /// From a connection that runs by itself.
    Stream(Incoming, Option<H2Stream>),
    /// From a connection that runs only while its answer is read.
    Driven(Incoming, Option<(Box<H1>, Home)>),
}

impl Body {
    fn of(source: Source) -> Self {
        Self { first: Bytes::new(), source }
    }

    /// No body.
    pub(crate) fn empty() -> Self {
        Self::of(Source::Empty)
    }

    /// A body of known bytes.
    pub(crate) fn full(bytes: Bytes) -> Self {
        let source = if bytes.is_empty() { Source::Empty } else { Source::Full(bytes) };
        Self::of(source)
    }

    /// A body from a connection that runs by itself.
    pub(crate) fn stream(body: Incoming) -> Self {
        Self::of(Source::Stream(body, None))
    }

    /// A body from a connection that this body drives; it goes home once it is read to its end.
    pub(crate) fn driven(body: Incoming, connection: Box<H1>, home: Home) -> Self {
        Self::of(Source::Driven(body, Some((connection, home))))
    }

    /// This body after `first`, which was read already.
    pub(crate) fn after(mut self, first: Bytes) -> Self {
        self.first = first;
        self
    }

    /// This body on a stream of a shared connection.
    pub(crate) fn on(mut self, stream: H2Stream) -> Self {
        if let Source::Stream(_, place) = &mut self.source {
            *place = Some(stream);
        }
        self
    }
}

impl http_body::Body for Body {
    type Data = Bytes;
    type Error = hyper::Error;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, hyper::Error>>> {
        if !self.first.is_empty() {
            return Poll::Ready(Some(Ok(Frame::data(std::mem::take(&mut self.first)))));
        }
        match &mut self.source {
            Source::Empty => Poll::Ready(None),
            Source::Full(bytes) => {
                let bytes = std::mem::take(bytes);
                self.source = Source::Empty;
                Poll::Ready(Some(Ok(Frame::data(bytes))))
            }
            Source::Stream(body, _) => Pin::new(body).poll_frame(cx),
            Source::Driven(body, connection) => {
                let Some((driven, _)) = connection else { return Pin::new(body).poll_frame(cx) };
                driven.drive(cx);
                // Whatever makes the body ready happens in the line above, so it need not wake anybody.
                let frame = Pin::new(&mut *body).poll_frame(&mut Context::from_waker(Waker::noop()));
                if matches!(frame, Poll::Ready(None)) || body.is_end_stream() {
                    if let Some((mut driven, home)) = connection.take() {
                        driven.drive(cx);
                        home.take_back(driven);
                    }
                } else if matches!(frame, Poll::Pending) && driven.is_closed() {
                    // It will not be driven again; what it has to say is in the body already.
                    return Pin::new(body).poll_frame(cx);
                }
                frame
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        match &self.source {
            Source::Empty => true,
            Source::Full(_) => false,
            Source::Stream(body, _) | Source::Driven(body, _) => self.first.is_empty() && body.is_end_stream(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match &self.source {
            Source::Empty => SizeHint::with_exact(0),
            Source::Full(bytes) => SizeHint::with_exact(bytes.len() as u64),
            Source::Stream(body, _) | Source::Driven(body, _) => {
                let (hint, first) = (body.size_hint(), self.first.len() as u64);
                if first == 0 {
                    return hint;
                }
                let mut whole = SizeHint::new();
                whole.set_lower(hint.lower() + first);
                if let Some(upper) = hint.upper() {
                    whole.set_upper(upper + first);
                }
                whole
            }
        }
    }
}

/// The body of a request on its way to an endpoint.
pub(crate) struct Upload {
    source: Option<RequestBody>,
    progress: Option<Progress>,
}

/// How far an upload is, for those who no longer hold it.
#[derive(Clone)]
pub(crate) struct Progress(Arc<AtomicU8>);

const RUNNING: u8 = 0;
const DONE: u8 = 1;
const FAILED: u8 = 2;

impl Progress {
    /// All of it was handed on, or there was nothing.
    pub(crate) fn is_done(&self) -> bool {
        self.0.load(Ordering::Relaxed) == DONE
    }

    /// The caller's bytes were not a valid body, or ended early.
    pub(crate) fn has_failed(&self) -> bool {
        self.0.load(Ordering::Relaxed) == FAILED
    }
}

impl Upload {
    /// No body.
    pub(crate) fn empty() -> Self {
        Self { source: None, progress: None }
    }

    /// The body that a caller sends.
    pub(crate) fn new(body: RequestBody) -> Self {
        if http_body::Body::is_end_stream(&body) {
            return Self::empty();
        }
        Self { source: Some(body), progress: Some(Progress(Arc::new(AtomicU8::new(RUNNING)))) }
    }

    /// How far it is; `None` when there is nothing to send.
    pub(crate) fn progress(&self) -> Option<Progress> {
        self.progress.clone()
    }

    fn note(&self, state: u8) {
        if let Some(progress) = &self.progress {
            progress.0.store(state, Ordering::Relaxed);
        }
    }
}

impl http_body::Body for Upload {
    type Data = Bytes;
    type Error = <RequestBody as http_body::Body>::Error;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Self::Error>>> {
        let Some(body) = &mut self.source else { return Poll::Ready(None) };
        let frame = Pin::new(&mut *body).poll_frame(cx);
        match &frame {
            Poll::Ready(Some(Ok(_))) if body.is_end_stream() => self.note(DONE),
            Poll::Ready(None) => self.note(DONE),
            Poll::Ready(Some(Err(_))) => self.note(FAILED),
            Poll::Ready(Some(Ok(_))) | Poll::Pending => {}
        }
        frame
    }

    fn is_end_stream(&self) -> bool {
        self.source.as_ref().is_none_or(http_body::Body::is_end_stream)
    }

    fn size_hint(&self) -> SizeHint {
        self.source.as_ref().map_or_else(|| SizeHint::with_exact(0), http_body::Body::size_hint)
    }
}
