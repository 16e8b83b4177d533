//! Two sessions with a pipe between them.

use std::{
    future::poll_fn,
    io::IoSlice,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
};

use bytes::Bytes;
use http::{HeaderMap, StatusCode, request};
use tokio::{
    io::{AsyncRead, AsyncWrite, DuplexStream, ReadBuf, duplex},
    sync::{mpsc, watch},
    task::JoinHandle,
};

use super::{download, upload};
use crate::{Config, Error, Next, RecvStream, SendStream, Sender, Session};

/// How much the pipe holds, and how much is read of it at once.
#[derive(Clone, Copy)]
pub(super) struct Pipe {
    pub(super) size: usize,
    pub(super) read: usize,
}

/// How the server's side ended.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Served {
    Ended(Result<(), Error>),
}

/// The server's side, which ends when this is dropped.
pub(super) struct Server {
    task: JoinHandle<Result<(), Error>>,
    leaving: watch::Sender<bool>,
    resets: tokio::sync::Mutex<mpsc::UnboundedReceiver<Error>>,
}

impl Drop for Server {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Server {
    pub(super) fn leave(&self) {
        self.leaving.send_replace(true);
    }

    pub(super) async fn ended(mut self) -> Served {
        Served::Ended((&mut self.task).await.expect("no panic"))
    }

    pub(super) async fn next_reset(&self) -> Error {
        self.resets.lock().await.recv().await.expect("a reset")
    }
}

/// What answers a request: its head, its body, and where the answer goes.
pub(super) type Answer = fn(request::Parts, Option<RecvStream>, SendStream, mpsc::UnboundedSender<Error>);

/// Connects a client to a server that answers with `answer`.
pub(super) async fn connect(client: Config, server: Config, pipe: Pipe, answer: Answer) -> (Sender, Server) {
    let (near, far) = duplex(pipe.size);
    let (session, sender) = Session::client(client);
    let session = Arc::new(session);
    let (known, mut is_known) = watch::channel(false);
    tokio::spawn(drive(session, near, pipe.read, move |session| {
        known.send_replace(session.allowed_streams().is_some());
    }));
    let (leaving, mut is_leaving) = watch::channel(false);
    let (resets, reset) = mpsc::unbounded_channel();
    let session = Arc::new(Session::server(server));
    let leaver = session.clone();
    let left = tokio::spawn(async move {
        if is_leaving.wait_for(|leaving| *leaving).await.is_ok() {
            leaver.leave();
        }
    });
    let driven = drive(session, far, pipe.read, move |session| {
        while let Some((head, recv, send)) = session.accept() {
            answer(head, recv, send, resets.clone());
        }
    });
    let task = tokio::spawn(async move {
        let ended = driven.await;
        left.abort();
        ended
    });
    is_known.wait_for(|known| *known).await.expect("settings");
    (sender, Server { task, leaving, resets: tokio::sync::Mutex::new(reset) })
}

async fn drive(
    session: Arc<Session>,
    mut io: DuplexStream,
    read: usize,
    mut received: impl FnMut(&Session),
) -> Result<(), Error> {
    let mut buffer = vec![0; read];
    let ended = poll_fn(|cx| {
        loop {
            let written = session.write_with(|slices| write(&mut io, cx, slices));
            match session.next() {
                Next::GoOn => {}
                Next::Close(Ok(())) if written.is_pending() => return Poll::Pending,
                Next::Close(ended) => return Poll::Ready(ended),
            }
            let mut room = ReadBuf::new(&mut buffer);
            match Pin::new(&mut io).poll_read(cx, &mut room) {
                Poll::Ready(Ok(())) if !room.filled().is_empty() => {
                    session.receive(room.filled());
                    received(&session);
                }
                Poll::Ready(_) => {
                    session.lost();
                    return Poll::Ready(Err(Error::Closed));
                }
                Poll::Pending if session.poll_work(cx).is_pending() => return Poll::Pending,
                Poll::Pending => {}
            }
        }
    })
    .await;
    session.lost();
    ended
}

fn write(io: &mut DuplexStream, cx: &mut Context<'_>, slices: &[IoSlice<'_>]) -> Poll<std::io::Result<usize>> {
    let first = slices.iter().find(|slice| !slice.is_empty()).map_or(&[][..], |slice| slice);
    Pin::new(io).poll_write(cx, first)
}

/// Answers by path: `/echo` with what it is sent, `/fill` with more than anybody reads, `/none` without a body, `/silent`
/// never.
pub(super) fn echo(
    head: request::Parts,
    recv: Option<RecvStream>,
    mut send: SendStream,
    resets: mpsc::UnboundedSender<Error>,
) {
    tokio::spawn(async move {
        match head.uri.path() {
            "/none" => drop(send.send_response(StatusCode::NO_CONTENT, &HeaderMap::new(), true)),
            "/silent" => {
                let error = poll_fn(|cx| send.poll_reset(cx)).await;
                // The test may be over.
                let _ = resets.send(error);
            }
            "/fill" => {
                let _ = send.send_response(StatusCode::OK, &HeaderMap::new(), false);
                let _ = upload(&mut send, Bytes::from(vec![0; 1 << 20])).await;
            }
            _ => {
                let _ = send.send_response(StatusCode::OK, &HeaderMap::new(), false);
                let data = match recv {
                    Some(mut recv) => match download(&mut recv).await {
                        Ok((data, _)) => data,
                        Err(_) => return,
                    },
                    None => Vec::new(),
                };
                let _ = upload(&mut send, data.into()).await;
            }
        }
    });
}
