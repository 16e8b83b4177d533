//! The body of a request, whatever protocol it comes by.

use std::{
    error::Error,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
};

use bytes::Bytes;
use http_body::{Frame, SizeHint};
use hyper::body::Incoming;

use super::h2::Received;
use crate::{
    http::{caller::Caller, exchange::Activity, headers},
    upstream::Upload,
};

/// The body that a caller sends.
pub(crate) struct RequestBody {
    source: RequestSource,
    activity: Arc<Activity>,
}

enum RequestSource {
    Empty,
    H1(Incoming, Arc<Caller>),
    /// Boxed, so that what holds connections to endpoints does not depend on what holds those of callers.
    H2(Box<dyn CallerStream>),
}

/// The body that a caller sends on a stream of HTTP/2.
pub(super) trait CallerStream: http_body::Body<Data = Bytes, Error = maesh_http2::Error> + Unpin + Send {
    /// See [`Upload::poll_gone`].
    fn poll_gone(&mut self, cx: &mut Context<'_>) -> Poll<()>;
}

impl RequestBody {
    /// No body.
    pub(super) fn empty(activity: Arc<Activity>) -> Self {
        Self::new(RequestSource::Empty, activity)
    }

    /// The body of a request of HTTP/1.1.
    pub(super) fn h1(body: Incoming, caller: &Arc<Caller>) -> Self {
        Self::new(RequestSource::H1(body, caller.clone()), caller.activity.clone())
    }

    /// The body of a request of HTTP/2.
    pub(super) fn h2(body: Received, activity: Arc<Activity>) -> Self {
        Self::new(RequestSource::H2(Box::new(body)), activity)
    }

    /// Takes it out, and leaves none.
    pub(crate) fn take(&mut self) -> Self {
        Self { source: std::mem::replace(&mut self.source, RequestSource::Empty), activity: self.activity.clone() }
    }

    /// Removes it: what the caller sends belongs to another protocol.
    pub(crate) fn clear(&mut self) {
        self.source = RequestSource::Empty;
    }

    fn new(source: RequestSource, activity: Arc<Activity>) -> Self {
        let body = Self { source, activity };
        body.activity.set_uploading(!http_body::Body::is_end_stream(&body));
        body
    }
}

impl http_body::Body for RequestBody {
    type Data = Bytes;
    type Error = Box<dyn Error + Send + Sync>;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Self::Error>>> {
        let frame = match &mut self.source {
            RequestSource::Empty => None,
            RequestSource::H1(body, _) => ready!(Pin::new(body).poll_frame(cx)).map(|frame| frame.map_err(Into::into)),
            RequestSource::H2(body) => ready!(Pin::new(body).poll_frame(cx)).map(|frame| frame.map_err(Into::into)),
        };
        self.activity.touch();
        if let Some(Ok(frame)) = &frame {
            self.activity.receive(frame.data_ref().map_or(0, Bytes::len));
        }
        let is_over = !matches!(frame, Some(Ok(_))) || http_body::Body::is_end_stream(&*self);
        self.activity.set_uploading(!is_over);
        Poll::Ready(frame.map(|frame| frame.map(clean)))
    }

    fn is_end_stream(&self) -> bool {
        match &self.source {
            RequestSource::Empty => true,
            RequestSource::H1(body, _) => http_body::Body::is_end_stream(body),
            RequestSource::H2(body) => body.is_end_stream(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match &self.source {
            RequestSource::Empty => SizeHint::with_exact(0),
            RequestSource::H1(body, _) => http_body::Body::size_hint(body),
            RequestSource::H2(body) => body.size_hint(),
        }
    }
}

impl Drop for RequestBody {
    fn drop(&mut self) {
        if !http_body::Body::is_end_stream(self) {
            self.activity.leave_unread();
        }
    }
}

impl Upload for RequestBody {
    fn poll_gone(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        match &mut self.source {
            RequestSource::Empty => Poll::Pending,
            RequestSource::H1(_, caller) => caller.poll_gone(cx),
            RequestSource::H2(body) => body.poll_gone(cx),
        }
    }
}

/// Removes from trailers what must not come from a caller. Endpoints may merge trailers into the fields of the head.
fn clean(frame: Frame<Bytes>) -> Frame<Bytes> {
    match frame.into_trailers() {
        Ok(mut trailers) => {
            headers::clean_trailers(&mut trailers);
            Frame::trailers(trailers)
        }
        Err(frame) => frame,
    }
}
