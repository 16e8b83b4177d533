//! Connections that wait: laid by, taken up again, bounded.

use bytes::Bytes;
use http::Request;
use http_body_util::BodyExt as _;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpListener, TcpStream},
};

use super::*;
use crate::http::body::Upload;

async fn ask(connection: &mut H1) -> Bytes {
    let answer = connection.exchange(Request::new(Upload::empty())).await.map_err(|failed| failed.into_error());
    let body = answer.expect("answered").into_body();
    let mut collected = std::pin::pin!(body.collect());
    let collected = std::future::poll_fn(|cx| {
        connection.drive(cx);
        collected.as_mut().poll(cx)
    });
    collected.await.expect("whole").to_bytes()
}

/// A connection, and the endpoint's side of it.
async fn pair() -> (Box<H1>, TcpStream) {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("bound");
    let stream = TcpStream::connect(listener.local_addr().expect("bound")).await.expect("connected");
    let (endpoint, _) = listener.accept().await.expect("accepted");
    (H1::new(stream).await.expect("a connection"), endpoint)
}

async fn answer(endpoint: &mut TcpStream, body: &str) {
    let mut head = [0; 1024];
    assert!(endpoint.read(&mut head).await.expect("read") > 0);
    let text = format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{body}", body.len());
    endpoint.write_all(text.as_bytes()).await.expect("written");
}

#[tokio::test]
async fn what_was_laid_by_carries_the_next_request() {
    let (mut connection, mut endpoint) = pair().await;
    for round in ["first", "second", "third"] {
        let (said, ()) = tokio::join!(ask(&mut connection), answer(&mut endpoint, round));
        assert_eq!(said, round);
        let socket = connection.lay_by().expect("nothing was said");
        connection = H1::again(socket).await.expect("taken up");
        assert!(connection.reused);
    }
}

#[tokio::test]
async fn only_so_many_keep_their_buffers() {
    let warm = Warm::default();
    let mut rooms: Vec<_> = (0..WARM).map(|_| warm.enter().expect("room")).collect();
    assert!(warm.enter().is_none() && warm.enter().is_none());
    rooms.pop();
    assert!(warm.enter().is_some());
}

#[tokio::test]
async fn the_oldest_are_laid_by_and_the_order_stays() {
    let warm = Warm::default();
    let mut kept = Vec::new();
    let mut endpoints = Vec::new();
    for since in 0..4 {
        let (connection, endpoint) = pair().await;
        kept.push((Unused::Warm(connection, warm.enter().expect("room")), since));
        endpoints.push(endpoint);
    }
    for count in [0, 2, 3] {
        lay_by(&mut kept, count);
        let cold: Vec<_> = kept.iter().map(|(unused, _)| matches!(unused, Unused::Cold(_))).collect();
        assert_eq!(cold, (0..4).map(|at| at < count).collect::<Vec<_>>());
        assert_eq!(kept.iter().map(|(_, since)| *since).collect::<Vec<_>>(), [0, 1, 2, 3]);
    }
    assert_eq!(warm.0.load(Ordering::Relaxed), 1);
}
