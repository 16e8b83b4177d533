//! Frames with a header block: requests, responses, trailers.

use super::{
    super::{Connection, OpenBlock, Role, STREAM_ERRORS},
    Outcome,
    control::dependency,
};
use crate::{
    error::{Error, Initiator, Reason, Violation},
    frame::{self, FrameHead, PAYLOAD, flag},
    head::{Block, content_length, write_response},
    stream::{Arrived, Head, Stream, wake},
    streams::Key,
};

/// Frames of one header block, beyond those that its size needs (CVE-2024-27316).
const SPARE_FRAMES: usize = 8;

/// Interim responses before a final one; more are an error, or a peer could hold a request for ever.
const INTERIM: u8 = 32;

impl Connection {
    pub(super) fn headers(&mut self, head: FrameHead, payload: &[u8]) -> Outcome {
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

    pub(super) fn continuation(&mut self, head: FrameHead, payload: &[u8]) -> Outcome {
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
            if !is_known {
                return Err(Violation::Connection(Reason::PROTOCOL_ERROR));
            }
            if !self.streams.was_reset(id) {
                self.refuse_closed(id);
            }
            return Ok(());
        }
        if id <= self.last_peer {
            return match self.streams.was_reset(id) {
                true => Ok(()),
                false => Err(Violation::Connection(Reason::STREAM_CLOSED)),
            };
        }
        self.take_request(id, block, ends_stream)
    }

    /// A new request of the peer.
    fn take_request(&mut self, id: u32, block: Block, ends_stream: bool) -> Outcome {
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
        // What follows an extended CONNECT is no body.
        stream.left = if head.method == http::Method::CONNECT { None } else { length };
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
        let (id, arrived) = (stream.id, stream.arrived);
        match stream.failed {
            None => {}
            // Whoever has reset a stream knows that it is over (RFC 9113 section 5.1).
            Some(Error::Reset(_, Initiator::Peer)) if !self.streams.was_reset(id) => {
                self.refuse_closed(id);
                return Ok(());
            }
            Some(_) => return Ok(()),
        }
        match arrived {
            Arrived::Nothing => self.take_response(key, id, block, ends_stream),
            Arrived::Head => self.take_trailers(key, id, block, ends_stream),
            Arrived::All => Err(Violation::Stream(id, Reason::STREAM_CLOSED)),
        }
    }

    fn take_response(&mut self, key: Key, id: u32, block: Block, ends_stream: bool) -> Outcome {
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
            let Some(stream) = self.streams.get_mut(key).filter(|_| !is_wrong) else { return Err(malformed) };
            stream.interim += 1;
            return if stream.interim > INTERIM { Err(malformed) } else { Ok(()) };
        }
        let length = length.map_err(|_| malformed)?;
        let Some(stream) = self.streams.get_mut(key) else { return Ok(()) };
        let says_nothing = stream.ignores_length || head.status == http::StatusCode::NOT_MODIFIED;
        stream.left = if says_nothing { None } else { length };
        stream.head = stream.has_reader.then_some(Head::Response(head));
        stream.arrived = Arrived::Head;
        wake(&mut stream.reader);
        if ends_stream { self.arrived_all(key) } else { Ok(()) }
    }

    fn take_trailers(&mut self, key: Key, id: u32, block: Block, ends_stream: bool) -> Outcome {
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
}
