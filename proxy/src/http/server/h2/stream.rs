//! One stream of HTTP/2: a request through the pipeline, and its response back.

use std::{
    future::{Future, poll_fn},
    pin::{Pin, pin},
    sync::Arc,
    task::{Context, Poll},
};

use bytes::Bytes;
use http::{HeaderMap, header, request};
use http_body::Body as _;
use maesh_http2::{Protocol, Reason, RecvStream, SendStream};

use super::{
    Http2Session,
    upload::{Received, StreamEntry},
};
use crate::{
    buffers::{CallerBytes, Charge},
    fields::Present,
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
pub(super) fn start(connection: &Arc<Http2Session>, head: request::Parts, recv: Option<RecvStream>, send: SendStream) {
    let caller = &connection.caller;
    caller.stream_opened();
    caller.frames.request();
    let slot = StreamEntry::new(recv.as_ref().map(RecvStream::meter));
    connection.slots.lock().push(slot.clone());
    let open = OpenStream { connection: connection.clone(), slot };
    let activity = Activity::new(caller.shared.clock.clone());
    let present = Present::of(&head.headers);
    let form = AnswerForm::of(&head.headers, present);
    let exchange = Exchange::begin(caller, &head.method, form, activity.clone());
    let received = |recv, length| Received::new(recv, connection.clone(), open.slot.clone(), length);
    let (body, tunnelled) = match recv {
        Some(recv) if head.extensions.get::<Protocol>().is_some() => {
            (RequestBody::empty(activity), Some(Box::new(received(recv, None))))
        }
        Some(recv) => (RequestBody::h2(received(recv, length(&head.headers)), activity), None),
        None => (RequestBody::empty(activity), None),
    };
    // Boxed here, or it would be copied on each of the steps of spawning.
    tokio::spawn(Box::pin(serve(open, exchange, ProxiedRequest::new(head, present, body), tunnelled, send)));
}

async fn serve(
    open: OpenStream,
    mut exchange: Box<Exchange>,
    request: Box<ProxiedRequest>,
    tunnelled: Option<Box<Received>>,
    mut send: SendStream,
) {
    let answered = match run(&open, &mut exchange, request, &mut send).await {
        Ok(answered) => answered,
        Err(reason) => return send.reset(reason),
    };
    let Some(Begun { body, tunnel }) = begin(&open, &mut exchange, answered, &mut send) else { return };
    match (tunnel, tunnelled) {
        (Some(tunnel), Some(received)) => {
            let side = StreamSide::new(send, *received, open.slot.clone());
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
    send: &mut SendStream,
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
        if send.poll_reset(cx).is_ready() {
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
    body: Body,
    tunnel: Option<Tunnel>,
}

/// Sends the head of a response; `None` when nothing follows it.
fn begin(
    open: &OpenStream,
    exchange: &mut Exchange,
    answered: Result<Answered, LocalAnswer>,
    send: &mut SendStream,
) -> Option<Begun> {
    let (response, tunnel) = match answered {
        Ok(answered) => (answered.response, answered.tunnel),
        Err(local) => {
            exchange.reason = Some(local.reason);
            (local.into_response(exchange.form), None)
        }
    };
    if exchange.is_misplaced() {
        open.connection.caller.send_away_misplaced();
    } else if exchange.sends_caller_away() {
        open.connection.caller.send_away();
    }
    let (mut head, body) = response.into_parts();
    exchange.answered(head.status, &head.headers);
    head.headers.entry(header::DATE).or_insert_with(date);
    let ends = tunnel.is_none() && body.is_end_stream();
    if send.send_response(head.status, &head.headers, ends).is_err() {
        // The stream is over.
        open.connection.was_abandoned(exchange.began().elapsed());
        return None;
    }
    (!ends).then_some(Begun { body, tunnel })
}

/// Sends the body of a response.
async fn download(open: &OpenStream, exchange: Box<Exchange>, send: SendStream, body: Body) {
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
        download.send.reset(reason);
    }
}

/// A response's body on its way to the caller.
struct BodySender<'a> {
    send: SendStream,
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
                let Poll::Ready(sent) = self.send.poll_send(cx, &mut self.waiting, self.is_last) else {
                    return self.wait();
                };
                let Ok(sent) = sent else { return Poll::Ready(Err(Reason::CANCEL)) };
                self.charge.set(self.waiting.len());
                self.frames.sent(sent);
                if self.is_last && self.waiting.is_empty() {
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
                    return Poll::Ready(self.send.send_trailers(&trailers).map_err(|_| Reason::CANCEL));
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
        self.send.end().map_err(|_| Reason::CANCEL)
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

/// The length of a body, where the caller says it.
fn length(fields: &HeaderMap) -> Option<u64> {
    fields.get(header::CONTENT_LENGTH)?.to_str().ok()?.parse().ok()
}
