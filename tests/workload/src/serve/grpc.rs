//! gRPC: a unary call and a stream of the server, with trailers. Messages are `google.protobuf.StringValue`, so that no
//! generated code is needed.

use std::net::SocketAddr;

use bytes::{BufMut, Bytes, BytesMut};
use futures_util::stream;
use http::{HeaderMap, HeaderValue, Request, Response, header};
use http_body_util::{BodyExt, StreamBody};
use hyper::body::{Frame, Incoming};
use prost::Message;

use super::http::{Body, told};

/// Answers with what is seen of the call.
pub(crate) const SAY: &str = "/maesh.test.Echo/Say";
/// The same as often as the message says.
pub(crate) const COUNT: &str = "/maesh.test.Echo/Count";

/// gRPC's code for a method that does not exist.
const UNIMPLEMENTED: &str = "12";

/// A message with the prefix that gRPC puts before each.
pub(crate) fn frame(text: &str) -> Bytes {
    let text = text.to_owned();
    let length = text.encoded_len();
    let mut bytes = BytesMut::with_capacity(length + 5);
    bytes.put_u8(0);
    bytes.put_u32(length as u32);
    // The buffer grows as needed, which is all that could fail.
    let _ = text.encode(&mut bytes);
    bytes.freeze()
}

/// The messages in `bytes`; `None` when they are cut or compressed.
pub(crate) fn messages(mut bytes: &[u8]) -> Option<Vec<String>> {
    let mut found = Vec::new();
    while let [0, a, b, c, d, rest @ ..] = bytes {
        let length = u32::from_be_bytes([*a, *b, *c, *d]) as usize;
        found.push(String::decode(rest.get(..length)?).ok()?);
        bytes = rest.get(length..)?;
    }
    bytes.is_empty().then_some(found)
}

pub(super) async fn answer(request: Request<Incoming>, from: SocketAddr) -> Result<Response<Body>, hyper::Error> {
    let (told, path) = (told(&request, from).to_string(), request.uri().path().to_owned());
    let body = request.into_body().collect().await?.to_bytes();
    let message = messages(&body).and_then(|messages| messages.into_iter().next()).unwrap_or_default();
    let count = match path.as_str() {
        SAY => Some(1),
        COUNT => Some(message.parse::<u16>().unwrap_or(1)),
        _ => None,
    };
    let Some(count) = count else {
        let mut refused = Response::new(super::http::full(""));
        refused.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("application/grpc"));
        refused.headers_mut().insert("grpc-status", HeaderValue::from_static(UNIMPLEMENTED));
        return Ok(refused);
    };
    let mut trailers = HeaderMap::new();
    trailers.insert("grpc-status", HeaderValue::from_static("0"));
    trailers.insert("echo-count", HeaderValue::from(count));
    let frames = (0..count).map(move |_| Frame::data(frame(&told))).chain([Frame::trailers(trailers)]);
    let mut response = Response::new(StreamBody::new(stream::iter(frames.map(Ok))).boxed_unsync());
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("application/grpc"));
    Ok(response)
}
