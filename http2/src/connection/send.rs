//! What this side sends on its streams.

use std::task::{Context, Poll};

use bytes::Bytes;
use http::{HeaderMap, Method, StatusCode, request};

use super::{Connection, ROOM};
use crate::{
    error::{Error, Initiator, Reason},
    frame::{self, flag, kind},
    head::{MoreField, write_request, write_response, write_trailers},
    settings::MAX_WINDOW,
    stream::{Stream, remember},
    streams::Key,
};

impl Connection {
    /// Opens a stream with the head of a request.
    pub(crate) fn request(&mut self, head: &request::Parts, more: &[MoreField], ends: bool) -> Result<Key, Error> {
        if let Some(error) = self.refusal() {
            return Err(error);
        }
        if self.open >= self.peer.streams {
            return Err(Error::TooManyStreams);
        }
        if self.next_id > MAX_WINDOW {
            // The connection has used up all numbers (RFC 9113 section 5.1.1).
            return Err(Error::GoAway(Reason::NO_ERROR, Initiator::Program));
        }
        let id = self.next_id;
        self.next_id += 2;
        let (start, out) = begin_block(self.output.buffer());
        write_request(&mut self.encoder, head, more, out);
        frame::finish_block(out, start, id, ends);
        let mut stream = Stream::new(id, self.config.stream_window, self.peer.stream_window);
        stream.ignores_length = matches!(head.method, Method::HEAD | Method::CONNECT);
        stream.sent_all = ends;
        stream.has_writer = !ends;
        let key = self.streams.insert(stream);
        self.open += 1;
        self.wrote();
        Ok(key)
    }

    /// Sends the head of a response.
    pub(crate) fn respond(
        &mut self,
        key: Key,
        status: StatusCode,
        fields: &HeaderMap,
        ends: bool,
    ) -> Result<(), Error> {
        let stream = self.open_stream(key)?;
        let id = stream.id;
        stream.sent_all = ends;
        let (start, out) = begin_block(self.output.buffer());
        write_response(&mut self.encoder, status, fields, out);
        frame::finish_block(out, start, id, ends);
        self.wrote();
        self.settle(key);
        Ok(())
    }

    /// Sends trailers, which end the stream.
    pub(crate) fn trailers(&mut self, key: Key, fields: &HeaderMap) -> Result<(), Error> {
        let stream = self.open_stream(key)?;
        let id = stream.id;
        stream.sent_all = true;
        let (start, out) = begin_block(self.output.buffer());
        write_trailers(&mut self.encoder, fields, out);
        frame::finish_block(out, start, id, true);
        self.wrote();
        self.settle(key);
        Ok(())
    }

    /// Sends as much of `data` as there is room for, and takes it out; the end of the stream with the last of it, if it
    /// `ends`. Returns how many bytes were taken. Not ready while there is no room.
    pub(crate) fn poll_send(
        &mut self,
        key: Key,
        cx: &Context<'_>,
        data: &mut Bytes,
        ends: bool,
    ) -> Poll<Result<usize, Error>> {
        if data.is_empty() && !ends {
            return Poll::Ready(Ok(0));
        }
        let length = match self.poll_room(key, cx, data.len()) {
            Poll::Ready(Ok(length)) => length,
            other => return other,
        };
        let piece = data.split_to(length);
        let ends = ends && data.is_empty();
        self.data_head(key, length, ends);
        self.output.payload(piece);
        if ends {
            // Only now: it may raise a window, which is a frame of its own.
            self.settle(key);
        }
        Poll::Ready(Ok(length))
    }

    /// Sends as much of `bytes` as there is room for, and says how much that is. Not ready while there is no room.
    pub(crate) fn poll_write(&mut self, key: Key, cx: &Context<'_>, bytes: &[u8]) -> Poll<Result<usize, Error>> {
        let length = match self.poll_room(key, cx, bytes.len()) {
            Poll::Ready(Ok(length)) if length > 0 => length,
            other => return other,
        };
        self.data_head(key, length, false);
        self.output.buffer().extend_from_slice(&bytes[..length]);
        Poll::Ready(Ok(length))
    }

    /// Writes what precedes `length` bytes of data, and counts these. Nothing else may be written before the bytes are.
    fn data_head(&mut self, key: Key, length: usize, ends: bool) {
        let Some(stream) = self.streams.get_mut(key) else { return };
        stream.send_window -= length as i64;
        self.send_window -= length as i64;
        stream.sent_all = ends;
        let flags = if ends { flag::END_STREAM } else { 0 };
        self.output.buffer().extend_from_slice(&frame::head(length, kind::DATA, flags, stream.id));
        self.wrote();
    }

    /// Ends a stream.
    pub(crate) fn end_stream(&mut self, key: Key) -> Result<(), Error> {
        let stream = self.open_stream(key)?;
        stream.sent_all = true;
        let head = frame::head(0, kind::DATA, flag::END_STREAM, stream.id);
        self.output.buffer().extend_from_slice(&head);
        self.wrote();
        self.settle(key);
        Ok(())
    }

    /// How many of `wanted` bytes one frame may take now. What takes no room is never waited for.
    fn poll_room(&mut self, key: Key, cx: &Context<'_>, wanted: usize) -> Poll<Result<usize, Error>> {
        let room = ROOM.saturating_sub(self.output.len()).min(frame::PAYLOAD);
        let room = room.min(usize::try_from(self.send_window).unwrap_or(0));
        let others_wait = !self.waiting.is_empty();
        let stream = match self.open_stream(key) {
            Ok(stream) => stream,
            Err(error) => return Poll::Ready(Err(error)),
        };
        if wanted == 0 {
            return Poll::Ready(Ok(0));
        }
        let window = usize::try_from(stream.send_window).unwrap_or(0);
        if window == 0 {
            let pending = remember(&mut stream.writer, cx);
            let had_place = stream.is_waiting;
            self.stop_waiting(key);
            if had_place && others_wait {
                // Its turn is another one's.
                self.wake_driver();
            }
            return pending;
        }
        if room == 0 || (others_wait && !stream.has_turn) {
            let pending = remember(&mut stream.writer, cx);
            if !std::mem::replace(&mut stream.is_waiting, true) {
                self.waiting.push_back(key);
            }
            return pending;
        }
        self.stop_waiting(key);
        Poll::Ready(Ok(room.min(window).min(wanted)))
    }

    /// Takes a stream out of those that wait for room.
    fn stop_waiting(&mut self, key: Key) {
        let Some(stream) = self.streams.get_mut(key) else { return };
        stream.has_turn = false;
        if std::mem::take(&mut stream.is_waiting)
            && let Some(at) = self.waiting.iter().position(|waiting| *waiting == key)
        {
            self.waiting.remove(at);
        }
    }

    /// A stream on which more can be sent.
    fn open_stream(&mut self, key: Key) -> Result<&mut Stream, Error> {
        let stream = self.streams.get_mut(key).ok_or(Error::Closed)?;
        match stream.failed {
            Some(error) => Err(error),
            None if stream.sent_all => Err(Error::Closed),
            None => Ok(stream),
        }
    }
}

/// Leaves room for what precedes a header block.
fn begin_block(out: &mut Vec<u8>) -> (usize, &mut Vec<u8>) {
    let start = out.len();
    out.extend_from_slice(&[0; frame::HEAD]);
    (start, out)
}
