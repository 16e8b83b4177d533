//! Heads of HTTP/2 between two sides of a connection: header compression, frames and streams.
//!
//! Most fields are the same each time, two are not, as in requests of one client that are traced.

use std::{
    hint::black_box,
    io::{self, IoSlice, Read, Write},
    net::{SocketAddr, TcpStream},
    task::{Context, Poll, Waker},
};

use anyhow::{Result, ensure};
use http::{HeaderMap, HeaderValue, Request, StatusCode, request};
use maesh_http2::{Config, RecvStream, SendStream, Sender, Session};
use maesh_proxy::instructions::{Part, Step};

/// The parts.
pub(crate) const PARTS: &[Part] = &[
    Part { name: "HTTP/2: write a request's head", prepare: || exchanging(Side::ClientWrites) },
    Part { name: "HTTP/2: read a request's head", prepare: || exchanging(Side::ServerReads) },
    Part { name: "HTTP/2: write a response's head", prepare: || exchanging(Side::ServerWrites) },
    Part { name: "HTTP/2: read a response's head", prepare: || exchanging(Side::ClientReads) },
];

/// What is counted of an exchange.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Side {
    ClientWrites,
    ServerReads,
    ServerWrites,
    ClientReads,
}

const CONFIG: Config = Config { stream_window: 65_535, connection_window: 65_535, streams: 100, head: 65_536 };

/// One exchange of heads without bodies after the other.
fn exchanging(side: Side) -> Step {
    let exchange = Connections::new();
    let mut step = 0;
    Box::new(move |counted| {
        step += 1;
        let mut of = |which: Side, work: &mut dyn FnMut()| if which == side { counted(work) } else { work() };
        let (head, fields) = (request(step), response(step));
        let (mut wire, mut recv, mut accepted) = (Vec::new(), None, None);
        of(Side::ClientWrites, &mut || {
            recv = exchange.sender.request(&head, &[], true).ok();
            drain(&exchange.client, &mut wire);
        });
        of(Side::ServerReads, &mut || {
            exchange.server.receive(&wire);
            accepted = exchange.server.accept();
        });
        let (_, _, mut send): (_, _, SendStream) = accepted.take().expect("a request");
        wire.clear();
        of(Side::ServerWrites, &mut || {
            send.send_response(StatusCode::OK, &fields, true).expect("sent");
            drain(&exchange.server, &mut wire);
        });
        let (mut recv, _): (RecvStream, _) = recv.take().expect("sent");
        of(Side::ClientReads, &mut || {
            exchange.client.receive(&wire);
            let answered = recv.poll_response(&Context::from_waker(Waker::noop()));
            assert!(matches!(black_box(answered), Poll::Ready(Ok(_))));
        });
    })
}

/// Both sides of a connection.
struct Connections {
    client: Session,
    sender: Sender,
    server: Session,
}

impl Connections {
    /// Both have said what they allow.
    fn new() -> Self {
        let (client, sender) = Session::client(CONFIG);
        let server = Session::server(CONFIG);
        let (mut there, mut back) = (Vec::new(), Vec::new());
        for _ in 0..2 {
            drain(&client, &mut there);
            server.receive(&there);
            drain(&server, &mut back);
            client.receive(&back);
            there.clear();
            back.clear();
        }
        Self { client, sender, server }
    }
}

/// Sends `times` requests to a proxy, one after the other on one connection.
pub(crate) fn requests(address: SocketAddr, times: usize) -> Result<()> {
    let mut stream = TcpStream::connect(address)?;
    let (session, sender) = Session::client(CONFIG);
    let head = Request::get("http://web.shop.maesh/").body(())?.into_parts().0;
    let (mut wire, mut read) = (Vec::new(), [0; 4096]);
    for _ in 0..times {
        let (mut recv, _) = sender.request(&head, &[], true)?;
        let mut status = None;
        while !recv.is_at_end() {
            drain(&session, &mut wire);
            stream.write_all(&wire)?;
            wire.clear();
            let length = stream.read(&mut read)?;
            ensure!(length > 0, "closed before the answer");
            session.receive(&read[..length]);
            let cx = Context::from_waker(Waker::noop());
            if let (None, Poll::Ready(response)) = (status, recv.poll_response(&cx)) {
                status = Some(response?.status);
            }
            while let Poll::Ready(Some(data)) = recv.poll_data(&cx) {
                recv.release(data?.len());
            }
        }
        ensure!(status == Some(StatusCode::OK), "answered {status:?}");
    }
    Ok(())
}

/// Takes all that waits to be written.
fn drain(session: &Session, wire: &mut Vec<u8>) {
    let take = |slices: &[IoSlice<'_>]| -> Poll<io::Result<usize>> {
        slices.iter().for_each(|slice| wire.extend_from_slice(slice));
        Poll::Ready(Ok(slices.iter().map(|slice| slice.len()).sum()))
    };
    assert!(matches!(session.write_with(take), Poll::Ready(Ok(()))));
}

fn request(step: u64) -> request::Parts {
    let mut head = Request::get("http://web-16.shop.maesh/api/items/16");
    for (name, value) in [
        ("user-agent", "grpc-go/1.85.0"),
        ("accept", "application/json, text/plain, */*"),
        ("accept-encoding", "gzip, deflate, br, zstd"),
        ("x-forwarded-for", "10.1.0.1"),
        ("x-forwarded-proto", "http"),
        ("x-forwarded-port", "80"),
    ] {
        head = head.header(name, value);
    }
    head = head.header("traceparent", format!("00-0af7651916cd43dd8448eb211c80319c-{step:016x}-01"));
    head = head.header("x-request-id", format!("5f2b7c1e-8d3a-4c7e-9a54-{step:012x}"));
    head.body(()).expect("a request").into_parts().0
}

fn response(step: u64) -> HeaderMap {
    let mut fields = HeaderMap::new();
    for (name, value) in [
        ("server", "nginx"),
        ("date", "Fri, 01 Jan 2027 00:00:00 GMT"),
        ("content-type", "application/json"),
        ("cache-control", "no-store"),
    ] {
        fields.insert(name, HeaderValue::from_static(value));
    }
    let id = HeaderValue::try_from(format!("5f2b7c1e-8d3a-4c7e-9a54-{step:012x}"));
    fields.insert("x-request-id", id.expect("a value"));
    fields
}
