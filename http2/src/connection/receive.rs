//! What each frame of the peer means. [`heads`] are those with a header block, [`control`] those without a stream's data.

mod control;
mod heads;

use super::{Connection, Leaving, Role};
use crate::{
    error::{Initiator, Reason, Violation},
    frame::{self, FrameHead, kind},
    parser::{DataPiece, Frame, Parser},
    stream::{Arrived, wake},
    streams::Key,
};

type Outcome = Result<(), Violation>;

impl Connection {
    /// Takes bytes of the peer.
    pub(crate) fn receive(&mut self, parser: &mut Parser, mut input: &[u8]) {
        while self.ended.is_none() {
            let outcome = match parser.next(&mut input) {
                Ok(Some(frame)) => self.frame(frame),
                Ok(None) => break,
                Err(reason) => Err(Violation::Connection(reason)),
            };
            if let Err(violation) = outcome {
                self.answer(violation);
            }
        }
        if self.output.len() > super::MOST_WAITING && self.is_blocked {
            self.output.clear();
            self.abort(Reason::ENHANCE_YOUR_CALM, Initiator::Protocol);
        }
    }

    fn frame(&mut self, frame: Frame<'_>) -> Outcome {
        let kind = match &frame {
            Frame::Data(_) => kind::DATA,
            Frame::Other(head, _) => head.kind,
        };
        // Nothing comes before the first SETTINGS, and nothing within a header block.
        let is_out_of_order =
            (!self.peer.are_known && kind != kind::SETTINGS) || (self.block.is_some() && kind != kind::CONTINUATION);
        if is_out_of_order {
            return Err(Violation::Connection(Reason::PROTOCOL_ERROR));
        }
        match frame {
            Frame::Data(piece) => self.data(&piece),
            Frame::Other(head, payload) => self.other(head, payload),
        }
    }

    fn other(&mut self, head: FrameHead, payload: &[u8]) -> Outcome {
        match head.kind {
            kind::HEADERS => self.headers(head, payload),
            kind::CONTINUATION => self.continuation(head, payload),
            kind::PRIORITY => control::priority(head, payload),
            kind::RST_STREAM => self.rst_stream(head, payload),
            kind::SETTINGS => self.settings(head, payload),
            kind::PING => self.ping(head, payload),
            kind::GOAWAY => self.goaway(head, payload),
            kind::WINDOW_UPDATE => self.window_update(head, payload),
            // DATA is here only where its padding has no length. Push was not allowed.
            kind::DATA => Err(Violation::Connection(Reason::FRAME_SIZE_ERROR)),
            kind::PUSH_PROMISE => Err(Violation::Connection(Reason::PROTOCOL_ERROR)),
            // Kinds that are not known are ignored (RFC 9113 section 4.1).
            _ => Ok(()),
        }
    }

    fn data(&mut self, piece: &DataPiece<'_>) -> Outcome {
        if piece.stream == 0 {
            return Err(Violation::Connection(Reason::PROTOCOL_ERROR));
        }
        if let Some(length) = piece.frame
            && !self.window.receive(length)
        {
            return Err(Violation::Connection(Reason::FLOW_CONTROL_ERROR));
        }
        let key = self.streams.find(piece.stream);
        let Some(stream) = key.and_then(|key| self.streams.get_mut(key)).filter(|stream| !stream.is_closed()) else {
            return self.data_of_none(piece);
        };
        if let Some(length) = piece.frame
            && !stream.window.receive(length)
        {
            self.release_connection(length);
            return Err(Violation::Stream(piece.stream, Reason::FLOW_CONTROL_ERROR));
        }
        let reason = match stream.arrived {
            // The response has not begun.
            Arrived::Nothing => Some(Reason::PROTOCOL_ERROR),
            Arrived::Head => None,
            Arrived::All => Some(Reason::STREAM_CLOSED),
        };
        if let Some(reason) = reason {
            return Err(Violation::Stream(piece.stream, reason));
        }
        self.take_data(key, piece)
    }

    /// Keeps the bytes of a stream that is open.
    fn take_data(&mut self, key: Option<Key>, piece: &DataPiece<'_>) -> Outcome {
        let Some(key) = key else { return Ok(()) };
        let Some(stream) = self.streams.get_mut(key) else { return Ok(()) };
        if let Some(left) = &mut stream.left {
            let Some(rest) = left.checked_sub(piece.bytes.len() as u64) else {
                return Err(Violation::Stream(piece.stream, Reason::PROTOCOL_ERROR));
            };
            *left = rest;
        }
        let is_read = stream.has_reader;
        if is_read {
            stream.data.extend_from_slice(piece.bytes);
        }
        if !piece.bytes.is_empty() || piece.ends_stream {
            wake(&mut stream.reader);
        }
        if piece.padding > 0 {
            self.release(key, piece.padding);
        }
        if !is_read {
            // Others must not wait for it. The stream itself gets no more.
            if let Some(stream) = self.streams.get_mut(key) {
                let _ = stream.window.release(piece.bytes.len());
            }
            self.release_connection(piece.bytes.len());
        }
        if piece.ends_stream { self.arrived_all(key) } else { Ok(()) }
    }

    /// Bytes for a stream that is not open: they count for the connection alone.
    fn data_of_none(&mut self, piece: &DataPiece<'_>) -> Outcome {
        let Some(length) = piece.frame else { return Ok(()) };
        if self.is_idle(piece.stream) {
            return Err(Violation::Connection(Reason::PROTOCOL_ERROR));
        }
        self.release_connection(length);
        if self.streams.was_reset(piece.stream) || self.is_above_leave(piece.stream) {
            return Ok(());
        }
        self.refuse_closed(piece.stream);
        Ok(())
    }

    /// Says that a stream is over, once. It is not counted among the errors: its sender may not have known, and it makes no more
    /// work than any other frame.
    fn refuse_closed(&mut self, id: u32) {
        frame::rst_stream(self.output.buffer(), id, Reason::STREAM_CLOSED);
        self.streams.remember_reset(id);
        self.wrote();
    }

    /// Everything that the peer sends on a stream is here.
    fn arrived_all(&mut self, key: Key) -> Outcome {
        let Some(stream) = self.streams.get_mut(key) else { return Ok(()) };
        if stream.left.is_some_and(|left| left > 0) {
            return Err(Violation::Stream(stream.id, Reason::PROTOCOL_ERROR));
        }
        stream.arrived = Arrived::All;
        wake(&mut stream.reader);
        self.settle(key);
        Ok(())
    }

    /// A stream that was never opened.
    fn is_idle(&self, id: u32) -> bool {
        let is_of_peer = (self.role == Role::Server) == (id % 2 == 1);
        if is_of_peer {
            id > self.last_peer && !self.is_above_leave(id)
        } else {
            id >= self.next_id || id.is_multiple_of(2)
        }
    }

    /// A stream that the peer opened after it was told to open none, and that is ignored.
    fn is_above_leave(&self, id: u32) -> bool {
        self.role == Role::Server && self.leaving == Leaving::Final && id > self.last_peer
    }
}
