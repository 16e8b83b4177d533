//! The messages of OTLP that a proxy sends: the stable part of `opentelemetry.proto.trace.v1`, version 1.
//!
//! Only what is written here is declared: the crates of OpenTelemetry bring an SDK along.

use std::time::{SystemTime, UNIX_EPOCH};

use super::{Span, SpanKind, Value};

/// The flags of a span: recorded, and it is known whether its parent is in another process.
const FLAGS: u32 = 0x101;
/// Its parent is.
const REMOTE: u32 = 0x200;

#[derive(Clone, PartialEq, prost::Message)]
pub(super) struct ExportRequest {
    #[prost(message, repeated, tag = "1")]
    resource_spans: Vec<ResourceSpans>,
}

#[derive(Clone, PartialEq, prost::Message)]
struct ResourceSpans {
    #[prost(message, optional, tag = "1")]
    resource: Option<Resource>,
    #[prost(message, repeated, tag = "2")]
    scope_spans: Vec<ScopeSpans>,
}

#[derive(Clone, PartialEq, prost::Message)]
struct Resource {
    #[prost(message, repeated, tag = "1")]
    attributes: Vec<KeyValue>,
}

#[derive(Clone, PartialEq, prost::Message)]
struct ScopeSpans {
    #[prost(message, optional, tag = "1")]
    scope: Option<Scope>,
    #[prost(message, repeated, tag = "2")]
    spans: Vec<SpanMessage>,
}

#[derive(Clone, PartialEq, prost::Message)]
struct Scope {
    #[prost(string, tag = "1")]
    name: String,
    #[prost(string, tag = "2")]
    version: String,
}

#[derive(Clone, PartialEq, prost::Message)]
struct SpanMessage {
    #[prost(bytes = "vec", tag = "1")]
    trace_id: Vec<u8>,
    #[prost(bytes = "vec", tag = "2")]
    span_id: Vec<u8>,
    #[prost(string, tag = "3")]
    trace_state: String,
    #[prost(bytes = "vec", tag = "4")]
    parent_span_id: Vec<u8>,
    #[prost(string, tag = "5")]
    name: String,
    /// 2 server, 3 client.
    #[prost(int32, tag = "6")]
    kind: i32,
    #[prost(fixed64, tag = "7")]
    start_time_unix_nano: u64,
    #[prost(fixed64, tag = "8")]
    end_time_unix_nano: u64,
    #[prost(message, repeated, tag = "9")]
    attributes: Vec<KeyValue>,
    #[prost(message, optional, tag = "15")]
    status: Option<Status>,
    #[prost(fixed32, tag = "16")]
    flags: u32,
}

#[derive(Clone, PartialEq, prost::Message)]
struct Status {
    /// 2 is an error.
    #[prost(int32, tag = "3")]
    code: i32,
}

#[derive(Clone, PartialEq, prost::Message)]
struct KeyValue {
    #[prost(string, tag = "1")]
    key: String,
    #[prost(message, optional, tag = "2")]
    value: Option<AnyValue>,
}

#[derive(Clone, PartialEq, prost::Message)]
struct AnyValue {
    #[prost(oneof = "OneValue", tags = "1, 3")]
    value: Option<OneValue>,
}

#[derive(Clone, PartialEq, prost::Oneof)]
enum OneValue {
    #[prost(string, tag = "1")]
    Text(String),
    #[prost(int64, tag = "3")]
    Number(i64),
}

/// What a receiver answers.
#[derive(Clone, PartialEq, prost::Message)]
pub(super) struct ExportResponse {
    #[prost(message, optional, tag = "1")]
    pub(super) partial_success: Option<PartialSuccess>,
}

#[derive(Clone, PartialEq, prost::Message)]
pub(super) struct PartialSuccess {
    #[prost(int64, tag = "1")]
    pub(super) rejected_spans: i64,
    #[prost(string, tag = "2")]
    pub(super) error_message: String,
}

/// A request with these spans of a proxy on `node`.
pub(super) fn request(node: Option<&str>, spans: Vec<Span>) -> ExportRequest {
    let (name, version) = ("maesh-proxy", env!("CARGO_PKG_VERSION"));
    let mut attributes = vec![attribute("service.name", name), attribute("service.version", version)];
    attributes.extend(node.map(|node| attribute("k8s.node.name", node)));
    let scope = Scope { name: name.to_owned(), version: version.to_owned() };
    let spans = spans.into_iter().map(SpanMessage::from).collect();
    ExportRequest {
        resource_spans: vec![ResourceSpans {
            resource: Some(Resource { attributes }),
            scope_spans: vec![ScopeSpans { scope: Some(scope), spans }],
        }],
    }
}

fn attribute(key: &str, text: &str) -> KeyValue {
    key_value(key, Value::Text(text.into()))
}

fn key_value(key: &str, value: Value) -> KeyValue {
    let value = match value {
        Value::Text(text) => OneValue::Text(text.into()),
        Value::Word(word) => OneValue::Text(word.to_owned()),
        Value::Number(number) => OneValue::Number(number),
    };
    KeyValue { key: key.to_owned(), value: Some(AnyValue { value: Some(value) }) }
}

impl From<Span> for SpanMessage {
    fn from(span: Span) -> Self {
        let (kind, remote) = match span.kind {
            SpanKind::Server => (2, if span.parent.is_some() { REMOTE } else { 0 }),
            SpanKind::Client => (3, 0),
        };
        Self {
            trace_id: span.trace_id.to_be_bytes().to_vec(),
            span_id: span.id.to_be_bytes().to_vec(),
            trace_state: span.state.into(),
            parent_span_id: span.parent.map_or_else(Vec::new, |parent| parent.to_be_bytes().to_vec()),
            name: span.name.to_owned(),
            kind,
            start_time_unix_nano: nanoseconds(span.began),
            end_time_unix_nano: nanoseconds(span.ended),
            attributes: span.attributes.into_iter().map(|(key, value)| key_value(key, value)).collect(),
            status: span.failed.then_some(Status { code: 2 }),
            flags: FLAGS | remote,
        }
    }
}

fn nanoseconds(time: SystemTime) -> u64 {
    time.duration_since(UNIX_EPOCH).map_or(0, |since| u64::try_from(since.as_nanos()).unwrap_or(u64::MAX))
}
