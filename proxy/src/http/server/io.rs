//! The bytes of a caller's HTTP connection.
//!
//! [`CallerIo`] is between the socket and the parser:
//! - It first returns the bytes that were read to recognise the protocol.
//! - It refuses bytes that hyper would read in another way than other programs ([`RequestTracker`]).
//! - It notes when a head, or a frame or header block of HTTP/2, begins and ends, and counts frames that do no work.
//! - It counts the bytes that the parser holds.
//! - It keeps the beginning of a head of HTTP/1.1. hyper itself answers a head that it cannot parse; that answer is
//!   replaced by one with a reason.
//! - It knows whether the caller has ended its side, and whether everything was written.

use std::{
    io,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
};

use bytes::{Buf, Bytes};
use hyper::rt::{Read, ReadBufCursor, Write};
use tokio::net::TcpStream;

use super::h1::RequestTracker;
use crate::{
    http::{
        answer,
        caller::{Caller, Flushed, Stage},
        charge::{self, ConnectionCharge},
    },
    http2::{FrameBounds, Progress},
    reason::Reason,
    socket::{DisconnectWatch, Socket},
};

/// Bytes of a head that are kept to explain why it was refused: a target one byte too long, and some more.
const KEPT: usize = 17 * 1024;

/// The stream of a caller's HTTP connection.
pub(crate) struct CallerIo {
    stream: Socket,
    /// What was read before, or is held back.
    first: Bytes,
    framing: RequestTracker,
    frames: FrameBounds,
    caller: Arc<Caller>,
    remembered: bool,
    /// The caller has ended its side.
    at_end: bool,
    /// The socket did not take what was last offered.
    has_refused: bool,
    head: Vec<u8>,
    /// Bytes of the head that is arriving.
    head_len: usize,
    /// What the parser holds: a head, the piece of an upload that was read last, or an incomplete frame.
    held: Option<Box<ConnectionCharge>>,
    final_response: Option<Bytes>,
}

impl CallerIo {
    /// A stream of which `first` was already read.
    pub(crate) fn new(stream: TcpStream, first: Bytes, caller: Arc<Caller>) -> Self {
        let stream = Socket::new(stream);
        caller.set_socket(&stream);
        Self {
            stream,
            first,
            framing: RequestTracker::new(),
            frames: FrameBounds::of_caller(),
            caller,
            remembered: false,
            at_end: false,
            has_refused: false,
            head: Vec::new(),
            head_len: 0,
            held: None,
            final_response: None,
        }
    }

    /// To be told when the connection breaks, whether or not anybody reads from it.
    pub(crate) fn broken(&self) -> DisconnectWatch {
        self.stream.broken()
    }

    /// The caller has ended its side.
    pub(super) fn is_at_end(&self) -> bool {
        self.at_end
    }

    /// The socket did not take all bytes that were to be written.
    pub(super) fn has_unsent(&self) -> bool {
        self.has_refused
    }

    /// Gives back what an idle connection does not need.
    pub(super) fn release_buffers(&mut self) {
        self.head = Vec::new();
        // An empty rest still holds on to all that it is the rest of.
        self.first = Bytes::copy_from_slice(&self.first);
        self.held = None;
        self.stream.release_buffer();
    }

    /// Ready once the caller has sent something, or has gone.
    pub(super) fn poll_arrived(&self, cx: &mut Context<'_>) -> Poll<()> {
        if self.first.is_empty() { self.stream.poll_arrived(cx) } else { Poll::Ready(()) }
    }

    /// The socket alone.
    pub(crate) fn socket(&self) -> Socket {
        self.stream.clone()
    }

    /// Looks at `bytes` of HTTP/1.1 before they are let in; returns how many of them are.
    fn look(framing: &mut RequestTracker, head: &mut Vec<u8>, caller: &Caller, bytes: &[u8]) -> usize {
        let passed = framing.pass(bytes);
        caller.set_partial_head(framing.is_within_head());
        caller.set_uploading(framing.unfinished(), framing.left());
        if framing.is_refused() {
            caller.set_malformed(framing.malformed());
        }
        match caller.stage() {
            Stage::Idle if passed > 0 => {
                head.clear();
                caller.head_began();
            }
            Stage::Head => {}
            _ => return passed,
        }
        let room = KEPT.saturating_sub(head.len());
        head.extend_from_slice(&bytes[..passed.min(room)]);
        passed
    }

    /// Follows `bytes` of HTTP/2.
    fn follow(frames: &mut FrameBounds, caller: &Caller, bytes: &[u8]) {
        match frames.pass(bytes) {
            Progress::Complete => caller.set_partial_head(false),
            Progress::Began => caller.partial_head_began(),
            Progress::Incomplete => {}
        }
        caller.frames.received(frames.take_counts(), caller.shared.clock.coarse());
        if frames.is_opened() && caller.stage() == Stage::Head {
            caller.opened();
        }
    }

    /// Whether bytes of HTTP/1.1 are let in now. After a request to leave HTTP they are once it is answered.
    fn is_open(&mut self) -> Poll<io::Result<()>> {
        if self.framing.is_refused() {
            let reason = "a body that others could read in another way";
            return Poll::Ready(Err(io::Error::new(io::ErrorKind::InvalidData, reason)));
        }
        match self.framing.undecided() {
            Some(requests) if !self.caller.has_answered(requests) => return Poll::Pending,
            Some(_) => self.framing.decide(),
            None => {}
        }
        Poll::Ready(Ok(()))
    }

    /// Counts what the parser of HTTP/1.1 holds now that it has been given `passed` more bytes. It asks for more of an upload
    /// only once it has given on what it had.
    fn count_held(&mut self, passed: usize) {
        let is_within_head = self.framing.is_within_head();
        self.head_len = if is_within_head { self.head_len + passed } else { 0 };
        let held = match is_within_head {
            true => self.head_len + self.head.len(),
            false if self.framing.unfinished() > 0 => passed,
            false => 0,
        };
        charge::hold(&mut self.held, &self.caller, held);
    }

    /// Reads what is neither HTTP/1.1 nor to be looked at.
    fn poll_read_through(&mut self, cx: &mut Context<'_>, buf: &mut ReadBufCursor<'_>) -> Poll<io::Result<()>> {
        if self.caller.http2 && self.caller.frames.is_exhausted() {
            // Nothing wakes the reader: its connection is closed next.
            return Poll::Pending;
        }
        let Self { stream, first, frames, caller, .. } = self;
        let mut look = |bytes: &[u8]| {
            if caller.http2 {
                Self::follow(frames, caller, bytes);
            }
            bytes.len()
        };
        if !first.is_empty() {
            let taken = first.split_to(first.len().min(buf.remaining()));
            look(&taken);
            buf.put_slice(&taken);
            return Poll::Ready(Ok(()));
        }
        let room = buf.remaining();
        let read = ready!(stream.poll_fill(cx, buf, look))?;
        self.at_end |= read == 0 && room > 0;
        self.caller.received(read);
        if self.caller.http2 {
            let Self { held, frames, caller, .. } = self;
            charge::hold(held, caller, frames.held());
        }
        Poll::Ready(Ok(()))
    }

    /// Replaces what hyper says about a head that it could not parse; `written` is the beginning of its answer.
    fn explain(&mut self, written: &[u8]) -> bool {
        let target = self.caller.shared.config.limits.target;
        let reason = match refused(written, &self.head, target) {
            None => return false,
            // To hyper a length above its limit is a head that is too large.
            Some(Reason::HeadersTooLarge) if self.framing.is_refused() => Reason::BadRequest,
            Some(reason) => reason,
        };
        self.caller.shared.telemetry.refused(reason);
        self.final_response = Some(answer::final_response(reason).into());
        true
    }

    fn poll_final_response(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        while let Some(words) = self.final_response.as_mut().filter(|words| words.has_remaining()) {
            let written = ready!(Pin::new(&mut self.stream).poll_write(cx, words))?;
            words.advance(written);
        }
        Poll::Ready(Ok(()))
    }

    /// Whether bytes written now can be an answer of hyper's own.
    fn between_answers(&self) -> bool {
        matches!(self.caller.stage(), Stage::Idle | Stage::Head)
    }
}

impl Drop for CallerIo {
    fn drop(&mut self) {
        if self.caller.is_unfinished() {
            self.stream.reset_on_close();
        }
        self.caller.closed();
    }
}

/// The reason behind an answer that hyper made by itself, which begins with `written`, to a head that begins with
/// `head`; `None` when it is no such answer.
fn refused(written: &[u8], head: &[u8], target: usize) -> Option<Reason> {
    let status = written.strip_prefix(b"HTTP/1.1 ").or_else(|| written.strip_prefix(b"HTTP/1.0 "))?;
    let line_end = head.iter().position(|byte| *byte == b'\n');
    let line = &head[..line_end.unwrap_or(head.len())];
    let mut words = line.split(|byte| *byte == b' ').filter(|word| !word.is_empty());
    let target_len = words.nth(1).map_or(0, <[u8]>::len);
    match status.get(..3)? {
        b"414" => Some(Reason::UriTooLong),
        b"431" if target_len > target => Some(Reason::UriTooLong),
        b"431" => Some(Reason::HeadersTooLarge),
        b"400" => {
            let version = words.next().map(|word| word.strip_suffix(b"\r").unwrap_or(word));
            let unknown_version = version.is_some_and(|version| {
                version.starts_with(b"HTTP/") && version != b"HTTP/1.1" && version != b"HTTP/1.0"
            });
            if line_end.is_some() && unknown_version {
                return Some(Reason::VersionNotSupported);
            }
            Some(if has_unknown_coding(head) { Reason::NotImplemented } else { Reason::BadRequest })
        }
        _ => None,
    }
}

/// Whether the head names a transfer coding, and chunked is not among them.
fn has_unknown_coding(head: &[u8]) -> bool {
    let fields = head.split(|byte| *byte == b'\n').skip(1).take_while(|line| line.len() > 1);
    let mut coded = false;
    for line in fields {
        let Some(colon) = line.iter().position(|byte| *byte == b':') else { return false };
        let (name, value) = line.split_at(colon);
        if name.eq_ignore_ascii_case(b"transfer-encoding") {
            coded = true;
            if value.to_ascii_lowercase().windows(7).any(|word| word == b"chunked") {
                return false;
            }
        }
    }
    coded
}

impl Read for CallerIo {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, mut buf: ReadBufCursor<'_>) -> Poll<io::Result<()>> {
        if self.caller.is_ended() {
            return Poll::Ready(Ok(()));
        }
        if !self.remembered {
            self.remembered = true;
            self.caller.remember(cx.waker());
        }
        if self.caller.http2 || self.caller.stage() == Stage::Free {
            return self.poll_read_through(cx, &mut buf);
        }
        ready!(self.is_open())?;
        let Self { stream, first, framing, head, caller, .. } = &mut *self;
        if !first.is_empty() {
            let length = first.len().min(buf.remaining());
            let passed = Self::look(framing, head, caller, &first[..length]);
            buf.put_slice(&first.split_to(passed));
            self.count_held(passed);
            return if passed == 0 { self.is_open() } else { Poll::Ready(Ok(())) };
        }
        let (room, mut passed) = (buf.remaining(), 0);
        let read = ready!(stream.poll_fill(cx, &mut buf, |bytes| {
            passed = Self::look(framing, head, caller, bytes);
            if framing.undecided().is_some() {
                *first = Bytes::copy_from_slice(&bytes[passed..]);
            }
            passed
        }))?;
        self.at_end |= read == 0 && room > 0;
        self.count_held(passed);
        if read > 0 && passed == 0 { self.is_open() } else { Poll::Ready(Ok(())) }
    }
}

impl Write for CallerIo {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        if self.between_answers() && (self.final_response.is_some() || self.explain(bytes)) {
            ready!(self.poll_final_response(cx))?;
            return Poll::Ready(Ok(bytes.len()));
        }
        let written = Pin::new(&mut self.stream).poll_write(cx, bytes);
        self.has_refused = written.is_pending();
        written
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let first = bufs.first().map_or(&[][..], |buf| buf);
        if self.between_answers() && (self.final_response.is_some() || self.explain(first)) {
            ready!(self.poll_final_response(cx))?;
            return Poll::Ready(Ok(bufs.iter().map(|buf| buf.len()).sum()));
        }
        let written = Pin::new(&mut self.stream).poll_write_vectored(cx, bufs);
        self.has_refused = written.is_pending();
        written
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let flushed = self.caller.flushed();
        if flushed == Flushed::Exchange {
            // A large head was an exception; its memory need not stay.
            self.head.clear();
            self.head.shrink_to(1024);
            if let Some(held) = &mut self.held {
                held.set(0);
            }
        }
        if flushed != Flushed::Nothing && self.framing.undecided().is_some() {
            // Bytes that were held back can be read now.
            cx.waker().wake_by_ref();
        }
        ready!(self.poll_final_response(cx))?;
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(self.poll_final_response(cx))?;
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_of_the_parser_get_a_reason() {
        let long = format!("GET /{} HTTP/1.1\r\n", "a".repeat(17_000));
        for (case, written, head, want) in [
            ("syntax", "HTTP/1.1 400 Bad Request", "GET / HTTP/1.1\r\n bad", Some(Reason::BadRequest)),
            ("version", "HTTP/1.1 400 Bad Request", "GET / HTTP/3.0\r\n\r\n", Some(Reason::VersionNotSupported)),
            ("no version", "HTTP/1.1 400 Bad Request", "GET /\r\n\r\n", Some(Reason::BadRequest)),
            ("tls", "HTTP/1.1 400 Bad Request", "\u{16}\u{3}\u{1}", Some(Reason::BadRequest)),
            (
                "coding",
                "HTTP/1.1 400 Bad Request",
                "POST / HTTP/1.1\r\nTransfer-Encoding: gzip\r\n\r\n",
                Some(Reason::NotImplemented),
            ),
            (
                "chunked is not last",
                "HTTP/1.1 400 Bad Request",
                "POST / HTTP/1.1\r\nTransfer-Encoding: chunked, gzip\r\n\r\n",
                Some(Reason::BadRequest),
            ),
            ("large", "HTTP/1.1 431 Request", "GET / HTTP/1.1\r\na: b\r\n", Some(Reason::HeadersTooLarge)),
            ("long", "HTTP/1.1 431 Request", &long, Some(Reason::UriTooLong)),
            ("long, said so", "HTTP/1.1 414 URI Too Long", &long, Some(Reason::UriTooLong)),
            ("an endpoint's body", "HTTP/1.1 200 OK", "", None),
            ("no answer", "hello", "", None),
        ] {
            assert_eq!(refused(written.as_bytes(), head.as_bytes(), 16 * 1024), want, "{case}");
        }
    }
}
