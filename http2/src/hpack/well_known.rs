//! Names and values that are often in a table, and that HTTP's own table does not have.
//!
//! Each request clones the fields that its block refers to, and drops them later. For a text that is part of the program
//! this is a copy; for any other one it is two atomic operations, which is most of what an indexed field costs.

use http::{HeaderName, HeaderValue};

const NAMES: [&str; 13] = [
    "baggage",
    "grpc-accept-encoding",
    "grpc-encoding",
    "grpc-message",
    "grpc-status",
    "grpc-timeout",
    "priority",
    "traceparent",
    "tracestate",
    "x-forwarded-for",
    "x-forwarded-host",
    "x-forwarded-proto",
    "x-request-id",
];

const VALUES: [&str; 18] = [
    "",
    "*/*",
    "0",
    "1",
    "application/grpc",
    "application/grpc+proto",
    "application/json",
    "application/octet-stream",
    "bytes",
    "deflate, gzip",
    "gzip",
    "gzip, deflate, br",
    "http",
    "https",
    "identity",
    "no-cache",
    "text/plain; charset=utf-8",
    "trailers",
];

pub(super) fn name(name: &[u8]) -> Option<HeaderName> {
    NAMES.into_iter().find(|known| known.as_bytes() == name).map(HeaderName::from_static)
}

pub(super) fn value(value: &[u8]) -> Option<HeaderValue> {
    VALUES.into_iter().find(|known| known.as_bytes() == value).map(HeaderValue::from_static)
}
