//! The text of one line. What peers wrote is bounded and escaped, so that it can neither end a line nor a value.

use std::fmt::Write as _;

use jiff::Timestamp;

use super::{AccessRecord, RequestRecord};
use crate::{config::AccessLogForm, reason::Reason};

/// Adds the line of `record`, with its end.
pub(super) fn write(out: &mut String, record: &AccessRecord, form: AccessLogForm) {
    match form {
        AccessLogForm::Json => json(out, record),
        AccessLogForm::Common => common(out, record),
    }
    out.push('\n');
}

/// One object. Its names are stable; what does not apply is left out. Writing to a String cannot fail.
fn json(out: &mut String, record: &AccessRecord) {
    let time = time(record);
    let _ = write!(out, "{{\"event\":\"access\",\"time\":\"{}\"", time.strftime("%Y-%m-%dT%H:%M:%S%.3fZ"));
    let protocol = record.request.as_ref().map_or("TCP", RequestRecord::protocol);
    let _ = write!(out, ",\"protocol\":\"{protocol}\",\"caller\":\"{}\"", record.caller);
    if let Some(RequestRecord { details, .. }) = &record.request {
        for (name, text) in [
            ("method", &details.method),
            ("host", &details.host),
            ("path", &details.path),
            ("userAgent", &details.user_agent),
        ] {
            if !text.is_empty() {
                let _ = write!(out, ",\"{name}\":\"");
                escape_json(out, text);
                out.push('"');
            }
        }
    }
    if let Some(trace) = record.request.as_ref().and_then(|request| request.details.trace.as_ref()) {
        let _ = write!(out, ",\"traceId\":\"{:032x}\"", trace.id());
    }
    if let Some((service, port)) = &record.called {
        let _ = write!(out, ",\"service\":\"{service}\",\"port\":{port}");
    }
    if let Some(backend) = &record.backend {
        let _ = write!(out, ",\"backend\":\"{backend}\"");
    }
    if let Some(endpoint) = &record.endpoint {
        let _ = write!(out, ",\"endpoint\":\"{endpoint}\"");
    }
    if let Some(RequestRecord { status, grpc_status, attempts, .. }) = &record.request {
        let _ = write!(out, ",\"status\":{}", status.as_u16());
        if let Some(status) = grpc_status {
            let _ = write!(out, ",\"grpcStatus\":{status}");
        }
        let _ = write!(out, ",\"attempts\":{attempts}");
    }
    if let Some(reason) = record.reason {
        let _ = write!(out, ",\"reason\":\"{}\"", reason.code());
    }
    let millis = record.took.as_secs_f64() * 1e3;
    let _ = write!(out, ",\"received\":{},\"sent\":{},\"durationMs\":{millis:.3}}}", record.received, record.sent);
}

/// The common log format, with the fields behind it that Traefik adds to it: what the caller is, which Service was called,
/// where it went, how long it took; and the reason.
fn common(out: &mut String, record: &AccessRecord) {
    let _ = write!(out, "{} - - [{}] \"", record.caller, time(record).strftime("%d/%b/%Y:%H:%M:%S +0000"));
    match &record.request {
        Some(request) => {
            escape_quoted(out, &request.details.method);
            out.push(' ');
            escape_quoted(out, &request.details.path);
            let _ = write!(out, " {}\" {} {} \"-\" \"", request.protocol(), request.status.as_u16(), record.sent);
            escape_quoted(out, if request.details.user_agent.is_empty() { "-" } else { &request.details.user_agent });
        }
        None => {
            let _ = write!(out, "TCP\" - {} \"-\" \"-", record.sent);
        }
    }
    out.push_str("\" \"");
    match &record.called {
        Some((service, port)) => drop(write!(out, "{service}:{port}")),
        None => out.push('-'),
    }
    out.push_str("\" \"");
    match &record.endpoint {
        Some(endpoint) => drop(write!(out, "{endpoint}")),
        None => out.push('-'),
    }
    let reason = record.reason.map_or("-", Reason::code);
    let _ = write!(out, "\" {}ms {reason}", record.took.as_millis());
}

impl RequestRecord {
    fn protocol(&self) -> &'static str {
        if self.http2 { "HTTP/2.0" } else { "HTTP/1.1" }
    }
}

fn time(record: &AccessRecord) -> Timestamp {
    Timestamp::try_from(record.began).unwrap_or_default()
}

/// Text inside a string of JSON (RFC 8259 section 7). What a terminal acts on is escaped too.
fn escape_json(out: &mut String, text: &str) {
    for letter in text.chars() {
        match letter {
            '"' => out.push_str("\\\""),
            '\\' => out.push_str("\\\\"),
            letter if letter.is_control() => drop(write!(out, "\\u{:04x}", u32::from(letter))),
            letter => out.push(letter),
        }
    }
}

/// Text between quotes, as web servers write it: what is not printable ASCII is `\xHH`, byte by byte.
fn escape_quoted(out: &mut String, text: &str) {
    for byte in text.bytes() {
        match byte {
            b'"' | b'\\' => out.extend(['\\', char::from(byte)]),
            b' '..=b'~' => out.push(char::from(byte)),
            byte => drop(write!(out, "\\x{byte:02x}")),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, SystemTime};

    use http::StatusCode;
    use maesh_config::ServiceName;

    use super::*;
    use crate::telemetry::RequestDetails;

    fn record() -> AccessRecord {
        AccessRecord {
            caller: [10, 0, 0, 1].into(),
            called: Some((ServiceName::new("shop", "web"), 8080)),
            backend: Some(ServiceName::new("shop", "web-v2")),
            endpoint: Some(([10, 0, 0, 9], 80).into()),
            reason: None,
            received: 5,
            sent: 7,
            began: SystemTime::UNIX_EPOCH + Duration::from_millis(1_500),
            took: Duration::from_micros(1_250),
            request: Some(RequestRecord {
                details: Box::new(RequestDetails {
                    method: "GET".into(),
                    path: "/a?\"b\\\u{7}ü".into(),
                    host: "web.shop".into(),
                    user_agent: "curl/8".into(),
                    logged: true,
                    trace: None,
                }),
                http2: false,
                status: StatusCode::OK,
                grpc_status: None,
                attempts: 2,
            }),
        }
    }

    fn written(record: &AccessRecord, form: AccessLogForm) -> String {
        let mut text = String::new();
        write(&mut text, record, form);
        text
    }

    #[test]
    fn a_request() {
        assert_eq!(
            written(&record(), AccessLogForm::Json),
            "{\"event\":\"access\",\"time\":\"1970-01-01T00:00:01.500Z\",\"protocol\":\"HTTP/1.1\",\"caller\":\"10.0.0.1\",\
             \"method\":\"GET\",\"host\":\"web.shop\",\"path\":\"/a?\\\"b\\\\\\u0007ü\",\"userAgent\":\"curl/8\",\
             \"service\":\"shop/web\",\"port\":8080,\"backend\":\"shop/web-v2\",\"endpoint\":\"10.0.0.9:80\",\"status\":200,\
             \"attempts\":2,\"received\":5,\"sent\":7,\"durationMs\":1.250}\n"
        );
        assert_eq!(
            written(&record(), AccessLogForm::Common),
            "10.0.0.1 - - [01/Jan/1970:00:00:01 +0000] \"GET /a?\\\"b\\\\\\x07\\xc3\\xbc HTTP/1.1\" 200 7 \"-\" \"curl/8\" \
             \"shop/web:8080\" \"10.0.0.9:80\" 1ms -\n"
        );
    }

    #[test]
    fn a_connection_that_was_refused() {
        let refused = AccessRecord {
            request: None,
            backend: None,
            endpoint: None,
            reason: Some(Reason::NoEndpoints),
            sent: 0,
            ..record()
        };
        assert_eq!(
            written(&refused, AccessLogForm::Json),
            "{\"event\":\"access\",\"time\":\"1970-01-01T00:00:01.500Z\",\"protocol\":\"TCP\",\"caller\":\"10.0.0.1\",\
             \"service\":\"shop/web\",\"port\":8080,\"reason\":\"no_endpoints\",\"received\":5,\"sent\":0,\"durationMs\":1.250}\n"
        );
        assert_eq!(
            written(&refused, AccessLogForm::Common),
            "10.0.0.1 - - [01/Jan/1970:00:00:01 +0000] \"TCP\" - 0 \"-\" \"-\" \"shop/web:8080\" \"-\" 1ms no_endpoints\n"
        );
    }
}
