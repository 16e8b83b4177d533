//! The state of one stream (RFC 9113 section 5.1).

use std::task::{Context, Poll, Waker};

use bytes::{Bytes, BytesMut};
use http::{HeaderMap, request, response};

use crate::{error::Error, window::ReceiveWindow};

/// A head that has arrived and was not asked for yet.
#[derive(Debug)]
pub(crate) enum Head {
    Request(request::Parts),
    Response(response::Parts),
}

/// What has arrived on a stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Arrived {
    /// Nothing, or interim responses.
    Nothing,
    /// The head.
    Head,
    /// Everything.
    All,
}

/// One stream.
#[derive(Debug)]
pub(crate) struct Stream {
    pub(crate) id: u32,
    pub(crate) arrived: Arrived,
    /// Interim responses that have come.
    pub(crate) interim: u8,
    pub(crate) head: Option<Head>,
    pub(crate) data: BytesMut,
    pub(crate) trailers: Option<HeaderMap>,
    pub(crate) window: ReceiveWindow,
    /// Bytes of the body that are still to come, where the head says how many there are.
    pub(crate) left: Option<u64>,
    /// The length in the head says nothing of what comes: it answers HEAD, or bytes of another protocol follow.
    pub(crate) ignores_length: bool,
    pub(crate) reader: Option<Waker>,
    /// The peer's window. It can be below 0 (RFC 9113 section 6.9.2).
    pub(crate) send_window: i64,
    pub(crate) sent_all: bool,
    pub(crate) writer: Option<Waker>,
    /// It waits for room in the connection.
    pub(crate) is_waiting: bool,
    /// It is its turn to use the room in the connection.
    pub(crate) has_turn: bool,
    pub(crate) failed: Option<Error>,
    /// Somebody may ask for what arrives.
    pub(crate) has_reader: bool,
    /// Somebody may send.
    pub(crate) has_writer: bool,
    /// It still counts among the open ones.
    pub(crate) is_counted: bool,
}

impl Stream {
    pub(crate) fn new(id: u32, window: u32, send_window: u32) -> Self {
        Self {
            id,
            arrived: Arrived::Nothing,
            interim: 0,
            head: None,
            data: BytesMut::new(),
            trailers: None,
            window: ReceiveWindow::new(window),
            left: None,
            ignores_length: false,
            reader: None,
            send_window: i64::from(send_window),
            sent_all: false,
            writer: None,
            is_waiting: false,
            has_turn: false,
            failed: None,
            has_reader: true,
            has_writer: true,
            is_counted: true,
        }
    }

    /// Nothing can be sent or received on it any more.
    pub(crate) fn is_closed(&self) -> bool {
        self.failed.is_some() || (self.arrived == Arrived::All && self.sent_all)
    }

    /// Nothing of what arrived is left to be asked for.
    pub(crate) fn is_at_end(&self) -> bool {
        self.arrived == Arrived::All && self.data.is_empty() && self.trailers.is_none()
    }

    /// Ends it with `error`. What has arrived before can still be read.
    pub(crate) fn fail(&mut self, error: Error) {
        if self.failed.is_none() {
            self.failed = Some(error);
        }
        self.wake();
    }

    pub(crate) fn wake(&mut self) {
        wake(&mut self.reader);
        wake(&mut self.writer);
    }

    /// Takes the data that has arrived; `None` at its end.
    pub(crate) fn poll_data(&mut self, cx: &Context<'_>) -> Poll<Option<Result<Bytes, Error>>> {
        if !self.data.is_empty() {
            return Poll::Ready(Some(Ok(std::mem::take(&mut self.data).freeze())));
        }
        if self.arrived == Arrived::All {
            return Poll::Ready(None);
        }
        match self.failed {
            Some(error) => Poll::Ready(Some(Err(error))),
            None => remember(&mut self.reader, cx),
        }
    }

    /// Takes the trailers that have arrived after the data.
    pub(crate) fn poll_trailers(&mut self, cx: &Context<'_>) -> Poll<Result<Option<HeaderMap>, Error>> {
        if self.arrived == Arrived::All {
            return Poll::Ready(Ok(self.trailers.take()));
        }
        match self.failed {
            Some(error) => Poll::Ready(Err(error)),
            None => remember(&mut self.reader, cx),
        }
    }

    /// Ready once what is missing can no longer arrive.
    pub(crate) fn poll_failed(&mut self, cx: &Context<'_>) -> Poll<()> {
        match self.failed {
            Some(_) if self.arrived != Arrived::All => Poll::Ready(()),
            _ => remember(&mut self.reader, cx),
        }
    }

    /// Takes the head of the response.
    pub(crate) fn poll_response(&mut self, cx: &Context<'_>) -> Poll<Result<response::Parts, Error>> {
        match (self.head.take(), self.failed) {
            (Some(Head::Response(head)), _) => Poll::Ready(Ok(head)),
            (_, Some(error)) => Poll::Ready(Err(error)),
            (_, None) => remember(&mut self.reader, cx),
        }
    }
}

/// Keeps the waker of `cx`.
pub(crate) fn remember<T>(waker: &mut Option<Waker>, cx: &Context<'_>) -> Poll<T> {
    match waker {
        Some(waker) => waker.clone_from(cx.waker()),
        None => *waker = Some(cx.waker().clone()),
    }
    Poll::Pending
}

pub(crate) fn wake(waker: &mut Option<Waker>) {
    if let Some(waker) = waker.take() {
        waker.wake();
    }
}
