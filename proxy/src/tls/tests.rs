use std::net::Ipv4Addr;

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpListener,
};

use super::*;

async fn pair() -> (TcpStream, TcpStream) {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
    let near = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
    (near, listener.accept().await.unwrap().0)
}

#[tokio::test]
async fn nothing_is_taken_from_the_stream() {
    let hello = sni::tests::client_hello("db.shop.maesh", true);
    let (mut caller, mut accepted) = pair().await;
    caller.write_all(&hello).await.unwrap();
    let opening = peek(&accepted, Duration::from_secs(30)).await.unwrap();
    assert_eq!(opening, Opening::Named("db.shop.maesh".into()));
    let mut again = vec![0; hello.len()];
    accepted.read_exact(&mut again).await.unwrap();
    assert!(again == hello);
}

#[tokio::test]
async fn a_hello_in_pieces_is_awaited() {
    let hello = sni::tests::client_hello("db.shop.maesh", true);
    let (mut caller, accepted) = pair().await;
    let looking = tokio::spawn(async move { peek(&accepted, Duration::from_secs(30)).await.unwrap() });
    for piece in hello.chunks(hello.len() / 5 + 1) {
        assert!(!looking.is_finished());
        caller.write_all(piece).await.unwrap();
        for _ in 0..10 {
            tokio::task::yield_now().await;
        }
    }
    assert_eq!(looking.await.unwrap(), Opening::Named("db.shop.maesh".into()));
}

#[tokio::test]
async fn a_hello_longer_than_the_first_look() {
    let long = sni::tests::padded_hello("db.shop.maesh", 6_000);
    let (mut caller, accepted) = pair().await;
    caller.write_all(&long).await.unwrap();
    assert_eq!(peek(&accepted, Duration::from_secs(30)).await.unwrap(), Opening::Named("db.shop.maesh".into()));
}

#[tokio::test(start_paused = true)]
async fn other_openings() {
    for (case, bytes, closes, want) in [
        ("says nothing", &b""[..], false, Opening::Silent),
        ("closes", b"", true, Opening::Silent),
        ("stops in the middle", b"\x16\x03\x01\x02", false, Opening::Silent),
        ("closes in the middle", b"\x16\x03\x01\x02", true, Opening::Silent),
        ("HTTP", b"GET / HTTP/1.1\r\n\r\n", false, Opening::NotTls),
        ("one letter, and closes", b"G", true, Opening::NotTls),
    ] {
        let (mut caller, accepted) = pair().await;
        caller.write_all(bytes).await.unwrap();
        if closes {
            caller.shutdown().await.unwrap();
        }
        assert_eq!(peek(&accepted, Duration::from_secs(1)).await.unwrap(), want, "{case}");
    }
}
