//! An upload that can be read again from its beginning, while it is small and no response has begun.
//!
//! Nothing is read ahead: a piece is taken from the caller when an attempt wants it, and kept as well. Once more than
//! [`KEPT`] bytes have come, or a response has begun, nothing is kept any more and the upload can be read to its end once.

use std::{
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, Waker},
};

use bytes::Bytes;
use http::HeaderMap;
use http_body::{Body, Frame, SizeHint};
use parking_lot::Mutex;
use smallvec::SmallVec;

use crate::{
    buffers::CallerBytes,
    http::{charge::ConnectionCharge, server::RequestBody},
    upstream::Upload,
};

/// Bytes of an upload that are kept.
pub(crate) const KEPT: usize = 64 * 1024;

/// Pieces of an upload that are kept, so that tiny ones do not cost many times their size.
const PIECES: usize = 1024;

/// An upload that several attempts can read.
pub(crate) struct Replay<B = RequestBody>(Arc<Mutex<ReplaySource<B>>>);

/// One attempt's way through an upload, from its beginning.
pub(crate) struct ReplayReader<B = RequestBody> {
    source: Arc<Mutex<ReplaySource<B>>>,
    /// The piece that comes next.
    at: usize,
    /// The round of attempts that it belongs to; `None` for a follower.
    round: Option<u32>,
    /// Bytes that are still to come, where the caller said how many there are.
    left: Option<u64>,
}

struct ReplaySource<B> {
    body: B,
    /// How many bytes it has, where the caller said so.
    length: Option<u64>,
    /// The pieces from `first` on.
    kept: Vec<UploadPiece>,
    /// Counts them, where nobody else does.
    held: Option<ConnectionCharge>,
    /// Of the caller: where much is held for it, nothing more is kept.
    room: Option<Arc<CallerBytes>>,
    /// The round of attempts that is under way. Readers of the ones before get nothing more.
    round: u32,
    bytes: usize,
    /// Number of the first piece that is kept. Above 0, nothing can be read again.
    first: usize,
    /// Pieces are still being kept.
    keeping: bool,
    /// The caller's body ended: well, or not.
    ended: Option<Result<(), ()>>,
    /// Readers to wake when a piece comes: the body itself remembers only the last one that asked.
    waiting: SmallVec<[Waker; 1]>,
}

#[derive(Clone)]
enum UploadPiece {
    Data(Bytes),
    Trailers(HeaderMap),
}

/// Why an upload cannot be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum UploadError {
    /// The caller's body is malformed or ended early.
    #[error("the body of the request is malformed or ended early")]
    Broken,
    /// Its beginning is no longer kept.
    #[error("the beginning of the body is no longer kept")]
    Lost,
}

impl<B: Body<Data = Bytes> + Unpin> Replay<B> {
    /// An upload of which nothing was read. `held` counts what is kept; while `room` is tight, nothing more is.
    pub(crate) fn new(body: B, held: Option<ConnectionCharge>, room: Option<Arc<CallerBytes>>) -> Self {
        let length = body.size_hint().exact();
        Self(Arc::new(Mutex::new(ReplaySource {
            body,
            length,
            kept: Vec::new(),
            held,
            room,
            round: 0,
            bytes: 0,
            first: 0,
            keeping: true,
            ended: None,
            waiting: SmallVec::new(),
        })))
    }

    /// A reader at the beginning.
    pub(crate) fn reader(&self) -> ReplayReader<B> {
        let source = self.0.lock();
        ReplayReader { at: 0, left: source.length, round: Some(source.round), source: self.0.clone() }
    }

    /// A reader that takes nothing from the caller by itself: it follows what attempts have read, as far as that is kept.
    pub(crate) fn follower(&self) -> ReplayReader<B> {
        let source = self.0.lock();
        ReplayReader { at: 0, left: source.length, round: None, source: self.0.clone() }
    }

    /// Another attempt follows: readers of the ones before get nothing more, so that none takes from the caller what the next
    /// one needs.
    pub(crate) fn restart(&self) {
        let mut source = self.0.lock();
        source.round += 1;
        source.waiting.drain(..).for_each(Waker::wake);
    }

    /// It can still be read from its beginning.
    pub(crate) fn is_whole(&self) -> bool {
        let source = self.0.lock();
        source.first == 0 && source.ended != Some(Err(()))
    }

    /// A response has begun: nothing is kept any more. Readers that are behind go on with what was.
    pub(crate) fn release(&self) {
        let mut source = self.0.lock();
        source.keeping = false;
    }
}

impl<B: Body<Data = Bytes> + Unpin> ReplaySource<B> {
    fn poll_piece(
        &mut self,
        at: usize,
        round: Option<u32>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<UploadPiece, UploadError>>> {
        if round.is_some_and(|round| round != self.round) {
            return Poll::Ready(Some(Err(UploadError::Lost)));
        }
        let Some(behind) = at.checked_sub(self.first) else { return Poll::Ready(Some(Err(UploadError::Lost))) };
        if let Some(piece) = self.kept.get(behind) {
            return Poll::Ready(Some(Ok(piece.clone())));
        }
        match self.ended {
            Some(Ok(())) => return Poll::Ready(None),
            Some(Err(())) => return Poll::Ready(Some(Err(UploadError::Broken))),
            None => {}
        }
        let frame = if round.is_some() { Pin::new(&mut self.body).poll_frame(cx) } else { Poll::Pending };
        let Poll::Ready(frame) = frame else {
            if !self.waiting.iter().any(|waker| waker.will_wake(cx.waker())) {
                self.waiting.push(cx.waker().clone());
            }
            return Poll::Pending;
        };
        for waker in self.waiting.drain(..) {
            if !waker.will_wake(cx.waker()) {
                waker.wake();
            }
        }
        let piece = match frame {
            None => {
                self.ended = Some(Ok(()));
                return Poll::Ready(None);
            }
            Some(Err(_)) => {
                self.ended = Some(Err(()));
                return Poll::Ready(Some(Err(UploadError::Broken)));
            }
            Some(Ok(frame)) => match frame.into_data() {
                Ok(data) => UploadPiece::Data(data),
                Err(frame) => UploadPiece::Trailers(frame.into_trailers().unwrap_or_default()),
            },
        };
        self.keep(&piece);
        Poll::Ready(Some(Ok(piece)))
    }

    fn keep(&mut self, piece: &UploadPiece) {
        if let UploadPiece::Data(data) = piece {
            self.bytes += data.len();
        }
        let is_tight = self.room.as_ref().is_some_and(|room| room.is_tight());
        if self.keeping && self.bytes <= KEPT && self.kept.len() < PIECES && !is_tight {
            self.kept.push(piece.clone());
            if let Some(held) = &mut self.held {
                held.set(self.bytes);
            }
        } else {
            self.keeping = false;
            self.first += self.kept.len() + 1;
            self.kept = Vec::new();
            self.held = None;
        }
    }
}

impl<B: Body<Data = Bytes> + Unpin> Body for ReplayReader<B> {
    type Data = Bytes;
    type Error = UploadError;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, UploadError>>> {
        let this = &mut *self;
        let piece = std::task::ready!(this.source.lock().poll_piece(this.at, this.round, cx));
        Poll::Ready(piece.map(|piece| {
            let piece = piece?;
            this.at += 1;
            Ok(match piece {
                UploadPiece::Data(data) => {
                    this.left = this.left.map(|left| left.saturating_sub(data.len() as u64));
                    Frame::data(data)
                }
                UploadPiece::Trailers(trailers) => Frame::trailers(trailers),
            })
        }))
    }

    fn is_end_stream(&self) -> bool {
        self.left == Some(0)
    }

    fn size_hint(&self) -> SizeHint {
        self.left.map_or_else(SizeHint::default, SizeHint::with_exact)
    }
}

impl<B: Upload> Upload for ReplayReader<B> {
    fn poll_gone(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        match self.round {
            Some(_) => self.source.lock().body.poll_gone(cx),
            // Only one task is woken: that of the attempt.
            None => Poll::Pending,
        }
    }
}

impl<B> Drop for ReplayReader<B> {
    fn drop(&mut self) {
        // It may have been the one that the body would wake.
        for waker in self.source.lock().waiting.drain(..) {
            waker.wake();
        }
    }
}

#[cfg(test)]
mod tests;
