//! The head of a request as bytes. Pure.

use http::{HeaderMap, HeaderName, HeaderValue, Method, header, request};

use crate::fields::AddedFields;

/// How the end of a request's body is told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum RequestFraming {
    /// There is no body.
    Empty,
    /// After so many bytes.
    Length(u64),
    /// By chunks.
    Chunked,
}

impl RequestFraming {
    /// As a body of this size wants it; `None` is one that is not known yet.
    pub(crate) fn of(size: Option<u64>) -> Self {
        size.map_or(Self::Chunked, Self::Length)
    }
}

/// Appends a head, with `added` behind its own fields. Its own framing fields are replaced by those of `framing`.
pub(crate) fn head(parts: &request::Parts, added: &AddedFields, framing: RequestFraming, out: &mut Vec<u8>) {
    let target = parts.uri.path_and_query().map_or("/", |target| target.as_str());
    out.reserve(128 + target.len() + 48 * (parts.headers.len() + added.len()));
    out.extend_from_slice(parts.method.as_str().as_bytes());
    out.push(b' ');
    out.extend_from_slice(target.as_bytes());
    out.extend_from_slice(b" HTTP/1.1\r\n");
    fields(&parts.headers, out);
    for (name, value) in added {
        field(name, value, out);
    }
    match framing {
        RequestFraming::Empty if wants_length(&parts.method) => out.extend_from_slice(b"content-length: 0\r\n"),
        RequestFraming::Empty => {}
        RequestFraming::Length(length) => field(&header::CONTENT_LENGTH, &HeaderValue::from(length), out),
        RequestFraming::Chunked => out.extend_from_slice(b"transfer-encoding: chunked\r\n"),
    }
    out.extend_from_slice(b"\r\n");
}

/// Whether a request of this method says that it has no body (RFC 9110 section 8.6).
fn wants_length(method: &Method) -> bool {
    matches!(*method, Method::POST | Method::PUT | Method::PATCH)
}

fn fields(headers: &HeaderMap, out: &mut Vec<u8>) {
    for (name, value) in headers {
        if name != header::CONTENT_LENGTH && name != header::TRANSFER_ENCODING {
            field(name, value, out);
        }
    }
}

/// Appends one field.
pub(super) fn field(name: &HeaderName, value: &HeaderValue, out: &mut Vec<u8>) {
    out.extend_from_slice(name.as_str().as_bytes());
    out.extend_from_slice(b": ");
    out.extend_from_slice(value.as_bytes());
    out.extend_from_slice(b"\r\n");
}
