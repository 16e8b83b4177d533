//! HTTP/1.1 and HTTP/2: one answer for every path, and a few paths that take their time.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::net::SocketAddr;
use std::time::Duration;

use bytes::Bytes;
use futures_util::stream;
use http::{Request, Response, StatusCode, Version, header};
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt, Full, StreamBody};
use hyper::body::{Frame, Incoming};
use serde_json::{Value, json};

use super::{grpc, websocket};
use crate::seen::seen;

/// Body of an answer.
pub(super) type Body = UnsyncBoxBody<Bytes, Infallible>;

/// Answers one request, with `always` as its status if there is one. `/stream/N` takes N seconds for as many lines, `/wait/N` N milliseconds, `/status/N` has that
/// status; gRPC and WebSocket are known by their headers, and every other path is answered at once.
pub(super) async fn answer(
    request: Request<Incoming>,
    from: SocketAddr,
    always: Option<u16>,
) -> Result<Response<Body>, hyper::Error> {
    let content_type = request.headers().get(header::CONTENT_TYPE).map_or(&b""[..], |value| value.as_bytes());
    if content_type.starts_with(b"application/grpc") {
        return grpc::answer(request, from).await;
    }
    if request.headers().contains_key(header::SEC_WEBSOCKET_KEY) {
        return Ok(websocket::answer(request, from));
    }
    let text = format!("{}\n", told(&request, from));
    let path = request.uri().path().to_owned();
    let mut words = path.split('/').skip(1);
    let (what, number) = (words.next(), words.next().and_then(|word| word.parse::<u16>().ok()).unwrap_or(0));
    // A request that is read to its end leaves its connection usable.
    request.into_body().collect().await?;
    let mut status = StatusCode::OK;
    let body = match what {
        Some("stream") => lines(text, number),
        Some("wait") => {
            tokio::time::sleep(Duration::from_millis(number.into())).await;
            full(text)
        }
        Some("status") => {
            status = StatusCode::from_u16(number).unwrap_or(StatusCode::BAD_REQUEST);
            full(text)
        }
        _ => full(text),
    };
    let mut response = Response::new(body);
    *response.status_mut() = always.and_then(|status| StatusCode::from_u16(status).ok()).unwrap_or(status);
    response.headers_mut().insert(header::CONTENT_TYPE, header::HeaderValue::from_static("application/json"));
    Ok(response)
}

/// What is seen of the caller and the request.
pub(super) fn told<B>(request: &Request<B>, from: SocketAddr) -> Value {
    let headers: BTreeMap<_, _> = request
        .headers()
        .iter()
        .map(|(name, value)| (name.as_str(), String::from_utf8_lossy(value.as_bytes()).into_owned()))
        .collect();
    let mut told = json!(seen(from));
    told["method"] = json!(request.method().as_str());
    told["path"] = json!(request.uri().path_and_query().map(ToString::to_string));
    told["authority"] = json!(request.uri().authority().map(ToString::to_string));
    told["protocol"] = json!(if request.version() == Version::HTTP_2 { "HTTP/2" } else { "HTTP/1.1" });
    told["headers"] = json!(headers);
    told
}

pub(super) fn full(text: impl Into<Bytes>) -> Body {
    Full::new(text.into()).boxed_unsync()
}

/// `line`, `count` times, a second apart.
fn lines(line: String, count: u16) -> Body {
    let lines = stream::unfold((line, 0), move |(line, index)| async move {
        if index == count {
            return None;
        }
        if index > 0 {
            tokio::time::sleep(Duration::from_secs(1)).await;
        }
        Some((Ok(Frame::data(Bytes::from(line.clone()))), (line, index + 1)))
    });
    StreamBody::new(lines).boxed_unsync()
}
