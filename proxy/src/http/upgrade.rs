//! Requests to leave HTTP: WebSocket and other upgrades, from HTTP/1.1 and from extended CONNECT (RFC 8441).
//!
//! The upgrade is made end to end: the endpoint agrees first, then the caller hears of it, then bytes are carried by the
//! [`tunnel`], which counts as a request in flight and as a connection until it ends.

mod frames;
mod sides;
mod tunnel;

use std::time::Duration;

use http::{HeaderMap, HeaderName, HeaderValue, Method, Response, StatusCode, header};
use maesh_http2::Protocol;
use sha1::{Digest, Sha1};

pub(crate) use self::{
    sides::{CallerSide, StreamSide},
    tunnel::Tunnel,
};
use super::{body::Body, headers, request::ProxiedRequest};
use crate::{fields::Sought, reason::Reason, upstream::Upgraded};

const WEBSOCKET: HeaderValue = HeaderValue::from_static("websocket");
const UPGRADE: HeaderValue = HeaderValue::from_static("upgrade");
const SEC_WEBSOCKET_KEY: HeaderName = HeaderName::from_static("sec-websocket-key");
const SEC_WEBSOCKET_ACCEPT: HeaderName = HeaderName::from_static("sec-websocket-accept");

/// What a server appends to the key of a handshake (RFC 6455 section 1.3).
const WEBSOCKET_GUID: &str = "258EAFA5-E914-47DA-95CA-C5AB0DC85B11";

/// A caller's wish to leave HTTP.
pub(crate) struct UpgradeRequest {
    /// What to speak: the caller's own word.
    protocol: HeaderValue,
    /// The caller asked by extended CONNECT.
    extended: bool,
    /// What proves to a caller of HTTP/1.1 that its WebSocket was understood, where the endpoint speaks HTTP/2 and does not say it.
    accept: Option<HeaderValue>,
}

/// The wish to leave HTTP of a request, if it has one that can be passed on to an endpoint of this protocol.
pub(crate) fn wanted(
    ProxiedRequest { head, present, .. }: &ProxiedRequest,
    to_http2: bool,
    from_http2: bool,
) -> Result<Option<UpgradeRequest>, Reason> {
    if from_http2 {
        // Which protocols it may ask for was checked before.
        let asks = head.extensions.get::<Protocol>().is_some();
        return Ok(asks.then_some(UpgradeRequest { protocol: WEBSOCKET, extended: true, accept: None }));
    }
    let asks = present.has(Sought::Upgrade) && headers::has_token(&head.headers, &header::CONNECTION, "upgrade");
    // HTTP/1.0 knows no upgrade (RFC 9110 section 7.8).
    if !asks || head.version != http::Version::HTTP_11 {
        return Ok(None);
    }
    let Some(protocol) = protocols(&head.headers)? else { return Ok(None) };
    let mut wanted = UpgradeRequest { protocol, extended: false, accept: None };
    if to_http2 {
        // Nothing else can be asked for there.
        if head.method != Method::GET || !wanted.is_websocket() {
            return Ok(None);
        }
        wanted.accept = Some(accept(head.headers.get(SEC_WEBSOCKET_KEY))?);
    }
    Ok(Some(wanted))
}

/// The answer to the key of a WebSocket handshake (RFC 6455 section 4.2.2).
fn accept(key: Option<&HeaderValue>) -> Result<HeaderValue, Reason> {
    let key = key.ok_or(Reason::BadRequest)?;
    let mut hash = Sha1::new();
    hash.update(key.as_bytes());
    hash.update(WEBSOCKET_GUID);
    HeaderValue::from_str(&base64(&hash.finalize())).map_err(|_| Reason::BadRequest)
}

/// The protocols that a request would leave HTTP for, without those that are HTTP again: the endpoint would get requests that
/// the proxy does not see. A request that asks for nothing else is served as it is (RFC 9113 section 3.1).
fn protocols(headers: &HeaderMap) -> Result<Option<HeaderValue>, Reason> {
    let mut passed: Vec<&[u8]> = Vec::new();
    for value in headers.get_all(header::UPGRADE) {
        let words = value.as_bytes().split(|byte| *byte == b',').map(<[u8]>::trim_ascii);
        for word in words.filter(|word| !word.is_empty()) {
            if !is_protocol(word) {
                return Err(Reason::BadRequest);
            }
            if !is_http(word) {
                passed.push(word);
            }
        }
    }
    if passed.is_empty() {
        return Ok(None);
    }
    HeaderValue::from_bytes(&passed.join(&b", "[..])).map(Some).map_err(|_| Reason::BadRequest)
}

/// Whether this names a protocol: a token, or two with a slash between (RFC 9110 section 7.8).
pub(crate) fn is_protocol(word: &[u8]) -> bool {
    word.splitn(2, |byte| *byte == b'/').all(|part| HeaderName::from_bytes(part).is_ok())
}

/// Whether this protocol is a version of HTTP.
fn is_http(protocol: &[u8]) -> bool {
    let name = protocol.split(|byte| *byte == b'/').next().unwrap_or_default();
    [&b"h2c"[..], b"h2", b"http"].iter().any(|http| name.eq_ignore_ascii_case(http))
}

impl UpgradeRequest {
    /// The caller asked by extended CONNECT.
    pub(super) fn is_extended(&self) -> bool {
        self.extended
    }

    /// The protocol asked for is WebSocket.
    pub(crate) fn is_websocket(&self) -> bool {
        self.protocol.as_bytes().eq_ignore_ascii_case(b"websocket")
    }

    /// Asks the endpoint for the same, in the form that its protocol has for it.
    pub(crate) fn apply(&self, request: &mut ProxiedRequest, to_http2: bool) {
        let head = &mut request.head;
        if to_http2 {
            if !self.extended {
                head.method = Method::CONNECT;
                head.extensions.insert(Protocol::new(&b"websocket"[..]));
                head.headers.remove(SEC_WEBSOCKET_KEY);
                request.body.clear();
            }
            return;
        }
        if self.extended {
            head.method = Method::GET;
            head.extensions.remove::<Protocol>();
            let key = rand::random::<[u8; 16]>();
            let key = HeaderValue::from_str(&base64(&key)).unwrap_or(HeaderValue::from_static(""));
            head.headers.insert(SEC_WEBSOCKET_KEY, key);
            // DATA of an extended CONNECT belongs to the new protocol. A request of HTTP/1.1 keeps its body.
            request.body.clear();
        }
        head.headers.insert(header::CONNECTION, UPGRADE);
        head.headers.insert(header::UPGRADE, self.protocol.clone());
    }

    /// The endpoint agreed, to the protocol that it `chose`; over HTTP/2 it chooses none: gives the response the form that the caller
    /// understands.
    pub(crate) fn agreed(
        self,
        response: &mut Response<Body>,
        chose: Option<HeaderValue>,
        endpoint: Upgraded,
        idle: Option<Duration>,
    ) -> Result<Tunnel, Reason> {
        // Over HTTP/2 the endpoint agreed to what it was asked for.
        let chose = chose.or_else(|| self.accept.is_some().then_some(WEBSOCKET));
        if chose.as_ref().is_some_and(|protocol| is_http(protocol.as_bytes())) {
            return Err(Reason::UpstreamProtocol);
        }
        let websocket = self.is_websocket();
        if self.extended {
            *response.status_mut() = StatusCode::OK;
            response.headers_mut().remove(SEC_WEBSOCKET_ACCEPT);
        } else {
            response.headers_mut().insert(header::CONNECTION, UPGRADE);
            response.headers_mut().insert(header::UPGRADE, chose.ok_or(Reason::UpstreamProtocol)?);
            if let Some(accept) = self.accept {
                *response.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
                response.headers_mut().insert(SEC_WEBSOCKET_ACCEPT, accept);
                response.headers_mut().remove(header::CONTENT_LENGTH);
            }
        }
        Ok(Tunnel::new(endpoint, websocket, idle))
    }
}

/// Base64 (RFC 4648 section 4), for the key of a WebSocket handshake.
fn base64(bytes: &[u8]) -> String {
    const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut text = String::with_capacity(bytes.len().div_ceil(3) * 4);
    for chunk in bytes.chunks(3) {
        let mut word = [0; 4];
        word[1..=chunk.len()].copy_from_slice(chunk);
        let word = u32::from_be_bytes(word);
        for place in 0..4 {
            if place <= chunk.len() {
                text.push(char::from(ALPHABET[(word >> (18 - 6 * place)) as usize & 63]));
            } else {
                text.push('=');
            }
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::{accept, base64};

    /// The example of RFC 6455 section 1.3.
    #[test]
    fn the_answer_to_a_key() {
        let key = HeaderValue::from_static("dGhlIHNhbXBsZSBub25jZQ==");
        assert_eq!(accept(Some(&key)).expect("an answer"), "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=");
        assert!(accept(None).is_err());
    }

    #[test]
    fn base64_of_the_rfc() {
        for (plain, want) in
            [("", ""), ("f", "Zg=="), ("fo", "Zm8="), ("foo", "Zm9v"), ("foob", "Zm9vYg=="), ("foobar", "Zm9vYmFy")]
        {
            assert_eq!(base64(plain.as_bytes()), want);
        }
    }
}
