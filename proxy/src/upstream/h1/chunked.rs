//! The chunked transfer coding (RFC 9112 section 7.1), both ways. Pure.
//!
//! Read strictly: every line ends with CR LF, sizes are hexadecimal digits and nothing else. Extensions are dropped.

use std::io::Write as _;

use bytes::{Buf as _, Bytes, BytesMut};
use http::{HeaderMap, HeaderName, HeaderValue, header};

use super::super::ProtocolError;

/// Bytes of all chunk extensions of one body.
const EXTENSIONS: usize = 16 * 1024;

/// Bytes and fields of the trailers.
const TRAILERS: usize = 16 * 1024;
const TRAILER_FIELDS: usize = 128;

/// Longest line with the size of a chunk, without its extensions.
const SIZE_LINE: usize = 18;

/// What comes next in a body.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum DecodedPiece {
    /// Some of it.
    Data(Bytes),
    /// Its last piece.
    Trailers(HeaderMap),
    /// Its end.
    End,
    /// More bytes are needed.
    More,
}

/// How far the reading of a chunked body is.
#[derive(Debug)]
pub(crate) struct ChunkedDecoder {
    state: ChunkState,
    /// Bytes of extensions that may still come.
    extensions: usize,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum ChunkState {
    /// A line with a size comes.
    Size,
    /// So much of a chunk comes.
    Data(u64),
    /// The line's end after a chunk comes.
    DataEnd,
    /// Trailers come, or none.
    Trailers,
    End,
}

impl ChunkedDecoder {
    /// Nothing was read.
    pub(crate) fn new() -> Self {
        Self { state: ChunkState::Size, extensions: EXTENSIONS }
    }

    /// All of the body was read.
    pub(crate) fn is_done(&self) -> bool {
        self.state == ChunkState::End
    }

    /// Takes the next piece off the front of `buffer`.
    pub(crate) fn next(&mut self, buffer: &mut BytesMut) -> Result<DecodedPiece, ProtocolError> {
        loop {
            match self.state {
                ChunkState::Size => {
                    let Some(size) = self.size(buffer)? else { return Ok(DecodedPiece::More) };
                    self.state = if size == 0 { ChunkState::Trailers } else { ChunkState::Data(size) };
                }
                ChunkState::Data(left) => {
                    if buffer.is_empty() {
                        return Ok(DecodedPiece::More);
                    }
                    let length = usize::try_from(left).unwrap_or(usize::MAX).min(buffer.len());
                    let left = left - length as u64;
                    self.state = if left == 0 { ChunkState::DataEnd } else { ChunkState::Data(left) };
                    return Ok(DecodedPiece::Data(buffer.split_to(length).freeze()));
                }
                ChunkState::DataEnd => {
                    if !b"\r\n".starts_with(&buffer[..buffer.len().min(2)]) {
                        return Err(ProtocolError::Chunk);
                    }
                    if buffer.len() < 2 {
                        return Ok(DecodedPiece::More);
                    }
                    buffer.advance(2);
                    self.state = ChunkState::Size;
                }
                ChunkState::Trailers => {
                    let Some(trailers) = trailers(buffer)? else { return Ok(DecodedPiece::More) };
                    self.state = ChunkState::End;
                    return Ok(if trailers.is_empty() { DecodedPiece::End } else { DecodedPiece::Trailers(trailers) });
                }
                ChunkState::End => return Ok(DecodedPiece::End),
            }
        }
    }

    /// Takes a line with a size off the front of `buffer`.
    fn size(&mut self, buffer: &mut BytesMut) -> Result<Option<u64>, ProtocolError> {
        let Some(end) = buffer.iter().position(|byte| *byte == b'\n') else {
            // What cannot become a size is refused before its line ends.
            let digits = buffer.iter().take_while(|byte| byte.is_ascii_hexdigit()).count();
            let bad = digits > 16 || (digits == 0 && !buffer.is_empty());
            let long = buffer.len() > SIZE_LINE + self.extensions;
            return match (bad, long) {
                (true, _) => Err(ProtocolError::Chunk),
                (_, true) => Err(ProtocolError::ChunkExtensions),
                _ => Ok(None),
            };
        };
        let line = buffer[..end].strip_suffix(b"\r").ok_or(ProtocolError::Chunk)?;
        let digits = line.iter().take_while(|byte| byte.is_ascii_hexdigit()).count();
        if digits == 0 || digits > 16 {
            return Err(ProtocolError::Chunk);
        }
        let (size, extension) = line.split_at(digits);
        let is_extension = extension.trim_ascii_start().first().is_none_or(|byte| *byte == b';');
        if !is_extension || extension.contains(&b'\r') {
            return Err(ProtocolError::Chunk);
        }
        self.extensions = self.extensions.checked_sub(extension.len()).ok_or(ProtocolError::ChunkExtensions)?;
        let size = size.iter().fold(0_u64, |size, digit| size << 4 | u64::from(value_of(*digit)));
        buffer.advance(end + 1);
        Ok(Some(size))
    }
}

fn value_of(digit: u8) -> u8 {
    match digit {
        b'0'..=b'9' => digit - b'0',
        _ => (digit | 0x20) - b'a' + 10,
    }
}

/// Takes trailers, or the empty line in their place, off the front of `buffer`.
fn trailers(buffer: &mut BytesMut) -> Result<Option<HeaderMap>, ProtocolError> {
    if buffer.starts_with(b"\r\n") {
        buffer.advance(2);
        return Ok(Some(HeaderMap::new()));
    }
    let mut fields = [httparse::EMPTY_HEADER; TRAILER_FIELDS];
    match httparse::parse_headers(buffer, &mut fields) {
        Ok(httparse::Status::Complete((length, _))) if length > TRAILERS || has_bare_lf(&buffer[..length]) => {
            Err(ProtocolError::Trailers)
        }
        Ok(httparse::Status::Complete((length, fields))) => {
            let mut map = HeaderMap::with_capacity(fields.len());
            for field in fields {
                let name = HeaderName::from_bytes(field.name.as_bytes()).map_err(|_| ProtocolError::Trailers)?;
                let value = HeaderValue::from_bytes(field.value).map_err(|_| ProtocolError::Trailers)?;
                if may_trail(&name) {
                    map.append(name, value);
                }
            }
            buffer.advance(length);
            Ok(Some(map))
        }
        Ok(httparse::Status::Partial) if buffer.len() <= TRAILERS => Ok(None),
        _ => Err(ProtocolError::Trailers),
    }
}

/// Whether a line ends without CR: others may read on where this parser sees an end.
fn has_bare_lf(lines: &[u8]) -> bool {
    lines.split_inclusive(|byte| *byte == b'\n').any(|line| line.ends_with(b"\n") && !line.ends_with(b"\r\n"))
}

/// Whether a field may stand in trailers: not those that frame, route or authorise (RFC 9110 section 6.5.1).
pub(crate) fn may_trail(name: &HeaderName) -> bool {
    ![
        header::CONTENT_LENGTH,
        header::TRANSFER_ENCODING,
        header::HOST,
        header::CONNECTION,
        header::TE,
        header::TRAILER,
        header::UPGRADE,
        header::AUTHORIZATION,
        header::CONTENT_TYPE,
        header::CONTENT_ENCODING,
        header::SET_COOKIE,
    ]
    .contains(name)
}

/// The line before a chunk of this size.
pub(crate) fn size_line(size: usize, line: &mut Vec<u8>) {
    // Writing to a Vec cannot fail.
    let _ = write!(line, "{size:x}\r\n");
}

/// The end of a chunked body: the last chunk, the trailers, and the empty line.
pub(crate) fn end(trailers: Option<&HeaderMap>, out: &mut Vec<u8>) {
    out.extend_from_slice(b"0\r\n");
    for (name, value) in trailers.into_iter().flatten().filter(|(name, _)| may_trail(name)) {
        super::request::field(name, value, out);
    }
    out.extend_from_slice(b"\r\n");
}
