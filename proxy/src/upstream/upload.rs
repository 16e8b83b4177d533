//! The body of a request, as this module sees it.

use std::{future::poll_fn, pin::Pin, time::Duration};

use bytes::Bytes;
use tokio::{task::AbortHandle, time::timeout};

/// How long the rest of an upload that the endpoint no longer takes is read from its caller, who may not read the
/// response before everything is sent; and how long its caller may be silent meanwhile.
const DISCARD: Duration = Duration::from_secs(30);
const DISCARD_SILENCE: Duration = Duration::from_secs(5);

/// The body of a request.
pub(crate) trait Upload:
    http_body::Body<Data = Bytes, Error: Into<Box<dyn std::error::Error + Send + Sync>>> + Unpin + Send + 'static
{
}

impl<B> Upload for B where
    B: http_body::Body<Data = Bytes, Error: Into<Box<dyn std::error::Error + Send + Sync>>> + Unpin + Send + 'static
{
}

/// An upload that goes on beside its response. It ends when this is dropped: whoever gives up a response before its end
/// has no caller any more, and an endpoint that does not read would not let the upload notice.
pub(super) struct RunningUpload(Option<AbortHandle>);

impl RunningUpload {
    /// Runs `upload` in a task of its own.
    pub(super) fn spawn(upload: impl Future<Output = ()> + Send + 'static) -> Self {
        Self(Some(tokio::spawn(upload).abort_handle()))
    }

    /// The response has come to its end: the upload goes on by itself.
    pub(super) fn detach(mut self) {
        self.0 = None;
    }
}

impl Drop for RunningUpload {
    fn drop(&mut self) {
        if let Some(upload) = self.0.take() {
            upload.abort();
        }
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
