//! Answers that the mesh makes by itself.

use std::fmt::Write as _;

use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, Response, StatusCode, header};

use super::body::Body;
use crate::reason::Reason;

/// Says why the mesh answered.
pub(crate) const REASON: HeaderName = HeaderName::from_static("x-maesh-reason");

/// An answer instead of a response of an endpoint: what a step of the pipeline returns to refuse a request.
#[derive(Debug)]
pub(crate) struct LocalAnswer {
    pub(crate) reason: Reason,
    /// For callers of plain HTTP.
    pub(crate) status: StatusCode,
    /// Fields that this answer needs besides those that every one has.
    pub(crate) headers: HeaderMap,
}

impl From<Reason> for LocalAnswer {
    fn from(reason: Reason) -> Self {
        let mut headers = HeaderMap::new();
        if reason == Reason::MethodNotAllowed {
            let methods = "GET, HEAD, POST, PUT, DELETE, OPTIONS, PATCH, TRACE";
            headers.insert(header::ALLOW, HeaderValue::from_static(methods));
        }
        Self { reason, status: reason.status(), headers }
    }
}

/// Whether a request is gRPC, whose callers read the status in trailers.
pub(crate) fn is_grpc(headers: &HeaderMap) -> bool {
    let Some(kind) = headers.get(header::CONTENT_TYPE) else { return false };
    match kind.as_bytes().strip_prefix(b"application/grpc") {
        Some(rest) => matches!(rest.first(), None | Some(b'+' | b';' | b' ')),
        None => false,
    }
}

impl LocalAnswer {
    /// The response, in the form that the caller understands.
    pub(crate) fn into_response(self, grpc: bool) -> Response<Body> {
        let mut response = if grpc { trailers_only(self.reason) } else { plain(self.reason, self.status) };
        response.headers_mut().extend(self.headers);
        response.headers_mut().insert(REASON, HeaderValue::from_static(self.reason.code()));
        response
    }
}

fn plain(reason: Reason, status: StatusCode) -> Response<Body> {
    let text = text(reason);
    let length = HeaderValue::from(text.len());
    let mut response = Response::new(Body::full(Bytes::from(text)));
    *response.status_mut() = status;
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("text/plain; charset=utf-8"));
    headers.insert(header::CONTENT_LENGTH, length);
    response
}

/// A gRPC answer without messages: its trailers are its head.
fn trailers_only(reason: Reason) -> Response<Body> {
    let mut response = Response::new(Body::empty());
    *response.status_mut() = StatusCode::OK;
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/grpc"));
    headers.insert("grpc-status", HeaderValue::from(u16::from(reason.grpc())));
    headers.insert("grpc-message", HeaderValue::from_static(reason.explanation()));
    response
}

/// The body of a plain answer.
fn text(reason: Reason) -> String {
    format!("maesh: {}: {}\n", reason.code(), reason.explanation())
}

/// A whole HTTP/1.1 answer as bytes, after which the connection is closed: for connections on which no request could
/// be read.
pub(crate) fn final_response(reason: Reason) -> Vec<u8> {
    let (status, text) = (reason.status(), text(reason));
    let mut answer = String::with_capacity(256);
    // Writing to a String cannot fail.
    let _ = write!(
        answer,
        "HTTP/1.1 {} {}\r\n{REASON}: {}\r\ncontent-type: text/plain; charset=utf-8\r\ncontent-length: {}\r\n\
         connection: close\r\n\r\n{text}",
        status.as_u16(),
        status.canonical_reason().unwrap_or_default(),
        reason.code(),
        text.len(),
    );
    answer.into_bytes()
}
