use std::time::Duration;

use tokio::{
    io::{AsyncWriteExt, DuplexStream, duplex},
    time::timeout,
};

use super::*;

/// Reads the opening from the far end of `accepted`, with room for so many bytes at first.
async fn opening_of(accepted: &mut DuplexStream, room: usize) -> (Opening, BytesMut) {
    let mut first = BytesMut::with_capacity(room);
    let opening = timeout(Duration::from_secs(30), read_opening(accepted, &mut first, |_| true)).await;
    (opening.expect("in time").expect("read"), first)
}

#[tokio::test]
async fn what_was_read_is_handed_on() {
    let hello = sni::tests::client_hello("db.shop.maesh", true);
    let (mut caller, mut accepted) = duplex(64 * 1024);
    caller.write_all(&hello).await.expect("written");
    let (opening, first) = opening_of(&mut accepted, 4096).await;
    assert_eq!(opening, Opening::Named("db.shop.maesh".into()));
    assert!(first == hello);
}

#[tokio::test]
async fn a_hello_in_pieces_is_awaited() {
    let hello = sni::tests::client_hello("db.shop.maesh", true);
    let (mut caller, mut accepted) = duplex(64 * 1024);
    let reading = tokio::spawn(async move { opening_of(&mut accepted, 4096).await.0 });
    for piece in hello.chunks(hello.len() / 5 + 1) {
        assert!(!reading.is_finished());
        caller.write_all(piece).await.expect("written");
        for _ in 0..10 {
            tokio::task::yield_now().await;
        }
    }
    assert_eq!(reading.await.expect("read"), Opening::Named("db.shop.maesh".into()));
}

#[tokio::test]
async fn a_hello_longer_than_the_first_room() {
    let long = sni::tests::padded_hello("db.shop.maesh", 6_000);
    let (mut caller, mut accepted) = duplex(64 * 1024);
    caller.write_all(&long).await.expect("written");
    let (opening, first) = opening_of(&mut accepted, 4096).await;
    assert_eq!(opening, Opening::Named("db.shop.maesh".into()));
    assert!(first == long);
}

#[tokio::test]
async fn other_openings() {
    for (case, bytes, want) in [
        ("closes", &b""[..], Opening::Ended),
        ("closes in the middle", b"\x16\x03\x01\x02", Opening::Ended),
        ("HTTP", b"GET / HTTP/1.1\r\n\r\n", Opening::NotTls),
        ("one letter", b"G", Opening::NotTls),
    ] {
        let (mut caller, mut accepted) = duplex(1024);
        caller.write_all(bytes).await.expect("written");
        caller.shutdown().await.expect("closed");
        assert_eq!(opening_of(&mut accepted, 4096).await.0, want, "{case}");
    }
}

#[tokio::test]
async fn a_hello_that_does_not_fit_is_not_awaited() {
    let hello = sni::tests::client_hello("db.shop.maesh", true);
    let (mut caller, mut accepted) = duplex(64 * 1024);
    caller.write_all(&hello[..100]).await.expect("written");
    let mut first = BytesMut::new();
    let opening = timeout(Duration::from_secs(30), read_opening(&mut accepted, &mut first, |bytes| bytes < 100)).await;
    assert_eq!(opening.expect("in time").expect("read"), Opening::Ended);
}
