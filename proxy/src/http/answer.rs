//! Answers that the mesh makes by itself.

use std::fmt::Write as _;

use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, Response, StatusCode, header};

use super::body::Body;
use crate::fields::{Present, Sought};
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

/// The form of an answer that a caller understands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum AnswerForm {
    /// gRPC: the status is in the trailers.
    Grpc,
    /// The request accepts JSON.
    Json,
    /// A line for people.
    Text,
}

impl AnswerForm {
    /// What the fields of a request ask for.
    pub(crate) fn of(headers: &HeaderMap, present: Present) -> Self {
        if present.has(Sought::ContentType) && is_grpc(headers) {
            return Self::Grpc;
        }
        if !present.has(Sought::Accept) {
            return Self::Text;
        }
        let json = |value: &HeaderValue| {
            let kinds = value.as_bytes().split(|byte| *byte == b',').map(<[u8]>::trim_ascii);
            let name = |kind: &[u8]| kind.split(|byte| *byte == b';').next().unwrap_or_default().trim_ascii().to_vec();
            kinds.map(name).any(|name| name.eq_ignore_ascii_case(b"application/json") || name.ends_with(b"+json"))
        };
        if headers.get(header::ACCEPT).is_some_and(json) { Self::Json } else { Self::Text }
    }
}

/// Whether a request is gRPC.
fn is_grpc(headers: &HeaderMap) -> bool {
    let Some(kind) = headers.get(header::CONTENT_TYPE) else { return false };
    match kind.as_bytes().strip_prefix(b"application/grpc") {
        Some(rest) => matches!(rest.first(), None | Some(b'+' | b';' | b' ')),
        None => false,
    }
}

impl LocalAnswer {
    /// The response, in the form that the caller understands.
    pub(crate) fn into_response(self, form: AnswerForm) -> Response<Body> {
        let mut response = match form {
            AnswerForm::Grpc => trailers_only(self.reason),
            AnswerForm::Json => with_body(self.status, "application/json", json(self.reason, self.status)),
            AnswerForm::Text => with_body(self.status, "text/plain; charset=utf-8", text(self.reason)),
        };
        response.headers_mut().extend(self.headers);
        response.headers_mut().insert(REASON, HeaderValue::from_static(self.reason.code()));
        response
    }
}

fn with_body(status: StatusCode, kind: &'static str, text: String) -> Response<Body> {
    let length = HeaderValue::from(text.len());
    let mut response = Response::new(Body::full(Bytes::from(text)));
    *response.status_mut() = status;
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(kind));
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

/// The body of an answer for programs.
fn json(reason: Reason, status: StatusCode) -> String {
    // Neither has a character that JSON escapes.
    let (code, message) = (reason.code(), reason.explanation());
    format!("{{\"status\":{},\"reason\":\"{code}\",\"message\":\"{message}\"}}\n", status.as_u16())
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

#[cfg(test)]
mod tests {
    use super::*;

    fn form(fields: &HeaderMap) -> AnswerForm {
        AnswerForm::of(fields, Present::of(fields))
    }

    #[test]
    fn the_form_follows_the_request() {
        let fields =
            |name: HeaderName, value: &'static str| HeaderMap::from_iter([(name, HeaderValue::from_static(value))]);
        for (name, value, want) in [
            (header::ACCEPT, "application/json", AnswerForm::Json),
            (header::ACCEPT, "text/html, Application/JSON;q=0.9", AnswerForm::Json),
            (header::ACCEPT, "application/problem+json", AnswerForm::Json),
            (header::ACCEPT, "*/*", AnswerForm::Text),
            (header::ACCEPT, "application/jsonp", AnswerForm::Text),
            (header::CONTENT_TYPE, "application/json", AnswerForm::Text),
            (header::CONTENT_TYPE, "application/grpc+proto", AnswerForm::Grpc),
            (header::CONTENT_TYPE, "application/grpc-web", AnswerForm::Text),
        ] {
            assert_eq!(form(&fields(name.clone(), value)), want, "{name}: {value}");
        }
        assert_eq!(form(&HeaderMap::new()), AnswerForm::Text);
    }

    #[test]
    fn no_text_of_ours_needs_escapes_in_json() {
        let text = json(Reason::Overloaded, StatusCode::SERVICE_UNAVAILABLE);
        assert!(text.starts_with("{\"status\":503,\"reason\":\"overloaded\",\"message\":\""), "{text}");
    }
}
