//! One stream of HTTP/2: a request through the pipeline, and its response back.

use std::{
    future::{Future, poll_fn},
    pin::{Pin, pin},
    sync::Arc,
    task::{Context, Poll, ready},
};

use bytes::Bytes;
use h2::{Reason, RecvStream, SendStream, server::SendResponse};
use http::{HeaderMap, Request, Response, Version, header};
use http_body::Body as _;

use super::{
    Http2Session,
    upload::{Received, StreamEntry},
};
use crate::{
    buffers::{CallerBytes, Charge, Charged, SEND_BUFFER},
    fields,
    http::{
        answer::{AnswerForm, LocalAnswer},
        body::Body,
        exchange::{Activity, Exchange, Recorded},
        pipeline::{self, Answered},
        request::ProxiedRequest,
        server::{RequestBody, date},
        silence::Silence,
        upgrade::{CallerSide, StreamSide, Tunnel},
    },
    http2::FrameBudget,
};

/// A stream that is open; its connection forgets it when it is dropped.
struct OpenStream {
    connection: Arc<Http2Session>,
    slot: Arc<StreamEntry>,
}

impl Drop for OpenStream {
    fn drop(&mut self) {
        self.connection.caller.stream_ended();
        let mut slots = self.connection.slots.lock();
        if let Some(at) = slots.iter().position(|slot| Arc::ptr_eq(slot, &self.slot)) {
            slots.swap_remove(at);
        }
    }
}

/// Serves a stream in a task of its own. What needs no waiting is done here, so that the task holds little.
pub(super) fn start(connection: &Arc<Http2Session>, request: Request<RecvStream>, respond: SendResponse<Charged>) {
    let caller = &connection.caller;
    caller.stream_opened();
    caller.frames.request();
    let (mut head, mut stream) = request.into_parts();
    let window = if stream.is_end_stream() { None } else { Some(stream.flow_control().clone()) };
    let slot = StreamEntry::new(window);
    connection.slots.lock().push(slot.clone());
    let open = OpenStream { connection: connection.clone(), slot };
    fields::trim(&mut head.headers);
    let protocol = head.extensions.remove::<h2::ext::Protocol>();
    if let Some(protocol) = &protocol {
        head.extensions.insert(hyper::ext::Protocol::from(protocol.as_str()));
    }
    let activity = Activity::new(caller.shared.clock.clone());
    let form = AnswerForm::of(&head.headers);
    let exchange = Exchange::begin(caller, &head.method, form, activity.clone());
    let (body, tunnelled) = match protocol {
        Some(_) => (
            RequestBody::empty(activity),
            Some(Box::new(Received::new(stream, connection.clone(), open.slot.clone(), None))),
        ),
        None if stream.is_end_stream() => (RequestBody::empty(activity), None),
        None => {
            let received = Received::new(stream, connection.clone(), open.slot.clone(), length(&head.headers));
            (RequestBody::h2(received, activity), None)
        }
    };
    tokio::spawn(serve(open, exchange, ProxiedRequest::new(head, body), tunnelled, respond));
}

async fn serve(
    open: OpenStream,
    mut exchange: Box<Exchange>,
    request: Box<ProxiedRequest>,
    tunnelled: Option<Box<Received>>,
    mut respond: SendResponse<Charged>,
) {
    let answered = match run(&open, &mut exchange, request, &mut respond).await {
        Ok(answered) => answered,
        Err(reason) => return respond.send_reset(reason),
    };
    let Some(Begun { send, body, tunnel }) = begin(&open, &mut exchange, answered, respond) else { return };
    match (tunnel, tunnelled) {
        (Some(tunnel), Some(received)) => {
            let side = StreamSide::new(send, *received, open.connection.held.clone(), open.slot.clone());
            // Boxed to keep the task of every other stream small.
            Box::pin(tunnel.carry(CallerSide::stream(side), exchange)).await;
        }
        _ => download(&open, exchange, send, body).await,
    }
}

/// Takes the request through the pipeline; an error is the code to reset the stream with.
async fn run(
    open: &OpenStream,
    exchange: &mut Exchange,
    request: Box<ProxiedRequest>,
    respond: &mut SendResponse<Charged>,
) -> Result<Result<Answered, LocalAnswer>, Reason> {
    let (activity, began) = (exchange.activity.clone(), exchange.began());
    let mut running = pin!(pipeline::run(exchange, request));
    let mut silence = pin!(Silence::new(&activity));
    let answered = poll_fn(|cx| {
        if open.slot.poll_given_up(cx).is_ready() {
            return Poll::Ready(Err(Reason::ENHANCE_YOUR_CALM));
        }
        if let Poll::Ready(answered) = running.as_mut().poll(cx) {
            return Poll::Ready(Ok(answered));
        }
        if respond.poll_reset(cx).is_ready() {
            open.connection.was_abandoned(began.elapsed());
            return Poll::Ready(Err(Reason::CANCEL));
        }
        if silence.as_mut().poll(cx).is_ready() {
            return Poll::Ready(Err(Reason::CANCEL));
        }
        Poll::Pending
    })
    .await;
    open.connection.was_given_on(open.slot.answered());
    answered
}

/// A response whose head is on its way.
struct Begun {
    send: SendStream<Charged>,
    body: Body,
    tunnel: Option<Tunnel>,
}

/// Sends the head of a response; `None` when nothing follows it.
fn begin(
    open: &OpenStream,
    exchange: &mut Exchange,
    answered: Result<Answered, LocalAnswer>,
    mut respond: SendResponse<Charged>,
) -> Option<Begun> {
    let (response, tunnel) = match answered {
        Ok(answered) => (answered.response, answered.tunnel),
        Err(local) => {
            exchange.reason = Some(local.reason);
            (local.into_response(exchange.form), None)
        }
    };
    if exchange.sends_caller_away() {
        open.connection.caller.send_away();
    }
    let (mut head, body) = response.into_parts();
    exchange.answered(head.status, &head.headers);
    head.version = Version::HTTP_2;
    head.headers.entry(header::DATE).or_insert_with(date);
    let ends = tunnel.is_none() && body.is_end_stream();
    let Ok(send) = respond.send_response(Response::from_parts(head, ()), ends) else {
        // The stream is over.
        open.connection.was_abandoned(exchange.began().elapsed());
        return None;
    };
    (!ends).then_some(Begun { send, body, tunnel })
}

/// Sends the body of a response.
async fn download(open: &OpenStream, exchange: Box<Exchange>, send: SendStream<Charged>, body: Body) {
    let held = &open.connection.held;
    let mut silence = pin!(Silence::new(&exchange.activity));
    let body = Recorded::new(body, exchange);
    let mut download = BodySender {
        send,
        body,
        waiting: Bytes::new(),
        is_last: false,
        charge: held.charge(),
        held: held.clone(),
        frames: &open.connection.caller.frames,
    };
    let ended = poll_fn(|cx| {
        if open.slot.poll_given_up(cx).is_ready() {
            return Poll::Ready(Err(Reason::ENHANCE_YOUR_CALM));
        }
        let sent = download.poll(cx);
        open.slot.set_stuck(!download.waiting.is_empty());
        if sent.is_ready() {
            return sent;
        }
        if silence.as_mut().poll(cx).is_ready() { Poll::Ready(Err(Reason::CANCEL)) } else { Poll::Pending }
    })
    .await;
    if let Err(reason) = ended {
        download.send.send_reset(reason);
    }
}

/// A response's body on its way to the caller.
struct BodySender<'a> {
    send: SendStream<Charged>,
    body: Recorded,
    /// A piece for which the caller had no room yet.
    waiting: Bytes,
    /// Nothing comes after `waiting`.
    is_last: bool,
    /// Counts `waiting` while it waits.
    charge: Charge,
    held: Arc<CallerBytes>,
    frames: &'a FrameBudget,
}

impl BodySender<'_> {
    /// Sends what can be sent; ready once all is, or with the code to reset the stream with.
    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Reason>> {
        loop {
            if !self.waiting.is_empty() {
                let Poll::Ready(room) = reserve(&mut self.send, self.waiting.len(), cx) else {
                    return self.wait();
                };
                let Some(room) = room else { return Poll::Ready(Err(Reason::CANCEL)) };
                self.charge.set(0);
                let piece = self.waiting.split_to(room.min(self.waiting.len()));
                self.frames.sent(piece.len());
                let ends = self.is_last && self.waiting.is_empty();
                if self.send.send_data(self.held.charged(piece), ends).is_err() {
                    return Poll::Ready(Err(Reason::CANCEL));
                }
                if ends {
                    return Poll::Ready(Ok(()));
                }
                continue;
            }
            let Poll::Ready(frame) = Pin::new(&mut self.body).poll_frame(cx) else {
                let gone = self.send.poll_reset(cx).is_ready();
                return if gone { Poll::Ready(Err(Reason::CANCEL)) } else { Poll::Pending };
            };
            match frame.map(|frame| frame.map(http_body::Frame::into_data)) {
                Some(Ok(Ok(data))) => {
                    self.waiting = data;
                    self.is_last = self.body.is_end_stream();
                    if self.waiting.is_empty() && self.is_last {
                        return Poll::Ready(self.end());
                    }
                }
                Some(Ok(Err(frame))) => {
                    let trailers = frame.into_trailers().unwrap_or_default();
                    return Poll::Ready(self.send.send_trailers(trailers).map_err(|_| Reason::CANCEL));
                }
                Some(Err(error)) => {
                    tracing::debug!(%error, "a response ended early");
                    return Poll::Ready(Err(Reason::INTERNAL_ERROR));
                }
                None => return Poll::Ready(self.end()),
            }
        }
    }

    fn end(&mut self) -> Result<(), Reason> {
        self.send.send_data(self.held.charged(Bytes::new()), true).map_err(|_| Reason::CANCEL)
    }

    /// The caller takes no more for now: what waits is counted, and given up if it is too much.
    fn wait(&mut self) -> Poll<Result<(), Reason>> {
        self.charge.set(self.waiting.len());
        if self.held.excess() > 0 {
            return Poll::Ready(Err(Reason::ENHANCE_YOUR_CALM));
        }
        self.held.check_total();
        Poll::Pending
    }
}

/// Waits for room to send some of `wanted` bytes; `None` when the caller takes no more.
pub(crate) fn reserve(send: &mut SendStream<Charged>, wanted: usize, cx: &mut Context<'_>) -> Poll<Option<usize>> {
    send.reserve_capacity(wanted.min(SEND_BUFFER));
    loop {
        let room = send.capacity();
        if room > 0 {
            return Poll::Ready(Some(room));
        }
        match ready!(send.poll_capacity(cx)) {
            Some(Ok(_)) => {}
            Some(Err(_)) | None => return Poll::Ready(None),
        }
    }
}

/// The length of a body, where the caller says it.
fn length(fields: &HeaderMap) -> Option<u64> {
    fields.get(header::CONTENT_LENGTH)?.to_str().ok()?.parse().ok()
}
