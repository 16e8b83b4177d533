//! The body of a request, as this module sees it.

use std::{
    future::{Future, poll_fn},
    pin::Pin,
    task::{Context, Poll},
    time::Duration,
};

use bytes::Bytes;
use tokio::{
    sync::oneshot,
    task::AbortHandle,
    time::{Instant, Sleep, sleep, timeout},
};

/// How long the rest of an upload that the endpoint no longer takes is read from its caller, who may not read the
/// response before everything is sent; and how long its caller may be silent meanwhile.
const DISCARD: Duration = Duration::from_secs(30);
const DISCARD_SILENCE: Duration = Duration::from_secs(5);

/// How long nothing of an upload may move once its response has come to its end.
const STUCK: Duration = Duration::from_secs(60);

/// The body of a request.
pub(crate) trait Upload:
    http_body::Body<Data = Bytes, Error: Into<Box<dyn std::error::Error + Send + Sync>>> + Unpin + Send + 'static
{
    /// Ready once its caller is gone and what is missing of it can no longer come, also while nobody reads it.
    fn poll_gone(&mut self, cx: &mut Context<'_>) -> Poll<()>;
}

/// An upload that goes on beside its response. It ends when this is dropped: whoever gives up a response before its end
/// has no caller any more, and an endpoint that does not read would not let the upload notice.
pub(super) struct RunningUpload(Option<Running>);

struct Running {
    task: AbortHandle,
    responded: oneshot::Sender<()>,
}

impl RunningUpload {
    /// Runs `upload` in a task of its own.
    pub(super) fn spawn<F>(upload: impl FnOnce(StuckTimer) -> F) -> Self
    where
        F: Future<Output = ()> + Send + 'static,
    {
        let (responded, has_responded) = oneshot::channel();
        let task = tokio::spawn(upload(StuckTimer { has_responded, moved: 0, timer: None })).abort_handle();
        Self(Some(Running { task, responded }))
    }

    /// The response has come to its end: the upload goes on by itself, for as long as it moves.
    pub(super) fn detach(mut self) {
        if let Some(running) = self.0.take() {
            // It fails where the upload is over.
            let _ = running.responded.send(());
        }
    }
}

impl Drop for RunningUpload {
    fn drop(&mut self) {
        if let Some(running) = self.0.take() {
            running.task.abort();
        }
    }
}

/// Tells when an upload whose response has come to its end has not moved for too long. While there is a response, its
/// caller and the limit for silence see to that.
pub(super) struct StuckTimer {
    has_responded: oneshot::Receiver<()>,
    /// Bytes that had been sent when the timer was set.
    moved: u64,
    timer: Option<Pin<Box<Sleep>>>,
}

impl StuckTimer {
    /// Ready when nothing has moved for [`STUCK`]. `sent`: bytes of the upload that were sent until now.
    pub(super) fn poll(&mut self, cx: &mut Context<'_>, sent: u64) -> Poll<()> {
        if self.timer.is_none() {
            // The other side is dropped only together with the upload.
            if Pin::new(&mut self.has_responded).poll(cx).is_pending() {
                return Poll::Pending;
            }
            self.moved = sent;
        }
        let timer = self.timer.get_or_insert_with(|| Box::pin(sleep(STUCK)));
        if std::mem::replace(&mut self.moved, sent) != sent {
            timer.as_mut().reset(Instant::now() + STUCK);
        }
        timer.as_mut().poll(cx)
    }
}

/// Reads the rest of an upload and drops it, within bounds.
pub(super) async fn discard<U: Upload>(mut upload: U) {
    let rest = async {
        let mut next = async || poll_fn(|cx| Pin::new(&mut upload).poll_frame(cx)).await;
        while let Ok(Some(Ok(_))) = timeout(DISCARD_SILENCE, next()).await {}
    };
    // Out of time: the caller hears of it when its connection closes.
    let _ = timeout(DISCARD, rest).await;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn an_upload_is_stuck_once_nothing_has_moved_after_its_response() {
        let (responded, has_responded) = oneshot::channel();
        let mut timer = StuckTimer { has_responded, moved: 0, timer: None };
        let mut is_stuck = async |sent, seconds| {
            timeout(Duration::from_secs(seconds), poll_fn(|cx| timer.poll(cx, sent))).await.is_ok()
        };
        assert!(!is_stuck(10, 600).await, "while there is a response");
        responded.send(()).expect("heard");
        assert!(!is_stuck(10, 59).await);
        assert!(!is_stuck(11, 59).await, "a byte has moved");
        assert!(is_stuck(11, 2).await);
    }
}
