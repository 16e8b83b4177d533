use std::{future::Future, net::Ipv4Addr, time::Duration};

use hyper_util::rt::TokioIo;
use proptest::prelude::*;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpListener,
    task::yield_now,
    time::timeout,
};

use super::*;

const PATIENCE: Duration = Duration::from_secs(60);

async fn pair() -> (TokioIo<Socket>, TcpStream) {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
    let near = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
    (TokioIo::new(Socket::new(near)), listener.accept().await.unwrap().0)
}

/// Runs a test on an event loop with an outbox, and on one without.
fn on_both<F: Future<Output = ()>>(test: impl Fn() -> F) {
    for with_outbox in [true, false] {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            if with_outbox {
                tokio::spawn(run_outbox());
                while !outbox::is_open() {
                    yield_now().await;
                }
            }
            assert_eq!(outbox::is_open(), with_outbox);
            timeout(PATIENCE, test()).await.unwrap();
        });
        drop(runtime);
        assert!(!outbox::is_open());
    }
}

fn text(length: usize) -> Vec<u8> {
    (0..length).map(|position| (position % 251) as u8).collect()
}

#[test]
fn what_is_written_arrives_without_a_flush() {
    on_both(|| async {
        let (mut near, mut far) = pair().await;
        for word in [&b"one"[..], b"two", b"three"] {
            near.write_all(word).await.unwrap();
        }
        let mut got = [0; 11];
        far.read_exact(&mut got).await.unwrap();
        assert_eq!(&got, b"onetwothree");
    });
}

#[test]
fn many_sockets_at_once() {
    on_both(|| async {
        let mut pairs = Vec::new();
        for _ in 0..200 {
            pairs.push(pair().await);
        }
        for (near, _) in &mut pairs {
            near.write_all(b"hello").await.unwrap();
        }
        for (_, far) in &mut pairs {
            let mut got = [0; 5];
            far.read_exact(&mut got).await.unwrap();
            assert_eq!(&got, b"hello");
        }
    });
}

#[test]
fn closing_comes_after_what_was_written() {
    on_both(|| async {
        for shuts_down in [true, false] {
            let (mut near, mut far) = pair().await;
            near.write_all(b"last words").await.unwrap();
            if shuts_down {
                near.shutdown().await.unwrap();
            }
            drop(near);
            let mut got = Vec::new();
            far.read_to_end(&mut got).await.unwrap();
            assert_eq!(got, b"last words", "{shuts_down}");
        }
    });
}

#[test]
fn a_writer_to_a_peer_that_does_not_read_waits_and_goes_on() {
    on_both(|| async {
        let (mut near, mut far) = pair().await;
        let length = 12 << 20;
        let writer = tokio::spawn(async move {
            // Small pieces, so that some are put aside while the socket is full.
            for chunk in text(length).chunks(700) {
                near.write_all(chunk).await.unwrap();
            }
            near.flush().await.unwrap();
            near
        });
        for _ in 0..100 {
            yield_now().await;
        }
        assert!(!writer.is_finished());
        let mut got = vec![0; length];
        far.read_exact(&mut got).await.unwrap();
        assert!(got == text(length));
        writer.await.unwrap();
    });
}

#[test]
fn a_failure_reaches_the_writer() {
    on_both(|| async {
        let (mut near, far) = pair().await;
        far.set_zero_linger().unwrap();
        drop(far);
        let failed = async {
            loop {
                if near.write_all(b"anybody there?").await.is_err() || near.flush().await.is_err() {
                    return;
                }
                yield_now().await;
            }
        };
        timeout(PATIENCE, failed).await.unwrap();
    });
}

#[test]
fn reading_and_the_end() {
    on_both(|| async {
        let (mut near, mut far) = pair().await;
        far.write_all(b"question").await.unwrap();
        far.shutdown().await.unwrap();
        let mut got = Vec::new();
        near.read_to_end(&mut got).await.unwrap();
        assert_eq!(got, b"question");
    });
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(16))]
    /// Any order of small and large writes and flushes arrives as it was written.
    #[test]
    fn order_is_kept(writes in prop::collection::vec((1_usize..60_000, any::<bool>()), 1..30), reads in 1_usize..90_000) {
        on_both(|| async {
            let (mut near, mut far) = pair().await;
            let whole = text(writes.iter().map(|(length, _)| length).sum());
            let write = async {
                let mut rest = &whole[..];
                for (length, flush) in &writes {
                    let (chunk, after) = rest.split_at(*length);
                    near.write_all(chunk).await.unwrap();
                    if *flush {
                        near.flush().await.unwrap();
                    }
                    rest = after;
                }
                near.shutdown().await.unwrap();
            };
            let read = async {
                let (mut got, mut room) = (Vec::new(), vec![0; reads]);
                while let read @ 1.. = far.read(&mut room).await.unwrap() {
                    got.extend_from_slice(&room[..read]);
                }
                got
            };
            let ((), got) = tokio::join!(write, read);
            assert!(got == whole);
        });
    }
}
