//! One connection to an endpoint.
//!
//! A connection of HTTP/1.1 has no task of its own: whoever awaits its answer drives it, and then the body of the
//! answer does. That saves two wake-ups and a hand-over for each request. Only when an answer begins before the request
//! has been sent to its end does a connection get a task, because then both directions must go on whether or not the
//! caller reads.

use std::{
    future::poll_fn,
    pin::pin,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU32, Ordering},
    },
    task::{Context, Poll, Waker},
};

use bytes::Bytes;
use http::{Request, Response};
use hyper::{
    body::Incoming,
    client::conn::{TrySendError, http1, http2},
};
use hyper_util::rt::{TokioExecutor, TokioTimer};
use tokio::net::TcpStream;

use super::{
    body::Upload,
    socket::{Socket, Unsent},
};
use crate::{listener::Worker, state::Endpoint};

type Failed = Box<TrySendError<Request<Upload>>>;

/// A connection of HTTP/1.1 to an endpoint.
pub(crate) struct H1 {
    sender: http1::SendRequest<Upload>,
    /// `None` once it ended with a request that it never took.
    connection: Option<http1::Connection<Socket, Upload>>,
    closed: bool,
    /// It has carried a request before.
    pub(crate) reused: bool,
    /// It is closed once its response is complete.
    last: bool,
    unsent: Unsent,
}

impl H1 {
    /// Prepares a stream that was just connected.
    pub(crate) async fn new(stream: TcpStream) -> hyper::Result<Box<Self>> {
        // Room for 100 fields, hyper's own limit, is on the stack; for more it would be allocated for every answer.
        Self::on(Socket::new(stream), false).await
    }

    /// Takes up a connection that was [laid by](Self::lay_by).
    pub(crate) async fn again(socket: Socket) -> hyper::Result<Box<Self>> {
        Self::on(socket, true).await
    }

    async fn on(socket: Socket, reused: bool) -> hyper::Result<Box<Self>> {
        let unsent = socket.unsent();
        let (sender, connection) = http1::handshake(socket).await?;
        Ok(Box::new(Self { sender, connection: Some(connection), closed: false, reused, last: false, unsent }))
    }

    /// Keeps the connection out of the pool: it is closed once its response is complete.
    pub(crate) fn never_reuse(&mut self) {
        self.last = true;
    }

    /// Bytes of its request are not with the kernel yet.
    pub(crate) fn has_unsent(&self) -> bool {
        self.unsent.is_any()
    }

    /// Another request may be sent on it: the last one was written to its end, and did not ask to leave HTTP.
    pub(crate) fn is_reusable(&self) -> bool {
        !self.last && !self.has_unsent() && self.is_ready()
    }

    /// Leaves of an unused connection only the socket. `None` where the endpoint already said something.
    pub(crate) fn lay_by(self: Box<Self>) -> Option<Socket> {
        let parts = self.connection.filter(|_| !self.closed)?.into_parts();
        parts.read_buf.is_empty().then(|| {
            parts.io.lay_by();
            parts.io
        })
    }

    /// Lets the connection read and write what it can.
    pub(crate) fn drive(&mut self, cx: &mut Context<'_>) {
        if !self.closed {
            self.closed = ended(&mut self.connection, cx);
        }
    }

    /// Nothing more will come from it.
    pub(crate) fn is_closed(&self) -> bool {
        self.closed
    }

    /// It can carry another request at once.
    pub(crate) fn is_ready(&self) -> bool {
        !self.closed && self.sender.is_ready()
    }

    /// Sends a request and awaits the head of its answer.
    pub(crate) async fn exchange(&mut self, request: Request<Upload>) -> Result<Response<Incoming>, Failed> {
        let mut answer = pin!(self.sender.try_send_request(request));
        poll_fn(|cx| {
            if !self.closed {
                self.closed = ended(&mut self.connection, cx);
            }
            // What is above is the only thing that can make the answer ready, so it need not wake anybody.
            match answer.as_mut().poll(&mut Context::from_waker(Waker::noop())) {
                Poll::Ready(answer) => Poll::Ready(answer.map_err(Box::new)),
                Poll::Pending if self.closed => {
                    // An endpoint that closed while nobody used the connection: it never looked at the request, and
                    // only gives it back when it goes.
                    self.connection = None;
                    answer.as_mut().poll(cx).map_err(Box::new)
                }
                Poll::Pending => Poll::Pending,
            }
        })
        .await
    }

    /// Gives the connection a task of its own, until it ends.
    pub(crate) fn detach(self: Box<Self>) {
        tokio::spawn(async move {
            let Self { sender, mut connection, closed, .. } = *self;
            if !closed {
                // How it ended was told to whoever reads the answer.
                poll_fn(|cx| if ended(&mut connection, cx) { Poll::Ready(()) } else { Poll::Pending }).await;
            }
            drop(sender);
        });
    }

    /// The stream below, once the endpoint agreed to speak another protocol, and what it already said in it.
    pub(crate) async fn into_stream(mut self: Box<Self>) -> Option<(Socket, Bytes)> {
        poll_fn(|cx| {
            self.drive(cx);
            if self.closed { Poll::Ready(()) } else { Poll::Pending }
        })
        .await;
        let parts = self.connection?.into_parts();
        Some((parts.io, parts.read_buf))
    }
}

/// Lets a connection read and write what it can; whether it has ended.
fn ended(connection: &mut Option<http1::Connection<Socket, Upload>>, cx: &mut Context<'_>) -> bool {
    connection.as_mut().is_none_or(|connection| connection.poll_without_shutdown(cx).is_ready())
}

/// Where a connection belongs when nobody uses it.
pub(crate) struct Home {
    endpoint: Arc<Endpoint>,
    worker: Arc<Worker>,
}

impl Home {
    /// The pool of `endpoint` that `worker` uses.
    pub(crate) fn new(endpoint: Arc<Endpoint>, worker: Arc<Worker>) -> Self {
        Self { endpoint, worker }
    }

    /// Keeps a connection for the next request if it can carry one.
    pub(crate) fn take_back(&self, mut connection: Box<H1>) {
        if connection.is_reusable() && !self.endpoint.is_gone() {
            connection.reused = true;
            self.endpoint.pools.put(&self.worker, connection, &self.endpoint);
        }
    }
}

/// A connection of HTTP/2 to an endpoint, shared by many requests.
#[derive(Clone)]
pub(crate) struct H2 {
    sender: http2::SendRequest<Upload>,
    streams: Arc<AtomicU32>,
    /// The endpoint takes no more requests on it, though those that run may end well.
    spent: Arc<AtomicBool>,
}

/// One request on a shared connection; over when dropped.
pub(crate) struct H2Stream {
    sender: http2::SendRequest<Upload>,
    streams: Arc<AtomicU32>,
    spent: Arc<AtomicBool>,
    /// The connection has carried a request before.
    pub(crate) reused: bool,
}

impl H2 {
    /// Prepares a stream that was just connected. The connection runs in a task of its own.
    pub(crate) async fn new(stream: TcpStream) -> hyper::Result<Self> {
        let mut builder = http2::Builder::new(TokioExecutor::new());
        builder
            .timer(TokioTimer::new())
            .initial_stream_window_size(1 << 20)
            .initial_connection_window_size(4 << 20)
            .max_header_list_size(256 * 1024)
            .keep_alive_interval(std::time::Duration::from_secs(20))
            .keep_alive_timeout(std::time::Duration::from_secs(10));
        let (sender, connection) = builder.handshake(Socket::new(stream)).await?;
        tokio::spawn(async move {
            // How it ended is told to every request on it.
            let _ = connection.await;
        });
        Ok(Self { sender, streams: Arc::default(), spent: Arc::default() })
    }

    /// Requests on it now.
    pub(crate) fn streams(&self) -> u32 {
        self.streams.load(Ordering::Relaxed)
    }

    /// It takes no more requests.
    pub(crate) fn is_closed(&self) -> bool {
        self.sender.is_closed() || self.spent.load(Ordering::Relaxed)
    }

    /// Starts a request on it.
    pub(crate) fn stream(&self, reused: bool) -> H2Stream {
        self.streams.fetch_add(1, Ordering::Relaxed);
        H2Stream { sender: self.sender.clone(), streams: self.streams.clone(), spent: self.spent.clone(), reused }
    }
}

impl H2Stream {
    /// Sends a request and awaits the head of its answer.
    pub(crate) async fn exchange(&mut self, request: Request<Upload>) -> Result<Response<Incoming>, Failed> {
        self.sender.try_send_request(request).await.map_err(Box::new)
    }

    /// No other request is to be put on its connection.
    pub(crate) fn spend_connection(&self) {
        self.spent.store(true, Ordering::Relaxed);
    }
}

impl Drop for H2Stream {
    fn drop(&mut self) {
        self.streams.fetch_sub(1, Ordering::Relaxed);
    }
}
