//! Both sides of a connection, without a socket: what arrives, what is refused, and that nothing stands still.

mod late;
mod peers;
mod refusals;
mod whole;

use std::{future::poll_fn, time::Duration};

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Request, StatusCode, request};
use proptest::prelude::*;

use self::peers::{Pipe, Served, connect, echo};
use crate::{Config, Error, Initiator, Reason, RecvStream, SendStream, Sender};

const CONFIG: Config = Config { stream_window: 64 * 1024, connection_window: 1 << 20, streams: 100, head: 16 * 1024 };

fn post(path: &str) -> request::Parts {
    Request::post(format!("http://web.shop{path}")).body(()).expect("a request").into_parts().0
}

/// Sends all of `data`. An odd number of bytes ends the stream with the last one, an even one is followed by trailers.
async fn upload(send: &mut SendStream, mut data: Bytes) -> Result<(), Error> {
    let ends = !data.len().is_multiple_of(2);
    while !data.is_empty() {
        poll_fn(|cx| send.poll_send(cx, &mut data, ends)).await?;
    }
    if ends {
        return Ok(());
    }
    let mut trailers = HeaderMap::new();
    trailers.insert("x-sum", HeaderValue::from_static("7"));
    send.send_trailers(&trailers)
}

/// Reads all that comes, and lets more come as it is read.
async fn download(recv: &mut RecvStream) -> Result<(Vec<u8>, Option<HeaderMap>), Error> {
    let mut all = Vec::new();
    while let Some(data) = poll_fn(|cx| recv.poll_data(cx)).await.transpose()? {
        all.extend_from_slice(&data);
        tokio::task::yield_now().await;
        recv.release(data.len());
    }
    Ok((all, poll_fn(|cx| recv.poll_trailers(cx)).await?))
}

/// An exchange in which both bodies move at once.
async fn exchange(sender: Sender, data: Bytes) -> Result<(StatusCode, Vec<u8>, Option<HeaderMap>), Error> {
    let (mut recv, send) = sender.request(&post("/echo"), &[], false)?;
    let mut send = send.expect("a body");
    let (sent, received) = tokio::join!(upload(&mut send, data), async {
        let head = poll_fn(|cx| recv.poll_response(cx)).await?;
        let (all, trailers) = download(&mut recv).await?;
        Ok((head.status, all, trailers))
    });
    sent?;
    received
}

/// With a clock that only moves when everything rests, whatever stands still fails at once.
async fn in_time<T>(doing: impl Future<Output = T>) -> T {
    tokio::time::timeout(Duration::from_secs(3600), doing).await.expect("nothing stands still")
}

fn run<T>(doing: impl Future<Output = T>) -> T {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build();
    runtime.expect("a runtime").block_on(in_time(doing))
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(60))]

    /// Whatever the sizes of bodies, windows, and of what the socket takes: everything arrives, and nothing stands still.
    #[test]
    fn everything_arrives(
        bodies in prop::collection::vec(0..200_000usize, 1..12),
        stream_window in 1_000..100_000u32,
        connection_window in 65_535..200_000u32,
        pipe in 500..100_000usize,
        read in 1..40_000usize,
    ) {
        run(async move {
            let config = Config { stream_window, connection_window, ..CONFIG };
            let (sender, _server) = connect(config, config, Pipe { size: pipe, read }, echo).await;
            let exchanges = bodies.iter().enumerate().map(|(number, length)| {
                let data: Bytes = (0..*length).map(|at| (at * 7 + number) as u8).collect();
                let sender = sender.clone();
                async move { (data.clone(), exchange(sender, data).await) }
            });
            for (data, outcome) in futures_util::future::join_all(exchanges).await {
                let (status, all, trailers) = outcome.expect("an exchange");
                assert_eq!(status, StatusCode::OK);
                assert!(all == data, "{} of {} bytes", all.len(), data.len());
                let sum = trailers.as_ref().map(|trailers| trailers["x-sum"].as_bytes());
                assert_eq!(sum, data.len().is_multiple_of(2).then_some(&b"7"[..]));
            }
        });
    }
}

/// More streams than get a turn at once, of which some are dropped while they wait, share the room.
#[test]
fn streams_that_wait_for_room_take_turns() {
    run(async {
        let (sender, _server) = connect(CONFIG, CONFIG, Pipe { size: 1_000, read: 1_000 }, echo).await;
        let dropped: Vec<_> = (0..40)
            .map(|_| {
                let sender = sender.clone();
                tokio::spawn(async move { exchange(sender, Bytes::from(vec![1; 1 << 20])).await })
            })
            .collect();
        let kept: Vec<_> = (0..40)
            .map(|_| {
                let sender = sender.clone();
                tokio::spawn(async move { exchange(sender, Bytes::from(vec![2; 50_000])).await })
            })
            .collect();
        for task in dropped {
            tokio::task::yield_now().await;
            task.abort();
        }
        for task in kept {
            let (_, all, _) = task.await.expect("no panic").expect("an exchange");
            assert_eq!(all.len(), 50_000);
        }
    });
}

/// A reader that reads nothing takes no more than its window, and nothing from others.
#[test]
fn a_reader_that_does_not_read_stops_nobody_else() {
    run(async {
        let (sender, _server) = connect(CONFIG, CONFIG, Pipe { size: 64 * 1024, read: 32 * 1024 }, echo).await;
        let mut stalled = Vec::new();
        for _ in 0..8 {
            let (recv, send) = sender.request(&post("/fill"), &[], true).expect("a stream");
            assert!(send.is_none());
            stalled.push(recv);
        }
        for _ in 0..50 {
            let (_, all, _) = exchange(sender.clone(), Bytes::from(vec![3; 40_000])).await.expect("an exchange");
            assert_eq!(all.len(), 40_000);
        }
        for recv in &stalled {
            assert_eq!(recv.meter().held(), 64 * 1024);
        }
    });
}

/// A server that leaves serves what it has taken, and then ends; a client opens nothing more on it.
#[test]
fn a_server_that_leaves_serves_what_it_has() {
    run(async {
        let (sender, server) = connect(CONFIG, CONFIG, Pipe { size: 9_000, read: 9_000 }, echo).await;
        let (recv, send) = sender.request(&post("/echo"), &[], false).expect("a stream");
        let (mut recv, mut send) = (recv, send.expect("a body"));
        let head = poll_fn(|cx| recv.poll_response(cx)).await.expect("a response");
        assert_eq!(head.status, StatusCode::OK);
        server.leave();
        let refused = loop {
            match sender.request(&post("/echo"), &[], true) {
                Ok((mut recv, _)) => drop(poll_fn(|cx| recv.poll_response(cx)).await),
                Err(error) => break error,
            }
            tokio::task::yield_now().await;
        };
        assert_eq!(refused, Error::GoAway(Reason::NO_ERROR, Initiator::Peer));
        upload(&mut send, Bytes::from(vec![4; 100_000])).await.expect("sent");
        drop(send);
        let (all, _) = download(&mut recv).await.expect("all");
        assert_eq!(all.len(), 100_000);
        drop(recv);
        assert_eq!(server.ended().await, Served::Ended(Ok(())));
    });
}

/// What a client no longer wants is reset, and a stream whose connection is lost ends with it.
#[test]
fn what_is_dropped_is_reset() {
    run(async {
        let (sender, server) = connect(CONFIG, CONFIG, Pipe { size: 9_000, read: 9_000 }, echo).await;
        let (mut recv, send) = sender.request(&post("/silent"), &[], false).expect("a stream");
        let (other, _) = sender.request(&post("/silent"), &[], true).expect("a stream");
        // The server has seen both once it has answered a later one.
        exchange(sender.clone(), Bytes::from_static(b"hello")).await.expect("an exchange");
        drop(other);
        assert_eq!(server.next_reset().await, Error::Reset(Reason::CANCEL, Initiator::Peer));
        drop(server);
        let error = poll_fn(|cx| recv.poll_response(cx)).await.expect_err("no response");
        assert_eq!(error, Error::Closed);
        let error = send.expect("a body").end().expect_err("it is over");
        assert_eq!(error, Error::Closed);
        assert!(sender.request(&post("/"), &[], true).is_err());
    });
}

/// A request above what the server allows is not sent.
#[test]
fn no_more_streams_than_are_allowed() {
    run(async {
        let config = Config { streams: 2, ..CONFIG };
        let (sender, _server) = connect(CONFIG, config, Pipe { size: 9_000, read: 9_000 }, echo).await;
        let first = sender.request(&post("/silent"), &[], true).expect("a stream");
        let _second = sender.request(&post("/silent"), &[], true).expect("a stream");
        assert_eq!(sender.request(&post("/silent"), &[], true).expect_err("too many"), Error::TooManyStreams);
        drop(first);
        let (mut recv, _) = sender.request(&post("/none"), &[], true).expect("a stream");
        let head = poll_fn(|cx| recv.poll_response(cx)).await.expect("a response");
        assert_eq!(head.status, StatusCode::NO_CONTENT);
        assert!(recv.is_at_end());
    });
}

/// A client is done once nobody can open a stream and all are over.
#[test]
fn a_client_that_nobody_needs_ends() {
    run(async {
        let (sender, server) = connect(CONFIG, CONFIG, Pipe { size: 9_000, read: 9_000 }, echo).await;
        exchange(sender.clone(), Bytes::from_static(b"hello")).await.expect("an exchange");
        drop(sender);
        assert_eq!(server.ended().await, Served::Ended(Err(Error::Closed)));
    });
}
