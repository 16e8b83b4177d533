//! Where the requests on a connection of HTTP/1.1 begin and end.
//!
//! Followed beside hyper, in the bytes before it gets them, because it is lenient where a proxy must not be: to it a bare LF
//! ends the trailers of a chunked body, and what follows them is skipped, up to the end of another request. Whoever reads the
//! same bytes in another way then sees two requests where this proxy answers one. Here every line of a chunked body ends
//! with CR LF, and what does not is not let in. Lines of a head may end with a bare LF, as hyper reads them: they are sent on
//! with CR LF.
//!
//! A request that is refused is the last one. What follows a request to leave HTTP is held back until it is answered.
//! Pure.

use smallvec::SmallVec;

/// Bytes of a line of a head that are looked at. A length that is not among them is malformed.
const LINE: usize = 256;

/// Largest length of a body: hyper takes two more for signs.
const LONGEST: u64 = u64::MAX - 2;

/// Digits of a chunk's size.
const DIGITS: u8 = 16;

/// How far the requests were followed.
#[derive(Debug)]
pub(in crate::http::server) struct RequestTracker {
    state: TrackerState,
    /// Heads that were seen to their end.
    heads: u32,
    /// The head that is malformed, counted from 1; 0 for none.
    malformed: u32,
    head: HeadProgress,
    /// The beginning of a line whose end has not come yet.
    line: SmallVec<[u8; 64]>,
}

/// What was seen of the head that is arriving.
#[derive(Debug, Default)]
struct HeadProgress {
    chunked: bool,
    length: Option<u64>,
    upgrade: bool,
    malformed: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum TrackerState {
    /// The first line of a head, or empty lines before it.
    RequestLine,
    /// Its other lines.
    Fields,
    /// So much of a body.
    Body(u64),
    /// The size of a chunk, of which so many digits were seen.
    Size(u64, u8),
    Extension(u64),
    SizeEnd(u64),
    Data(u64),
    DataCr,
    DataLf,
    /// A line of trailers, or the empty one that ends them.
    Trailer,
    TrailerRest,
    TrailerLf,
    EndLf,
    /// A request asked to leave HTTP.
    Undecided,
    /// Nothing more is let in.
    Refused,
}

impl RequestTracker {
    /// Nothing was seen.
    pub(in crate::http::server) fn new() -> Self {
        Self {
            state: TrackerState::RequestLine,
            heads: 0,
            malformed: 0,
            head: HeadProgress::default(),
            line: SmallVec::new(),
        }
    }

    /// Nothing more is let in.
    pub(in crate::http::server) fn is_refused(&self) -> bool {
        self.state == TrackerState::Refused
    }

    /// What follows is held back until this request is answered.
    pub(in crate::http::server) fn undecided(&self) -> Option<u32> {
        (self.state == TrackerState::Undecided).then_some(self.heads)
    }

    /// A head has begun to arrive, and is not complete.
    pub(in crate::http::server) fn is_within_head(&self) -> bool {
        self.state == TrackerState::Fields || self.state == TrackerState::RequestLine && !self.line.is_empty()
    }

    /// The request, counted from 1, whose body has not come to its end; 0 for none.
    pub(in crate::http::server) fn unfinished(&self) -> u32 {
        match self.state {
            TrackerState::RequestLine | TrackerState::Fields | TrackerState::Undecided => 0,
            _ => self.heads,
        }
    }

    /// Bytes that this body lacks; `None` where only its chunks say.
    pub(in crate::http::server) fn left(&self) -> Option<u64> {
        if let TrackerState::Body(left) = self.state { Some(left) } else { None }
    }

    /// The connection goes on in HTTP.
    pub(in crate::http::server) fn decide(&mut self) {
        self.state = TrackerState::RequestLine;
    }

    /// The request whose head is malformed, counted from 1; 0 for none.
    pub(in crate::http::server) fn malformed(&self) -> u32 {
        self.malformed
    }

    /// Follows `bytes`; returns how many of them are let in.
    pub(in crate::http::server) fn pass(&mut self, bytes: &[u8]) -> usize {
        let mut at = 0;
        while at < bytes.len() && !matches!(self.state, TrackerState::Undecided | TrackerState::Refused) {
            let rest = &bytes[at..];
            at += match self.state {
                TrackerState::RequestLine | TrackerState::Fields => self.head_line(rest),
                TrackerState::Body(left) => {
                    let (passed, left) = skip(left, rest);
                    self.state = TrackerState::Body(left);
                    if left == 0 {
                        self.end();
                    }
                    passed
                }
                TrackerState::Data(left) => {
                    let (passed, left) = skip(left, rest);
                    self.state = if left == 0 { TrackerState::DataCr } else { TrackerState::Data(left) };
                    passed
                }
                state => {
                    self.step(state, rest[0]);
                    usize::from(self.state != TrackerState::Refused)
                }
            };
        }
        at
    }

    /// One byte of what is between the data of chunks.
    fn step(&mut self, state: TrackerState, byte: u8) {
        self.state = match (state, byte) {
            (TrackerState::Size(size, digits), b'0'..=b'9' | b'a'..=b'f' | b'A'..=b'F') if digits < DIGITS => {
                let digit = char::from(byte).to_digit(16).unwrap_or_default();
                TrackerState::Size(size << 4 | u64::from(digit), digits + 1)
            }
            (TrackerState::Size(size, 1..), b';' | b' ' | b'\t') => TrackerState::Extension(size),
            (TrackerState::Size(size, 1..) | TrackerState::Extension(size), b'\r') => TrackerState::SizeEnd(size),
            (TrackerState::Extension(size), byte) if byte != b'\n' => TrackerState::Extension(size),
            (TrackerState::SizeEnd(0), b'\n') => TrackerState::Trailer,
            (TrackerState::SizeEnd(size), b'\n') => TrackerState::Data(size),
            (TrackerState::DataCr, b'\r') => TrackerState::DataLf,
            (TrackerState::DataLf, b'\n') => TrackerState::Size(0, 0),
            (TrackerState::Trailer, b'\r') => TrackerState::EndLf,
            // A line that begins with space goes on with the one before it.
            (TrackerState::Trailer, byte) if !matches!(byte, b' ' | b'\t' | b'\n') => TrackerState::TrailerRest,
            (TrackerState::TrailerRest, b'\r') => TrackerState::TrailerLf,
            (TrackerState::TrailerRest, byte) if byte != b'\n' => TrackerState::TrailerRest,
            (TrackerState::TrailerLf, b'\n') => TrackerState::Trailer,
            (TrackerState::EndLf, b'\n') => return self.end(),
            _ => TrackerState::Refused,
        };
    }

    /// A line of a head, or the part of it that is here; returns how long that is.
    fn head_line(&mut self, bytes: &[u8]) -> usize {
        let end = memchr::memchr(b'\n', bytes);
        if self.state == TrackerState::RequestLine {
            // hyper drops the fragment of a target without a word.
            self.head.malformed |= memchr::memchr(b'#', &bytes[..end.unwrap_or(bytes.len())]).is_some();
        }
        let Some(end) = end else {
            keep(&mut self.line, bytes);
            return bytes.len();
        };
        let mut kept = std::mem::take(&mut self.line);
        let line = if kept.is_empty() {
            &bytes[..end.min(LINE)]
        } else {
            keep(&mut kept, &bytes[..end]);
            &kept[..]
        };
        // Only a whole line ends with CR; of one that is too long, nothing but its beginning matters.
        let line = line.strip_suffix(b"\r").unwrap_or(line);
        match self.state {
            TrackerState::RequestLine if line.is_empty() => {}
            TrackerState::RequestLine => self.state = TrackerState::Fields,
            _ if line.is_empty() => self.end_of_head(),
            _ => self.head.note(line),
        }
        end + 1
    }

    /// The head is complete.
    fn end_of_head(&mut self) {
        self.heads += 1;
        self.state = match (&self.head, self.head.length.unwrap_or(0)) {
            (HeadProgress { malformed: true, .. }, _) => {
                self.malformed = self.heads;
                TrackerState::Refused
            }
            (HeadProgress { chunked: true, .. }, _) => TrackerState::Size(0, 0),
            (_, 0) => return self.end(),
            (_, length) => TrackerState::Body(length),
        };
    }

    /// The request is complete.
    fn end(&mut self) {
        self.state =
            if std::mem::take(&mut self.head).upgrade { TrackerState::Undecided } else { TrackerState::RequestLine };
    }
}

impl HeadProgress {
    /// Notes what a field says about the end of the request.
    fn note(&mut self, line: &[u8]) {
        let Some(first) = line.first() else { return };
        // Most fields are none of these.
        if !matches!(first | 0x20, b't' | b'c' | b'u') {
            return;
        }
        let Some(colon) = line.iter().position(|byte| *byte == b':') else { return };
        let (name, value) = (&line[..colon], &line[colon + 1..]);
        if name.eq_ignore_ascii_case(b"transfer-encoding") {
            self.chunked = true;
        } else if name.eq_ignore_ascii_case(b"upgrade") {
            self.upgrade = true;
        } else if name.eq_ignore_ascii_case(b"content-length") {
            let length = if line.len() < LINE { number(value.trim_ascii()) } else { None };
            self.malformed |= length.is_none() || self.length.is_some_and(|before| Some(before) != length);
            self.length = length;
        }
    }
}

fn keep(line: &mut SmallVec<[u8; 64]>, bytes: &[u8]) {
    let room = LINE.saturating_sub(line.len());
    line.extend_from_slice(&bytes[..bytes.len().min(room)]);
}

/// How much of what is `left` is here, and what is left then.
fn skip(left: u64, bytes: &[u8]) -> (usize, u64) {
    let passed = usize::try_from(left).unwrap_or(usize::MAX).min(bytes.len());
    (passed, left - passed as u64)
}

fn number(digits: &[u8]) -> Option<u64> {
    let is_number = !digits.is_empty() && digits.iter().all(u8::is_ascii_digit);
    std::str::from_utf8(digits).ok().filter(|_| is_number)?.parse().ok().filter(|length| *length <= LONGEST)
}

#[cfg(test)]
mod tests;
