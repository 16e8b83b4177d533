//! The head of a response, read from the buffer it was received into.
//!
//! Field values are slices of that buffer, not copies. What frames the body is decided here, once, by RFC 9112 section
//! 6.3; the fields that say so belong to this connection and are taken out, but for a Content-Length that holds.

use std::mem::MaybeUninit;

use bytes::{Bytes, BytesMut};
use http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode, Version, header, response};
use smallvec::SmallVec;

use super::super::{ProtocolError, has_no_body, length::content_length};

/// Fields for which there is room on the stack. More are allowed, and cost an allocation.
const USUAL_FIELDS: usize = 64;

/// What a response's head may measure.
#[derive(Clone, Copy, Debug)]
pub(crate) struct ResponseLimits {
    /// Bytes of the head.
    pub(crate) bytes: usize,
    /// Fields of the head.
    pub(crate) fields: usize,
}

impl ResponseLimits {
    /// Whether fields that came by HTTP/2 are within the limits: what they measure is what they would in HTTP/1.1.
    pub(crate) fn check(&self, fields: &HeaderMap) -> Result<(), ProtocolError> {
        if fields.len() > self.fields {
            return Err(ProtocolError::TooManyFields);
        }
        let size: usize = fields.iter().map(|(name, value)| name.as_str().len() + value.len() + 4).sum();
        if size > self.bytes { Err(ProtocolError::HeadTooLarge) } else { Ok(()) }
    }
}

/// How the end of a body is found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum ResponseFraming {
    /// There is none.
    Empty,
    /// After so many bytes.
    Length(u64),
    /// By chunks.
    Chunked,
    /// By the end of the connection.
    Close,
}

/// The head of a response.
#[derive(Debug)]
pub(crate) struct ResponseHead {
    pub(crate) parts: response::Parts,
    pub(crate) framing: ResponseFraming,
    /// The connection can carry another request after this response.
    pub(crate) keep_alive: bool,
}

/// Takes a head off the front of `buffer`; `None` while it is not complete. `method` is the request's.
pub(crate) fn parse(
    buffer: &mut BytesMut,
    limits: &ResponseLimits,
    method: &Method,
) -> Result<Option<ResponseHead>, ProtocolError> {
    let mut usual = [const { MaybeUninit::uninit() }; USUAL_FIELDS];
    let lines = match lines(buffer, &mut usual, limits.bytes) {
        Err(ProtocolError::TooManyFields) if limits.fields > USUAL_FIELDS => {
            lines(buffer, &mut vec![MaybeUninit::uninit(); limits.fields], limits.bytes)?
        }
        lines => lines?,
    };
    let Some(Lines { length, version, status, reason, fields }) = lines else { return Ok(None) };
    let bytes = buffer.split_to(length).freeze();
    let Fields { mut headers, chunked, says_length, closes, keeps } = map(&bytes, &fields, version)?;
    let Framed { framing, said, ambiguous } = frame(&mut headers, chunked, says_length, status, method)?;
    // A HEAD without a length comes from an endpoint that would have ended the body of a GET by closing, and which may
    // close now too.
    let ends_by_closing = framing == ResponseFraming::Close || (*method == Method::HEAD && !said);
    // RFC 9112 section 9.3.
    let keep_alive = !ends_by_closing && !ambiguous && !closes && (version == 1 || keeps);
    let (mut parts, ()) = http::Response::new(()).into_parts();
    parts.status = status;
    parts.version = if version == 0 { Version::HTTP_10 } else { Version::HTTP_11 };
    parts.headers = headers;
    if let Some(reason) = reason.and_then(|reason| hyper::ext::ReasonPhrase::try_from(reason).ok()) {
        parts.extensions.insert(reason);
    }
    Ok(Some(ResponseHead { parts, framing, keep_alive }))
}

/// A head cut into pieces. Positions, because the buffer that they refer to is cut as well.
struct Lines {
    length: usize,
    /// Minor version.
    version: u8,
    status: StatusCode,
    /// The reason phrase, where it is not the usual one.
    reason: Option<Vec<u8>>,
    fields: SmallVec<[FieldAt; 16]>,
}

/// Where a field is. Positions fit, because heads are limited.
#[derive(Clone, Copy)]
struct FieldAt {
    name: (u32, u32),
    value: (u32, u32),
}

fn lines<'b>(
    buffer: &'b [u8],
    room: &mut [MaybeUninit<httparse::Header<'b>>],
    limit: usize,
) -> Result<Option<Lines>, ProtocolError> {
    let mut response = httparse::Response::new(&mut []);
    let parsed = httparse::ParserConfig::default().parse_response_with_uninit_headers(&mut response, buffer, room);
    let length = match parsed {
        Ok(httparse::Status::Complete(length)) if length <= limit => length,
        Ok(httparse::Status::Partial) if buffer.len() < limit => return Ok(None),
        Ok(_) => return Err(ProtocolError::HeadTooLarge),
        Err(httparse::Error::TooManyHeaders) => return Err(ProtocolError::TooManyFields),
        Err(_) => return Err(ProtocolError::Head),
    };
    let (Some(version), Some(code)) = (response.version, response.code) else { return Err(ProtocolError::Head) };
    let status = StatusCode::from_u16(code).map_err(|_| ProtocolError::Head)?;
    let usual = |reason: &&str| reason.is_empty() || status.canonical_reason() == Some(*reason);
    let reason = response.reason.filter(|reason| !usual(reason)).map(|reason| reason.as_bytes().to_vec());
    let at = |part: &[u8]| {
        let from = part.as_ptr() as usize - buffer.as_ptr() as usize;
        Some((u32::try_from(from).ok()?, u32::try_from(from + part.len()).ok()?))
    };
    let mut fields = SmallVec::new();
    for field in response.headers.iter() {
        let (Some(name), Some(value)) = (at(field.name.as_bytes()), at(field.value)) else {
            return Err(ProtocolError::HeadTooLarge);
        };
        fields.push(FieldAt { name, value });
    }
    Ok(Some(Lines { length, version, status, reason, fields }))
}

/// The fields of a head, and what was seen of them on the way.
struct Fields {
    /// Without Transfer-Encoding, which belongs to the connection.
    headers: HeaderMap,
    chunked: bool,
    says_length: bool,
    /// `Connection` has the word `close`, and `keep-alive`.
    closes: bool,
    keeps: bool,
}

fn map(bytes: &Bytes, fields: &[FieldAt], version: u8) -> Result<Fields, ProtocolError> {
    let headers = HeaderMap::with_capacity(fields.len());
    let mut found = Fields { headers, chunked: false, says_length: false, closes: false, keeps: false };
    for FieldAt { name, value } in fields {
        let (name, value) = (name.0 as usize..name.1 as usize, value.0 as usize..value.1 as usize);
        let name = HeaderName::from_bytes(&bytes[name]).map_err(|_| ProtocolError::Head)?;
        match name {
            header::TRANSFER_ENCODING => {
                // Any other coding would reach the caller unmarked, so it is refused.
                let chunked = bytes[value].trim_ascii().eq_ignore_ascii_case(b"chunked");
                if version == 0 || !chunked || found.chunked {
                    return Err(ProtocolError::TransferCoding);
                }
                found.chunked = true;
                continue;
            }
            header::CONTENT_LENGTH => found.says_length = true,
            // Most say nothing else, and that is for this connection alone.
            header::CONNECTION if !found.note_connection(&bytes[value.clone()]) => continue,
            _ => {}
        }
        let value = HeaderValue::from_maybe_shared(bytes.slice(value)).map_err(|_| ProtocolError::Head)?;
        found.headers.append(name, value);
    }
    Ok(found)
}

impl Fields {
    /// Notes what a `Connection` field says of this connection. Whether it says more.
    fn note_connection(&mut self, words: &[u8]) -> bool {
        let mut says_more = false;
        for word in words.split(|byte| *byte == b',') {
            let word = word.trim_ascii();
            if word.eq_ignore_ascii_case(b"close") {
                self.closes = true;
            } else if word.eq_ignore_ascii_case(b"keep-alive") {
                self.keeps = true;
            } else {
                says_more = true;
            }
        }
        says_more
    }
}

struct Framed {
    framing: ResponseFraming,
    /// A field said how long the body is.
    said: bool,
    /// Two fields said it: whatever follows the response cannot be trusted.
    ambiguous: bool,
}

/// Decides how the body is framed, and takes out what must not be passed on.
fn frame(
    headers: &mut HeaderMap,
    chunked: bool,
    says_length: bool,
    status: StatusCode,
    method: &Method,
) -> Result<Framed, ProtocolError> {
    if chunked {
        let ambiguous = says_length && headers.remove(header::CONTENT_LENGTH).is_some();
        let framing = if has_no_body(status, method) { ResponseFraming::Empty } else { ResponseFraming::Chunked };
        return Ok(Framed { framing, said: true, ambiguous });
    }
    let length = if says_length { content_length(headers, status)? } else { None };
    let framing = match length {
        _ if has_no_body(status, method) => ResponseFraming::Empty,
        Some(0) => ResponseFraming::Empty,
        Some(length) => ResponseFraming::Length(length),
        None => ResponseFraming::Close,
    };
    Ok(Framed { framing, said: length.is_some(), ambiguous: false })
}
