//! The body of a response, which drives its connection.

use std::{
    collections::VecDeque,
    task::{Context, Poll, ready},
};

use bytes::Bytes;
use http_body::{Frame, SizeHint};

use super::{chunked::DecodedPiece, connection::PooledConnection, decoder::BodyDecoder, head::ResponseFraming};
use crate::upstream::{BodyError, ProtocolError, pool::PoolSlot, upload::RunningUpload};

/// Bytes read at once, at first and at most. So much of a body is held, whoever does not read it.
const READ_FIRST: usize = 16 * 1024;
const READ_MOST: usize = 64 * 1024;

/// What is left of the request while its response is read.
pub(super) enum Rest {
    /// Nothing: it was written to its end.
    Done,
    /// Whatever becomes of it, the connection is not used again.
    Lost,
    /// The same, and a part of it is still being sent.
    Running(RunningUpload),
}

impl Rest {
    /// The response was read to its end: gives the connection back to its pool, if it can carry another request.
    pub(super) fn release(self, mut connection: Box<PooledConnection>, slot: &PoolSlot) {
        match self {
            Self::Done if connection.park() => slot.put(connection),
            Self::Done | Self::Lost => {}
            Self::Running(upload) => upload.detach(),
        }
    }
}

/// The body of a response that is still arriving.
pub(crate) struct H1Body {
    /// The connection, until all is read.
    open: Option<(Box<PooledConnection>, Rest)>,
    decoder: BodyDecoder,
    /// Pieces that arrived together with the head.
    decoded: VecDeque<DecodedPiece>,
    slot: PoolSlot,
    read: usize,
}

impl H1Body {
    pub(super) fn new(connection: Box<PooledConnection>, framing: ResponseFraming, slot: PoolSlot, rest: Rest) -> Self {
        let (open, decoder) = (Some((connection, rest)), BodyDecoder::new(framing));
        Self { open, decoder, decoded: VecDeque::new(), slot, read: READ_FIRST }
    }

    /// Decodes the chunks that arrived together with the head, so that a malformed one is found while the caller can
    /// still be given another response.
    pub(super) fn decode_received(&mut self) -> Result<(), ProtocolError> {
        if !matches!(self.decoder, BodyDecoder::Chunked(_)) {
            return Ok(());
        }
        while let Some((connection, _)) = &mut self.open {
            match self.decoder.next(&mut connection.buffer) {
                Ok(DecodedPiece::More) => break,
                Ok(DecodedPiece::End) => self.finish(),
                Ok(piece) => {
                    self.decoded.push_back(piece);
                    if self.decoder.is_done() {
                        self.finish();
                    }
                }
                Err(error) => {
                    connection.socket.close();
                    return Err(error);
                }
            }
        }
        Ok(())
    }

    /// See [`http_body::Body::poll_frame`].
    pub(crate) fn poll_frame(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        let outcome = ready!(self.poll_piece(cx));
        let frame = match outcome {
            Ok(DecodedPiece::Data(data)) => Some(Ok(Frame::data(data))),
            Ok(DecodedPiece::Trailers(trailers)) => Some(Ok(Frame::trailers(trailers))),
            Ok(DecodedPiece::End | DecodedPiece::More) => None,
            Err(error) => {
                // Nothing on it can be trusted any more.
                if let Some((connection, _)) = self.open.take() {
                    connection.socket.close();
                }
                Some(Err(error))
            }
        };
        if self.is_end_stream() || frame.is_none() {
            self.finish();
        }
        Poll::Ready(frame)
    }

    fn poll_piece(&mut self, cx: &mut Context<'_>) -> Poll<Result<DecodedPiece, BodyError>> {
        if let Some(piece) = self.decoded.pop_front() {
            return Poll::Ready(Ok(piece));
        }
        let Some((connection, rest)) = &mut self.open else { return Poll::Ready(Ok(DecodedPiece::End)) };
        loop {
            match self.decoder.next(&mut connection.buffer).map_err(BodyError::Protocol)? {
                DecodedPiece::More => {}
                piece => return Poll::Ready(Ok(piece)),
            }
            let room = connection.buffer.capacity() - connection.buffer.len();
            if room < READ_FIRST / 4 {
                connection.buffer.reserve(self.read);
            }
            let room = connection.buffer.capacity() - connection.buffer.len();
            let Poll::Ready(read) = connection.socket.poll_read_into(cx, &mut connection.buffer) else {
                // What was put aside of the request may have got stuck. An error shows when reading. An upload that is still
                // running sees to it by itself, and a socket wakes only the one that asked last whether it takes more.
                if !matches!(rest, Rest::Running(_)) {
                    let _ = connection.socket.poll_flushed(cx);
                }
                return Poll::Pending;
            };
            match read.map_err(BodyError::Io)? {
                0 if self.decoder.ends_by_closing() => return Poll::Ready(Ok(DecodedPiece::End)),
                0 => return Poll::Ready(Err(BodyError::Truncated)),
                read if read >= room => self.read = (self.read * 2).min(READ_MOST),
                _ => {}
            }
        }
    }

    /// Bytes that were read and not asked for yet.
    pub(crate) fn buffered(&self) -> usize {
        self.open.as_ref().map_or(0, |(connection, _)| connection.buffer.len())
    }

    /// Gives the connection back once all is read.
    fn finish(&mut self) {
        if let Some((connection, rest)) = self.open.take() {
            rest.release(connection, &self.slot);
        }
    }

    /// See [`http_body::Body::is_end_stream`].
    pub(crate) fn is_end_stream(&self) -> bool {
        self.decoded.is_empty() && (self.decoder.is_done() || self.open.is_none())
    }

    /// See [`http_body::Body::size_hint`].
    pub(crate) fn size_hint(&self) -> SizeHint {
        self.decoder.left().map_or_else(SizeHint::default, SizeHint::with_exact)
    }
}
