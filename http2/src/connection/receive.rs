//! What each frame of the peer means.

use super::{Connection, LAST_PING, Leaving, OpenBlock, RESET_UNSEEN, Role, STREAM_ERRORS};
use crate::{
    error::{Error, Initiator, Reason, Violation},
    frame::{self, FrameHead, PAYLOAD, flag, kind},
    head::{Block, content_length, write_response},
    parser::{DataPiece, Frame, Parser},
    settings::MAX_WINDOW,
    stream::{Arrived, Head, Stream, wake},
    streams::Key,
};

/// Frames of one header block, beyond those that its size needs (CVE-2024-27316).
const SPARE_FRAMES: usize = 8;

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
        let is_out_of_order = (!self.peer.are_known && kind != kind::SETTINGS)
            || (self.block.is_some() && kind != kind::CONTINUATION);
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
            kind::PRIORITY => priority(head, payload),
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
        Err(Violation::Stream(piece.stream, Reason::STREAM_CLOSED))
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

    fn headers(&mut self, head: FrameHead, payload: &[u8]) -> Outcome {
        if head.stream == 0 {
            return Err(Violation::Connection(Reason::PROTOCOL_ERROR));
        }
        let mut block = payload;
        if head.has(flag::PADDED) {
            let (pad, rest) = block.split_first().ok_or(Violation::Connection(Reason::FRAME_SIZE_ERROR))?;
            let length = rest.len().checked_sub(usize::from(*pad));
            block = &rest[..length.ok_or(Violation::Connection(Reason::PROTOCOL_ERROR))?];
        }
        let mut depends_on_itself = false;
        if head.has(flag::PRIORITY) {
            let (priority, rest) =
                block.split_first_chunk::<5>().ok_or(Violation::Connection(Reason::FRAME_SIZE_ERROR))?;
            depends_on_itself = dependency(priority) == head.stream;
            block = rest;
        }
        let ends_stream = head.has(flag::END_STREAM);
        if !head.has(flag::END_HEADERS) {
            self.block = Some(OpenBlock { stream: head.stream, ends_stream, bytes: block.to_vec(), frames: 1 });
            return Ok(());
        }
        let outcome = self.block(head.stream, ends_stream, block);
        match depends_on_itself {
            true => outcome.and(Err(Violation::Stream(head.stream, Reason::PROTOCOL_ERROR))),
            false => outcome,
        }
    }

    fn continuation(&mut self, head: FrameHead, payload: &[u8]) -> Outcome {
        let most = self.most_block();
        let Some(block) = self.block.as_mut().filter(|block| block.stream == head.stream) else {
            return Err(Violation::Connection(Reason::PROTOCOL_ERROR));
        };
        block.frames += 1;
        if block.bytes.len() + payload.len() > most || block.frames > most / PAYLOAD + SPARE_FRAMES {
            return Err(Violation::Connection(Reason::ENHANCE_YOUR_CALM));
        }
        block.bytes.extend_from_slice(payload);
        if !head.has(flag::END_HEADERS) {
            return Ok(());
        }
        match self.block.take() {
            Some(block) => self.block(block.stream, block.ends_stream, &block.bytes),
            None => Ok(()),
        }
    }

    /// Bytes of a header block that are let in before it is decoded.
    fn most_block(&self) -> usize {
        usize::try_from(self.config.head).unwrap_or(usize::MAX).saturating_add(PAYLOAD)
    }

    /// A header block is complete. It is decoded in any case: later ones depend on it.
    fn block(&mut self, id: u32, ends_stream: bool, bytes: &[u8]) -> Outcome {
        let most = usize::try_from(self.config.head).unwrap_or(usize::MAX);
        let block = Block::read(&mut self.decoder, bytes, most)
            .map_err(|_| Violation::Connection(Reason::COMPRESSION_ERROR))?;
        if let Some(key) = self.streams.find(id) {
            return self.next_block(key, block, ends_stream);
        }
        let is_of_client = id % 2 == 1;
        if self.role == Role::Client || !is_of_client {
            // A stream of this side that is over, or none that there could be.
            let is_known = is_of_client && !self.is_idle(id);
            return match is_known && self.streams.was_reset(id) {
                true => Ok(()),
                false if is_known => Err(Violation::Stream(id, Reason::STREAM_CLOSED)),
                false => Err(Violation::Connection(Reason::PROTOCOL_ERROR)),
            };
        }
        if id <= self.last_peer {
            return match self.streams.was_reset(id) {
                true => Ok(()),
                false => Err(Violation::Connection(Reason::STREAM_CLOSED)),
            };
        }
        self.request(id, block, ends_stream)
    }

    /// A new request of the peer.
    fn request(&mut self, id: u32, block: Block, ends_stream: bool) -> Outcome {
        if self.is_above_leave(id) {
            return Ok(());
        }
        self.last_peer = id;
        if self.open >= self.config.streams {
            self.stream_errors += 1;
            frame::rst_stream(self.output.buffer(), id, Reason::REFUSED_STREAM);
            self.streams.remember_reset(id);
            return match self.stream_errors > STREAM_ERRORS {
                true => Err(Violation::Connection(Reason::ENHANCE_YOUR_CALM)),
                false => Ok(()),
            };
        }
        if block.is_too_large {
            return self.refuse_large(id, ends_stream);
        }
        let malformed = Violation::Stream(id, Reason::PROTOCOL_ERROR);
        let length = content_length(&block.fields).map_err(|_| malformed)?;
        let head = block.into_request().map_err(|_| malformed)?;
        if ends_stream && length.is_some_and(|length| length > 0) {
            return Err(malformed);
        }
        let mut stream = Stream::new(id, self.config.stream_window, self.peer.stream_window);
        stream.arrived = if ends_stream { Arrived::All } else { Arrived::Head };
        stream.left = length;
        stream.head = Some(Head::Request(head));
        let key = self.streams.insert(stream);
        self.open += 1;
        self.accept.push_back(key);
        Ok(())
    }

    /// Answers a head that is too large to be looked at (RFC 6585 section 5).
    fn refuse_large(&mut self, id: u32, ends_stream: bool) -> Outcome {
        let out = self.output.buffer();
        let start = out.len();
        out.extend_from_slice(&[0; frame::HEAD]);
        let status = http::StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE;
        write_response(&mut self.encoder, status, &http::HeaderMap::new(), out);
        frame::finish_block(out, start, id, true);
        if !ends_stream {
            frame::rst_stream(out, id, Reason::NO_ERROR);
            self.streams.remember_reset(id);
        }
        Ok(())
    }

    /// Another header block of a stream: the head of a response, or trailers.
    fn next_block(&mut self, key: Key, block: Block, ends_stream: bool) -> Outcome {
        let Some(stream) = self.streams.get(key) else { return Ok(()) };
        if stream.failed.is_some() {
            return Ok(());
        }
        let (id, arrived) = (stream.id, stream.arrived);
        match arrived {
            Arrived::Nothing => self.response(key, id, block, ends_stream),
            Arrived::Head => self.trailers(key, id, block, ends_stream),
            Arrived::All => Err(Violation::Stream(id, Reason::STREAM_CLOSED)),
        }
    }

    fn response(&mut self, key: Key, id: u32, block: Block, ends_stream: bool) -> Outcome {
        if block.is_too_large {
            self.reset(key, Reason::CANCEL, Error::HeadTooLarge);
            return Ok(());
        }
        let malformed = Violation::Stream(id, Reason::PROTOCOL_ERROR);
        let length = content_length(&block.fields);
        let head = block.into_response().map_err(|_| malformed)?;
        if head.status.is_informational() {
            // Interim responses are not passed on. 101 does not exist here (RFC 9113 section 8.6).
            let is_wrong = ends_stream || head.status == http::StatusCode::SWITCHING_PROTOCOLS;
            return if is_wrong { Err(malformed) } else { Ok(()) };
        }
        let length = length.map_err(|_| malformed)?;
        let Some(stream) = self.streams.get_mut(key) else { return Ok(()) };
        let has_no_body = stream.answers_head || head.status == http::StatusCode::NOT_MODIFIED;
        stream.left = if has_no_body { None } else { length };
        stream.head = stream.has_reader.then_some(Head::Response(head));
        stream.arrived = Arrived::Head;
        wake(&mut stream.reader);
        if ends_stream { self.arrived_all(key) } else { Ok(()) }
    }

    fn trailers(&mut self, key: Key, id: u32, block: Block, ends_stream: bool) -> Outcome {
        let malformed = Violation::Stream(id, Reason::PROTOCOL_ERROR);
        let fields = block.into_trailers().map_err(|_| malformed)?;
        if !ends_stream {
            return Err(malformed);
        }
        if let Some(stream) = self.streams.get_mut(key)
            && stream.has_reader
        {
            stream.trailers = Some(fields);
        }
        self.arrived_all(key)
    }

    fn rst_stream(&mut self, head: FrameHead, payload: &[u8]) -> Outcome {
        let Ok(code) = <[u8; 4]>::try_from(payload) else {
            return Err(Violation::Connection(Reason::FRAME_SIZE_ERROR));
        };
        if head.stream == 0 || self.is_idle(head.stream) {
            return Err(Violation::Connection(Reason::PROTOCOL_ERROR));
        }
        let Some(key) = self.streams.find(head.stream) else { return Ok(()) };
        let Some(stream) = self.streams.get_mut(key) else { return Ok(()) };
        let is_unseen = matches!(stream.head, Some(Head::Request(_)));
        stream.fail(Error::Reset(Reason::from_code(u32::from_be_bytes(code)), Initiator::Peer));
        if is_unseen {
            // Nobody was told of it, so nobody will drop it.
            (stream.has_reader, stream.has_writer) = (false, false);
            self.reset_unseen += 1;
        }
        self.settle(key);
        match self.reset_unseen > RESET_UNSEEN {
            true => Err(Violation::Connection(Reason::ENHANCE_YOUR_CALM)),
            false => Ok(()),
        }
    }

    fn settings(&mut self, head: FrameHead, payload: &[u8]) -> Outcome {
        if head.stream != 0 {
            return Err(Violation::Connection(Reason::PROTOCOL_ERROR));
        }
        if head.has(flag::ACK) {
            let is_right = payload.is_empty() && self.peer.are_known;
            let reason = if payload.is_empty() { Reason::PROTOCOL_ERROR } else { Reason::FRAME_SIZE_ERROR };
            return if is_right { Ok(()) } else { Err(Violation::Connection(reason)) };
        }
        let before = self.peer.stream_window;
        self.peer.apply(payload, self.role == Role::Client).map_err(Violation::Connection)?;
        self.encoder.set_max_size(self.peer.table);
        let change = i64::from(self.peer.stream_window) - i64::from(before);
        if change != 0 {
            for stream in self.streams.iter_mut() {
                stream.send_window += change;
                if stream.send_window > i64::from(MAX_WINDOW) {
                    return Err(Violation::Connection(Reason::FLOW_CONTROL_ERROR));
                }
                wake(&mut stream.writer);
            }
        }
        frame::settings_ack(self.output.buffer());
        Ok(())
    }

    fn ping(&mut self, head: FrameHead, payload: &[u8]) -> Outcome {
        let Ok(payload) = <[u8; 8]>::try_from(payload) else {
            return Err(Violation::Connection(Reason::FRAME_SIZE_ERROR));
        };
        if head.stream != 0 {
            return Err(Violation::Connection(Reason::PROTOCOL_ERROR));
        }
        if !head.has(flag::ACK) {
            frame::ping(self.output.buffer(), flag::ACK, payload);
        } else if payload == LAST_PING && self.leaving == Leaving::Announced {
            self.leaving = Leaving::Final;
            frame::goaway(self.output.buffer(), self.last_peer, Reason::NO_ERROR);
        }
        Ok(())
    }

    fn goaway(&mut self, head: FrameHead, payload: &[u8]) -> Outcome {
        if head.stream != 0 {
            return Err(Violation::Connection(Reason::PROTOCOL_ERROR));
        }
        let (Some(last), Some(code)) = (payload.first_chunk::<4>(), payload.get(4..8)) else {
            return Err(Violation::Connection(Reason::FRAME_SIZE_ERROR));
        };
        let last = u32::from_be_bytes(*last) & 0x7fff_ffff;
        let reason = Reason::from_code(code.iter().fold(0, |code, byte| code << 8 | u32::from(*byte)));
        let error = Error::GoAway(reason, Initiator::Peer);
        self.peer_left = Some(error);
        if self.role == Role::Client {
            for key in self.streams.keys() {
                let Some(stream) = self.streams.get_mut(key).filter(|stream| stream.id > last) else { continue };
                if !stream.is_closed() {
                    stream.fail(error);
                }
                self.settle(key);
            }
        }
        Ok(())
    }

    fn window_update(&mut self, head: FrameHead, payload: &[u8]) -> Outcome {
        let Ok(increment) = <[u8; 4]>::try_from(payload) else {
            return Err(Violation::Connection(Reason::FRAME_SIZE_ERROR));
        };
        let increment = i64::from(u32::from_be_bytes(increment) & 0x7fff_ffff);
        if head.stream == 0 {
            self.send_window += increment;
            return match (increment, self.send_window > i64::from(MAX_WINDOW)) {
                (0, _) => Err(Violation::Connection(Reason::PROTOCOL_ERROR)),
                (_, true) => Err(Violation::Connection(Reason::FLOW_CONTROL_ERROR)),
                _ => Ok(()),
            };
        }
        if self.is_idle(head.stream) {
            return Err(Violation::Connection(Reason::PROTOCOL_ERROR));
        }
        let key = self.streams.find(head.stream);
        let Some(stream) = key.and_then(|key| self.streams.get_mut(key)) else { return Ok(()) };
        if stream.is_closed() {
            return Ok(());
        }
        stream.send_window += increment;
        wake(&mut stream.writer);
        match (increment, stream.send_window > i64::from(MAX_WINDOW)) {
            (0, _) => Err(Violation::Stream(head.stream, Reason::PROTOCOL_ERROR)),
            (_, true) => Err(Violation::Stream(head.stream, Reason::FLOW_CONTROL_ERROR)),
            _ => Ok(()),
        }
    }

    /// A stream that was never opened.
    fn is_idle(&self, id: u32) -> bool {
        let is_of_peer = (self.role == Role::Server) == (id % 2 == 1);
        if is_of_peer { id > self.last_peer && !self.is_above_leave(id) } else { id >= self.next_id || id % 2 == 0 }
    }

    /// A stream that the peer opened after it was told to open none, and that is ignored.
    fn is_above_leave(&self, id: u32) -> bool {
        self.role == Role::Server && self.leaving == Leaving::Final && id > self.last_peer
    }
}

/// Priorities have no effect (RFC 9113 section 5.3); the frame has to be well-formed all the same.
fn priority(head: FrameHead, payload: &[u8]) -> Outcome {
    if head.stream == 0 {
        return Err(Violation::Connection(Reason::PROTOCOL_ERROR));
    }
    let Ok(priority) = <&[u8; 5]>::try_from(payload) else {
        return Err(Violation::Stream(head.stream, Reason::FRAME_SIZE_ERROR));
    };
    match dependency(priority) == head.stream {
        true => Err(Violation::Stream(head.stream, Reason::PROTOCOL_ERROR)),
        false => Ok(()),
    }
}

fn dependency(priority: &[u8; 5]) -> u32 {
    let [a, b, c, d, _] = *priority;
    u32::from_be_bytes([a, b, c, d]) & 0x7fff_ffff
}
