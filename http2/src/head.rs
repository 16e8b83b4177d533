//! Heads and trailers: header blocks into requests and responses, and back (RFC 9113 section 8).

use bytes::Bytes;
use http::{
    HeaderMap, HeaderName, HeaderValue, Method, Request, Response, StatusCode, Uri, Version, header, request, response,
    uri::{Authority, PathAndQuery, Scheme},
};

use crate::hpack::{DecodeError, Decoder, Encoder, Field};

/// The protocol that an extended CONNECT asks for (RFC 8441 section 4): an extension of the head of a request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Protocol(Bytes);

impl Protocol {
    /// A protocol of this name.
    #[must_use]
    pub fn new(name: impl Into<Bytes>) -> Self {
        Self(name.into())
    }

    /// Its name, as it was sent.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }
}

/// A field that is sent behind those of a head.
pub type MoreField = (&'static HeaderName, HeaderValue);

/// The fields of a header block.
#[derive(Debug, Default)]
pub(crate) struct Block {
    method: Option<Method>,
    scheme: Option<Bytes>,
    authority: Option<Bytes>,
    path: Option<Bytes>,
    protocol: Option<Bytes>,
    status: Option<StatusCode>,
    pub(crate) fields: HeaderMap,
    /// Bytes, as RFC 9113 section 6.5.2 counts them.
    size: usize,
    is_malformed: bool,
    /// It has more bytes than are let in. Its fields are not complete.
    pub(crate) is_too_large: bool,
}

/// A block that is not what it has to be (RFC 9113 section 8.1.1).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Malformed;

impl Block {
    /// Reads a header block of at most `most` bytes. What is above is decoded and dropped.
    pub(crate) fn read(decoder: &mut Decoder, bytes: &[u8], most: usize) -> Result<Self, DecodeError> {
        let mut block = Self { fields: HeaderMap::with_capacity(12), ..Self::default() };
        decoder.decode(bytes, &mut |field, size| {
            block.size += size;
            if block.size > most {
                block.is_too_large = true;
            } else {
                block.take(field);
            }
        })?;
        Ok(block)
    }

    fn take(&mut self, field: Field) {
        match field {
            Field::Header(name, value) => self.field(name, value),
            Field::Method(method) => self.pseudo(|block| block.method.replace(method).is_some()),
            Field::Scheme(scheme) => self.pseudo(|block| block.scheme.replace(scheme).is_some()),
            Field::Authority(name) => self.pseudo(|block| block.authority.replace(name).is_some()),
            Field::Path(path) => self.pseudo(|block| block.path.replace(path).is_some()),
            Field::Protocol(name) => self.pseudo(|block| block.protocol.replace(name).is_some()),
            Field::Status(status) => self.pseudo(|block| block.status.replace(status).is_some()),
            Field::Malformed => self.is_malformed = true,
        }
    }

    /// Sets a pseudo-field. They come once, and before all others.
    fn pseudo(&mut self, set: impl FnOnce(&mut Self) -> bool) {
        self.is_malformed |= set(self) || !self.fields.is_empty();
    }

    fn field(&mut self, name: HeaderName, value: HeaderValue) {
        if is_of_connection(&name, &value) {
            self.is_malformed = true;
            return;
        }
        // It fails only above the number of fields that a map can have.
        self.is_malformed |= self.fields.try_append(name, trimmed(value)).is_err();
    }

    /// The head of a request.
    pub(crate) fn into_request(self) -> Result<request::Parts, Malformed> {
        let method = self.method.ok_or(Malformed)?;
        if self.is_malformed || self.status.is_some() {
            return Err(Malformed);
        }
        let is_connect = method == Method::CONNECT;
        if self.protocol.is_some() && !is_connect {
            return Err(Malformed);
        }
        let is_plain_connect = is_connect && self.protocol.is_none();
        if is_plain_connect && (self.scheme.is_some() || self.path.is_some() || self.authority.is_none()) {
            return Err(Malformed);
        }
        if !is_plain_connect && (self.scheme.is_none() || self.path.is_none()) {
            return Err(Malformed);
        }
        let uri = target(self.scheme, self.authority, self.path)?;
        let (mut parts, ()) = Request::new(()).into_parts();
        parts.method = method;
        parts.uri = uri;
        parts.version = Version::HTTP_2;
        parts.headers = self.fields;
        if let Some(protocol) = self.protocol {
            parts.extensions.insert(Protocol(protocol));
        }
        Ok(parts)
    }

    /// The head of a response.
    pub(crate) fn into_response(self) -> Result<response::Parts, Malformed> {
        let status = self.status.ok_or(Malformed)?;
        if self.is_malformed || self.has_request_fields() {
            return Err(Malformed);
        }
        let (mut parts, ()) = Response::new(()).into_parts();
        parts.status = status;
        parts.version = Version::HTTP_2;
        parts.headers = self.fields;
        Ok(parts)
    }

    /// Trailers.
    pub(crate) fn into_trailers(self) -> Result<HeaderMap, Malformed> {
        let is_wrong = self.is_malformed || self.is_too_large || self.status.is_some() || self.has_request_fields();
        if is_wrong { Err(Malformed) } else { Ok(self.fields) }
    }

    fn has_request_fields(&self) -> bool {
        self.method.is_some()
            || self.scheme.is_some()
            || self.authority.is_some()
            || self.path.is_some()
            || self.protocol.is_some()
    }
}

/// Fields that speak of a connection have no place in HTTP/2 (RFC 9113 section 8.2.2).
fn is_of_connection(name: &HeaderName, value: &HeaderValue) -> bool {
    match name.as_str() {
        "connection" | "transfer-encoding" | "upgrade" | "keep-alive" | "proxy-connection" => true,
        "te" => value.as_bytes() != b"trailers",
        _ => false,
    }
}

/// Values neither begin nor end with space (RFC 9113 section 8.2.1). It is removed rather than refused: gRPC allows to
/// remove it from metadata, and texts of errors end with a space now and then.
fn trimmed(value: HeaderValue) -> HeaderValue {
    let bytes = value.as_bytes();
    let is_space = |byte: Option<&u8>| matches!(byte, Some(b' ' | b'\t'));
    if !is_space(bytes.first()) && !is_space(bytes.last()) {
        return value;
    }
    // A part of a valid value is a valid value.
    HeaderValue::from_bytes(bytes.trim_ascii()).unwrap_or(value)
}

fn target(scheme: Option<Bytes>, authority: Option<Bytes>, path: Option<Bytes>) -> Result<Uri, Malformed> {
    let mut parts = http::uri::Parts::default();
    if let Some(authority) = authority {
        parts.authority = Some(Authority::from_maybe_shared(authority).map_err(|_| Malformed)?);
    }
    if let Some(path) = path {
        parts.path_and_query = Some(path_of(path)?);
        if parts.authority.is_some() {
            parts.scheme = scheme.map(scheme_of).transpose()?;
        }
    }
    Uri::from_parts(parts).map_err(|_| Malformed)
}

/// `/` stands for the target of most requests, and needs no memory of its own.
fn path_of(path: Bytes) -> Result<PathAndQuery, Malformed> {
    match &path[..] {
        b"" => Err(Malformed),
        b"/" => Ok(PathAndQuery::from_static("/")),
        _ => {
            let length = path.len();
            let path = PathAndQuery::from_maybe_shared(path).map_err(|_| Malformed)?;
            // A fragment, which the parser drops, belongs to no target (RFC 9113 section 8.3.1).
            if path.as_str().len() == length { Ok(path) } else { Err(Malformed) }
        }
    }
}

fn scheme_of(scheme: Bytes) -> Result<Scheme, Malformed> {
    match &scheme[..] {
        b"http" => Ok(Scheme::HTTP),
        b"https" => Ok(Scheme::HTTPS),
        other => Scheme::try_from(other).map_err(|_| Malformed),
    }
}

/// What a head says of the length of its body.
pub(crate) fn content_length(fields: &HeaderMap) -> Result<Option<u64>, Malformed> {
    let mut values = fields.get_all(header::CONTENT_LENGTH).iter();
    let Some(first) = values.next() else { return Ok(None) };
    let bytes = first.as_bytes();
    if bytes.is_empty()
        || bytes.len() > 19
        || !bytes.iter().all(u8::is_ascii_digit)
        || values.any(|other| other != first)
    {
        return Err(Malformed);
    }
    Ok(Some(bytes.iter().fold(0, |length, digit| length * 10 + u64::from(digit - b'0'))))
}

/// Appends the header block of a request.
pub(crate) fn write_request(encoder: &mut Encoder, head: &request::Parts, more: &[MoreField], out: &mut Vec<u8>) {
    encoder.begin(out);
    encoder.method(&head.method, out);
    let protocol = head.extensions.get::<Protocol>();
    if head.method != Method::CONNECT || protocol.is_some() {
        encoder.scheme(head.uri.scheme_str().unwrap_or("http").as_bytes(), out);
        let path = head.uri.path_and_query().map_or("/", PathAndQuery::as_str);
        encoder.path(path.as_bytes(), out);
    }
    if let Some(authority) = head.uri.authority() {
        encoder.authority(authority.as_str().as_bytes(), out);
    }
    if let Some(protocol) = protocol {
        encoder.protocol(&protocol.0, out);
    }
    write_fields(encoder, &head.headers, out);
    for (name, value) in more {
        encoder.header(name, value, out);
    }
}

/// Appends the header block of a response.
pub(crate) fn write_response(encoder: &mut Encoder, status: StatusCode, fields: &HeaderMap, out: &mut Vec<u8>) {
    encoder.begin(out);
    encoder.status(status, out);
    write_fields(encoder, fields, out);
}

/// Appends the header block of trailers.
pub(crate) fn write_trailers(encoder: &mut Encoder, fields: &HeaderMap, out: &mut Vec<u8>) {
    encoder.begin(out);
    write_fields(encoder, fields, out);
}

fn write_fields(encoder: &mut Encoder, fields: &HeaderMap, out: &mut Vec<u8>) {
    for (name, value) in fields {
        encoder.header(name, value, out);
    }
}
