//! Connections that leave HTTP: WebSocket and other upgrades, from HTTP/1.1 and from extended CONNECT (RFC 8441).
//!
//! The upgrade is made end to end: the endpoint agrees first, then the caller hears of it, then bytes are carried. A
//! drain ends a WebSocket as WebSocket does, with close code 1001, and between two frames.

use std::{io, sync::Arc, time::Duration};

use bytes::BytesMut;
use http::{HeaderName, HeaderValue, Method, Request, Response, StatusCode, header};
use hyper::{body::Incoming, ext::Protocol as Extended, upgrade::OnUpgrade};
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};

use super::{body::Body, caller::Caller, headers, send::Outgoing};
use crate::{reason::Reason, upstream::Upgraded};

mod frames;

const WEBSOCKET: HeaderValue = HeaderValue::from_static("websocket");
const UPGRADE: HeaderValue = HeaderValue::from_static("upgrade");
const SEC_WEBSOCKET_KEY: HeaderName = HeaderName::from_static("sec-websocket-key");
const SEC_WEBSOCKET_ACCEPT: HeaderName = HeaderName::from_static("sec-websocket-accept");

/// Bytes read at once from either side.
const BUFFER: usize = 16 * 1024;

/// A request to leave HTTP.
pub(crate) struct Handover {
    caller: OnUpgrade,
    /// What to speak: the caller's own word.
    protocol: HeaderValue,
    /// The caller asked by extended CONNECT.
    extended: bool,
}

impl Handover {
    /// The protocol asked for is WebSocket.
    pub(crate) fn is_websocket(&self) -> bool {
        self.protocol.as_bytes().eq_ignore_ascii_case(b"websocket")
    }

    /// Asks the endpoint for the same, in the form that its protocol has for it.
    pub(crate) fn apply(&self, outgoing: &mut Outgoing) {
        if outgoing.http2 {
            return;
        }
        let request = &mut outgoing.request;
        if self.extended {
            *request.method_mut() = Method::GET;
            request.extensions_mut().remove::<Extended>();
            let key = rand::random::<[u8; 16]>();
            let key = HeaderValue::from_str(&base64(&key)).unwrap_or(HeaderValue::from_static(""));
            request.headers_mut().insert(SEC_WEBSOCKET_KEY, key);
            // DATA of an extended CONNECT belongs to the new protocol. A request of HTTP/1.1 keeps its body.
            *request.body_mut() = super::body::Upload::empty();
        }
        request.headers_mut().insert(header::CONNECTION, UPGRADE);
        request.headers_mut().insert(header::UPGRADE, self.protocol.clone());
    }
}

/// Takes the wish to leave HTTP out of a request, if it has one that can be passed on to an endpoint of this protocol.
pub(crate) fn prepare(request: &mut Request<Incoming>, to_http2: bool, from_http2: bool) -> Option<Handover> {
    if from_http2 {
        let protocol = request.extensions().get::<Extended>()?;
        let protocol = HeaderValue::from_str(protocol.as_str()).unwrap_or(WEBSOCKET);
        return Some(Handover { caller: hyper::upgrade::on(request), protocol, extended: true });
    }
    let protocol = request.headers().get(header::UPGRADE)?.clone();
    // h2c by upgrade is obsolete (RFC 9113 section 3.1); without the field, the request is served as it is.
    let wanted = headers::has_token(request.headers(), &header::CONNECTION, "upgrade")
        && !protocol.as_bytes().eq_ignore_ascii_case(b"h2c");
    if !wanted || to_http2 {
        return None;
    }
    Some(Handover { caller: hyper::upgrade::on(request), protocol, extended: false })
}

/// The endpoint agreed: answers the caller, and carries bytes from then on.
pub(crate) fn hand_over(
    caller: &Arc<Caller>,
    handover: Handover,
    answer: Response<Body>,
    switched: Upgraded,
    idle: Option<Duration>,
) -> Result<Response<Body>, Reason> {
    let mut response = answer;
    let websocket = handover.is_websocket();
    headers::strip_hop_by_hop(response.headers_mut(), false);
    if handover.extended {
        *response.status_mut() = StatusCode::OK;
        response.headers_mut().remove(SEC_WEBSOCKET_ACCEPT);
    } else {
        response.headers_mut().insert(header::CONNECTION, UPGRADE);
        response.headers_mut().insert(header::UPGRADE, handover.protocol);
        caller.upgraded();
    }
    let (of_caller, owner) = (handover.caller, caller.clone());
    tokio::spawn(async move {
        let Ok(caller_side) = of_caller.await else { return };
        let mut caller_side = TokioIo::new(caller_side);
        let mut endpoint_side = switched;
        let ended = carry(&mut caller_side, &mut endpoint_side, websocket, idle, &owner).await;
        if let Err(error) = ended {
            tracing::trace!(caller = %owner.address, %error, "upgraded connection ended");
        }
    });
    Ok(response)
}

/// Carries bytes both ways until one side ends, both are silent for `idle`, or the proxy is draining.
async fn carry<A, B>(
    caller: &mut A,
    endpoint: &mut B,
    websocket: bool,
    idle: Option<Duration>,
    owner: &Caller,
) -> io::Result<()>
where
    A: AsyncRead + AsyncWrite + Unpin,
    B: AsyncRead + AsyncWrite + Unpin,
{
    let (mut down, mut up) = (frames::Boundary::default(), frames::Boundary::default());
    let (mut from_caller, mut from_endpoint) = (BytesMut::with_capacity(BUFFER), BytesMut::with_capacity(BUFFER));
    let mut closing = owner.worker.closing();
    let (mut caller_open, mut endpoint_open) = (true, true);
    while caller_open || endpoint_open {
        let draining = *closing.borrow();
        if draining && websocket && down.is_between() {
            caller.write_all(&frames::GOING_AWAY).await?;
            caller.flush().await?;
            if up.is_between() {
                endpoint.write_all(&frames::GOING_AWAY_MASKED).await?;
                endpoint.flush().await?;
            }
            let _ = caller.shutdown().await;
            return endpoint.shutdown().await;
        }
        let quiet = tokio::time::sleep(idle.unwrap_or(Duration::from_secs(365 * 24 * 3600)));
        tokio::select! {
            read = caller.read_buf(&mut from_caller), if caller_open => {
                if read? == 0 {
                    caller_open = false;
                    endpoint.shutdown().await?;
                } else {
                    up.pass(&from_caller);
                    endpoint.write_all_buf(&mut from_caller).await?;
                    endpoint.flush().await?;
                }
            }
            read = endpoint.read_buf(&mut from_endpoint), if endpoint_open => {
                if read? == 0 {
                    endpoint_open = false;
                    caller.shutdown().await?;
                } else {
                    down.pass(&from_endpoint);
                    caller.write_all_buf(&mut from_endpoint).await?;
                    caller.flush().await?;
                }
            }
            _ = closing.changed(), if !draining => {}
            () = quiet => return Ok(()),
        }
        from_caller.clear();
        from_endpoint.clear();
    }
    Ok(())
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
    use super::base64;

    #[test]
    fn base64_of_the_rfc() {
        for (plain, want) in
            [("", ""), ("f", "Zg=="), ("fo", "Zm8="), ("foo", "Zm9v"), ("foob", "Zm9vYg=="), ("foobar", "Zm9vYmFy")]
        {
            assert_eq!(base64(plain.as_bytes()), want);
        }
    }
}
