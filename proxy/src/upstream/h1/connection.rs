//! One connection of HTTP/1.1, and the exchange of one request for the head of its response.

use std::{
    future::poll_fn,
    io,
    sync::Arc,
    task::{Context, Poll},
};

use bytes::BytesMut;
use http::{Method, StatusCode, Version, header, response};

use super::{
    ResponseLimits,
    head::{self, ResponseFraming, ResponseHead},
    reader::{H1Body, Rest},
    writer::{WriteError, Writer},
};
use crate::upstream::{
    Answer, Failure, OutboundRequest, ProtocolError, ResponseBody, ResponseRest, Tls, Upgraded, Upload, link::Link,
    pool::PoolSlot, upload::RunningUpload,
};

/// Bytes read at once while a head is awaited.
const READ: usize = 8 * 1024;

/// Interim responses that are skipped before a final one.
const INTERIM: u32 = 32;

/// A connection of HTTP/1.1. Unused, it is little more than its socket.
pub(crate) struct PooledConnection {
    pub(super) socket: Link,
    /// What was read and belongs to nobody yet.
    pub(super) buffer: BytesMut,
    reused: bool,
}

impl PooledConnection {
    /// A connection on which nothing was said.
    pub(crate) fn new(link: Link) -> Box<Self> {
        Box::new(Self { socket: link, buffer: BytesMut::new(), reused: false })
    }

    /// See [`Link::is_of`].
    pub(crate) fn is_of(&self, tls: Option<&Arc<Tls>>) -> bool {
        self.socket.is_of(tls)
    }

    /// Gives up everything but the socket, for the time until the next request. Says no where the endpoint has said more
    /// than it was asked for.
    pub(crate) fn park(&mut self) -> bool {
        let clean = self.buffer.is_empty();
        self.buffer = BytesMut::new();
        self.socket.release_buffer();
        self.reused = true;
        clean
    }

    /// See [`Link::is_dead`].
    pub(crate) fn is_dead(&self, ask_kernel: bool) -> bool {
        self.socket.is_dead(ask_kernel)
    }
}

/// Sends a request and awaits the head of its response. What remains, of either, goes on with the body.
pub(crate) async fn exchange<U: Upload>(
    mut connection: Box<PooledConnection>,
    slot: PoolSlot,
    ask: &OutboundRequest<'_>,
    upload: Option<U>,
    limits: &ResponseLimits,
) -> Result<Answer, Failure> {
    let sent_before = connection.socket.sent();
    let mut sending = Sending { writer: Writer::new(ask, upload), refused: None };
    let mut receiving = Receiving { limits, method: &ask.head.method, upgrade: ask.upgrade, interim: 0, looked: 0 };
    let head = poll_fn(|cx| {
        if let Poll::Ready(Err(failure)) = sending.poll(cx, &connection.socket) {
            return Poll::Ready(Err(failure));
        }
        receiving.poll(cx, &mut connection)
    })
    .await;
    let ResponseHead { parts, framing, keep_alive } = match head {
        Ok(head) => head,
        Err(Failure::Closed { .. }) if connection.socket.sent() == sent_before => return Err(Failure::Unsent),
        Err(failure) => return Err(failure),
    };
    if parts.status == StatusCode::SWITCHING_PROTOCOLS {
        // Whoever agrees before it was sent the whole request would read the rest of it as the new protocol.
        if !sending.writer.is_done() || connection.socket.has_unsent() {
            return Err(ProtocolError::Unasked.into());
        }
        let PooledConnection { socket, buffer, .. } = *connection;
        return Ok(Answer {
            head: Box::new(parts),
            then: ResponseRest::Upgraded(Upgraded::of_socket(socket, buffer.freeze())),
        });
    }
    let reusable = keep_alive && !ask.upgrade && framing != ResponseFraming::Close;
    let rest = sending.rest(&connection.socket, reusable);
    let body = match framing {
        ResponseFraming::Empty => {
            rest.release(connection, &slot);
            ResponseBody::empty()
        }
        ResponseFraming::Length(length) if connection.buffer.len() as u64 >= length => {
            let data = connection.buffer.split_to(usize::try_from(length).unwrap_or(usize::MAX)).freeze();
            rest.release(connection, &slot);
            ResponseBody::full(data)
        }
        ResponseFraming::Length(_) | ResponseFraming::Chunked | ResponseFraming::Close => {
            let mut body = H1Body::new(connection, framing, slot, rest);
            body.decode_received()?;
            ResponseBody::h1(body)
        }
    };
    Ok(Answer { head: Box::new(parts), then: ResponseRest::Body(body) })
}

/// The request's side of an exchange.
struct Sending<U> {
    writer: Writer<U>,
    /// The endpoint takes no more of it.
    refused: Option<io::Error>,
}

impl<U: Upload> Sending<U> {
    /// Sends what can be sent. An endpoint that takes no more may have answered before, so that is no failure yet.
    fn poll(&mut self, cx: &mut Context<'_>, socket: &Link) -> Poll<Result<(), Failure>> {
        if self.refused.is_some() {
            return Poll::Pending;
        }
        match self.writer.poll(cx, socket) {
            Poll::Ready(Err(WriteError::Upload)) => {
                socket.close();
                Poll::Ready(Err(Failure::Upload))
            }
            Poll::Ready(Err(WriteError::Socket(error))) => {
                self.refused = Some(error);
                Poll::Pending
            }
            Poll::Ready(Ok(())) | Poll::Pending => Poll::Pending,
        }
    }

    /// Lets what is left of an upload go on by itself, now that the response has begun.
    fn rest(self, socket: &Link, reusable: bool) -> Rest {
        if self.refused.is_some() {
            tokio::spawn(self.writer.discard());
            return Rest::Lost;
        }
        if self.writer.is_done() && !socket.has_unsent() {
            return if reusable { Rest::Done } else { Rest::Lost };
        }
        // An endpoint that answers before it has the whole request may not read the rest, and would take what it finds
        // there for the next one.
        Rest::Running(RunningUpload::spawn(|stuck| self.writer.finish(socket.clone(), stuck)))
    }
}

/// Whether a 101 leaves HTTP: HTTP/1.0 cannot, and it has to say for what (RFC 9110 sections 7.8 and 15.2.2).
fn switches(head: &response::Parts) -> bool {
    head.version == Version::HTTP_11 && head.headers.get(header::UPGRADE).is_some_and(|protocol| !protocol.is_empty())
}

/// The response's side of an exchange, until its head is here.
struct Receiving<'a> {
    limits: &'a ResponseLimits,
    method: &'a Method,
    upgrade: bool,
    interim: u32,
    /// How much of the buffer was seen to be no complete head.
    looked: usize,
}

impl Receiving<'_> {
    fn poll(&mut self, cx: &mut Context<'_>, connection: &mut PooledConnection) -> Poll<Result<ResponseHead, Failure>> {
        loop {
            if let Some(head) = self.head(&mut connection.buffer)? {
                return Poll::Ready(Ok(head));
            }
            if connection.buffer.capacity() - connection.buffer.len() < READ / 8 {
                connection.buffer.reserve(READ);
            }
            let read = match connection.socket.poll_read_into(cx, &mut connection.buffer) {
                Poll::Ready(read) => read,
                Poll::Pending => return Poll::Pending,
            };
            // What had begun to answer was not closed for being idle.
            let idle = connection.reused && connection.buffer.is_empty() && self.interim == 0;
            match read {
                Ok(0) => return Poll::Ready(Err(Failure::closed(io::ErrorKind::UnexpectedEof.into(), idle))),
                Ok(_) => {}
                Err(error) => return Poll::Ready(Err(Failure::closed(error, idle))),
            }
        }
    }

    /// Takes the head of a final response off the front of `buffer`.
    fn head(&mut self, buffer: &mut BytesMut) -> Result<Option<ResponseHead>, Failure> {
        loop {
            if buffer.is_empty() || !self.may_be_complete(buffer) {
                return Ok(None);
            }
            let Some(head) = head::parse(buffer, self.limits, self.method)? else {
                self.looked = buffer.len();
                return Ok(None);
            };
            self.looked = 0;
            match head.parts.status {
                StatusCode::SWITCHING_PROTOCOLS if self.upgrade => {
                    return if switches(&head.parts) { Ok(Some(head)) } else { Err(ProtocolError::Upgrade.into()) };
                }
                StatusCode::SWITCHING_PROTOCOLS => return Err(ProtocolError::Unasked.into()),
                status if status.is_informational() => {
                    self.interim += 1;
                    if self.interim > INTERIM {
                        return Err(ProtocolError::Interim.into());
                    }
                }
                _ => return Ok(Some(head)),
            }
        }
    }

    /// Whether parsing is worth while: the first time, at the limit, and once an empty line has come. A head that trickles
    /// is not parsed anew for every byte of it.
    fn may_be_complete(&self, buffer: &[u8]) -> bool {
        let new = &buffer[self.looked.saturating_sub(3).min(buffer.len())..];
        self.looked == 0
            || buffer.len() >= self.limits.bytes
            || new.windows(2).any(|two| two == b"\n\n")
            || new.windows(3).any(|three| three == b"\n\r\n")
    }
}
