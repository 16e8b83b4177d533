//! Bodies, both ways, and what ends with them.

pub(crate) mod replay;
mod upload;

use std::{
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    time::Instant,
};

use bytes::Bytes;
use http::StatusCode;
use http_body::{Frame, SizeHint};

pub(crate) use self::{replay::Replay, upload::Upload};
use super::caller::Caller;
use crate::{
    reason::Reason,
    state::{Counts, InFlight, Port},
    telemetry::MethodLabel,
    upstream::{BodyError, ResponseBody},
};

/// The body of an answer, and the end of its request.
pub(crate) struct Body {
    source: ResponseBody,
    ending: Option<Ending>,
}

/// What is done once an answer has ended, or was given up.
pub(crate) struct Ending {
    pub(crate) caller: Arc<Caller>,
    /// What to count, where the Service is known.
    pub(crate) request: Option<Counted>,
}

/// One request, as it is counted.
pub(crate) struct Counted {
    pub(crate) port: Arc<Port>,
    pub(crate) method: MethodLabel,
    pub(crate) status: StatusCode,
    pub(crate) reason: Option<Reason>,
    pub(crate) began: Instant,
    /// When all of the answer was here, where it came at once.
    pub(crate) whole: Option<Instant>,
    pub(crate) in_flight: Option<InFlight>,
}

impl Drop for Ending {
    fn drop(&mut self) {
        self.caller.answer_ended();
        let Some(request) = self.request.take() else { return };
        if let Counts::Http(counts) = &request.port.counts {
            let took = request.whole.unwrap_or_else(Instant::now).saturating_duration_since(request.began);
            counts.record(self.caller.http2, request.method, request.status, request.reason, took);
        }
        drop(request.in_flight);
    }
}

impl Body {
    /// A body that an endpoint sends.
    pub(crate) fn of(source: ResponseBody) -> Self {
        Self { source, ending: None }
    }

    /// No body.
    pub(crate) fn empty() -> Self {
        Self::of(ResponseBody::empty())
    }

    /// A body of known bytes.
    pub(crate) fn full(bytes: Bytes) -> Self {
        Self::of(ResponseBody::full(bytes))
    }

    /// Ends `ending` with this body.
    pub(crate) fn ends(mut self, ending: Ending) -> Self {
        self.ending = Some(ending);
        self
    }
}

impl http_body::Body for Body {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        self.source.poll_frame(cx)
    }

    fn is_end_stream(&self) -> bool {
        self.source.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.source.size_hint()
    }
}
