//! Time limits around one request: until its head, and while its body comes.

use std::{
    future::Future,
    io,
    pin::Pin,
    task::{Context, Poll},
    time::Duration,
};

use http::{Request, Response, Uri};
use http_body::{Body, Frame, SizeHint};
use tokio::time::{Instant, Sleep, sleep_until, timeout};
use tower::{BoxError, Service};

use super::Limits;

/// A service whose requests end.
pub(super) struct Bounded<S> {
    inner: S,
    limits: Limits,
}

impl<S> Bounded<S> {
    pub(super) fn new(inner: S, limits: Limits) -> Self {
        Self { inner, limits }
    }
}

type BoundedResponse<B> = Pin<Box<dyn Future<Output = Result<Response<BoundedBody<B>>, BoxError>> + Send>>;

impl<S, R, B> Service<Request<R>> for Bounded<S>
where
    S: Service<Request<R>, Response = Response<B>>,
    S::Future: Send + 'static,
    S::Error: Into<BoxError>,
    B: 'static,
{
    type Response = Response<BoundedBody<B>>;
    type Error = BoxError;
    type Future = BoundedResponse<B>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        self.inner.poll_ready(cx).map_err(Into::into)
    }

    fn call(&mut self, request: Request<R>) -> BoundedResponse<B> {
        let limits = self.limits;
        let watch = watch_length(request.uri());
        let answer = self.inner.call(request);
        Box::pin(async move {
            let answer = timeout(limits.answer, answer).await;
            let answer = answer.map_err(|_| silent("answer", limits.answer))?.map_err(Into::into)?;
            let bound = match watch {
                Some(length) => Bound { limit: length + limits.slack, renewed: false },
                None => Bound { limit: limits.silence, renewed: true },
            };
            Ok(answer.map(|body| BoundedBody::new(body, bound)))
        })
    }
}

/// For how long the server is to keep a watch open; `None` if the request is no watch.
fn watch_length(uri: &Uri) -> Option<Duration> {
    /// Of a watch that names no end. The server chooses one then, of at most an hour.
    const LONGEST: u64 = 3600;
    let parameter = |name: &str| {
        let pairs = uri.query()?.split('&').filter_map(|pair| pair.split_once('='));
        pairs.into_iter().find(|(key, _)| *key == name).map(|(_, value)| value)
    };
    matches!(parameter("watch"), Some("true" | "1")).then(|| {
        let seconds = parameter("timeoutSeconds").and_then(|seconds| seconds.parse().ok());
        Duration::from_secs(seconds.unwrap_or(LONGEST).min(LONGEST))
    })
}

fn silent(what: &str, limit: Duration) -> BoxError {
    io::Error::new(io::ErrorKind::TimedOut, format!("the API server sent no {what} within {limit:?}")).into()
}

/// When a body that does not end counts as dead.
struct Bound {
    limit: Duration,
    /// Each part that comes gives it as long again.
    renewed: bool,
}

/// A body that ends with an error once its time is over.
pub(super) struct BoundedBody<B> {
    inner: B,
    bound: Bound,
    end: Pin<Box<Sleep>>,
}

impl<B> BoundedBody<B> {
    fn new(inner: B, bound: Bound) -> Self {
        let end = Box::pin(sleep_until(Instant::now() + bound.limit));
        Self { inner, bound, end }
    }
}

impl<B> Body for BoundedBody<B>
where
    B: Body + Unpin,
    B::Error: Into<BoxError>,
{
    type Data = B::Data;
    type Error = BoxError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Self::Data>, Self::Error>>> {
        let this = &mut *self;
        if let Poll::Ready(frame) = Pin::new(&mut this.inner).poll_frame(cx) {
            if this.bound.renewed {
                this.end.as_mut().reset(Instant::now() + this.bound.limit);
            }
            return Poll::Ready(frame.map(|frame| frame.map_err(Into::into)));
        }
        if this.end.as_mut().poll(cx).is_ready() {
            let what = if this.bound.renewed { "further part of its answer" } else { "end of a watch" };
            return Poll::Ready(Some(Err(silent(what, this.bound.limit))));
        }
        Poll::Pending
    }

    fn is_end_stream(&self) -> bool {
        self.inner.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.inner.size_hint()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_watches_may_be_silent_for_as_long_as_they_asked() {
        for (query, want) in [
            ("", None),
            ("?limit=500", None),
            ("?watch=false&timeoutSeconds=60", None),
            ("?watch=true&timeoutSeconds=60", Some(60)),
            ("?labelSelector=a%3Db&watch=1&timeoutSeconds=290", Some(290)),
            ("?watch=true", Some(3600)),
            ("?watch=true&timeoutSeconds=much", Some(3600)),
        ] {
            let uri: Uri = format!("/api/v1/services{query}").parse().unwrap();
            assert_eq!(watch_length(&uri), want.map(Duration::from_secs), "{query}");
        }
    }
}
