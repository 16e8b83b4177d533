//! Requests that ask to leave HTTP: what reaches the endpoint, and what becomes of the connections.

mod support;

use std::{
    net::SocketAddr,
    sync::{Arc, Mutex},
    time::Duration,
};

use maesh_config::model::Scheme;
use support::{Fed, Raw, ask, config, endpoints, get, within};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};

const BODY: &str = "{\"Detach\":false,\"Tty\":true}";

fn upgrade(path: &str) -> String {
    format!(
        "POST {path} HTTP/1.1\r\nHost: web.shop\r\nConnection: Upgrade\r\nUpgrade: tcp\r\nContent-Length: {}\r\n\r\n\
         {BODY}",
        BODY.len()
    )
}

async fn fed(endpoint: SocketAddr) -> (Fed, SocketAddr) {
    let fed = Fed::new(config()).await;
    fed.begin().await;
    let address = fed.http("web.shop", Scheme::Http, &[endpoint]).await;
    (fed, address)
}

/// Reads until `text` has come, or the end.
async fn read_until(stream: &mut TcpStream, heard: &mut Vec<u8>, text: &[u8]) -> bool {
    while !heard.windows(text.len()).any(|part| part == text) {
        if !matches!(stream.read_buf(heard).await, Ok(1..)) {
            return false;
        }
    }
    true
}

/// `docker exec` posts JSON and asks for an upgrade in one request: the endpoint gets both.
#[tokio::test]
async fn the_body_of_an_upgrade_reaches_the_endpoint() {
    let endpoint = endpoints::raw(|mut stream| async move {
        let mut heard = Vec::new();
        if read_until(&mut stream, &mut heard, BODY.as_bytes()).await {
            let answer = "HTTP/1.1 101 UPGRADED\r\nConnection: Upgrade\r\nUpgrade: tcp\r\n\r\nhello ";
            stream.write_all(answer.as_bytes()).await.expect("written");
            let mut word = [0; 3];
            stream.read_exact(&mut word).await.expect("read");
            stream.write_all(&word).await.expect("written");
        }
    })
    .await;
    let (_fed, address) = fed(endpoint).await;
    let mut raw = Raw::to(address).await;
    raw.say(&upgrade("/exec")).await;
    let head = raw.head().await;
    assert!(head.starts_with("http/1.1 101") && head.contains("\r\nupgrade: tcp\r\n"), "{head}");
    raw.say("you").await;
    assert_eq!(raw.rest().await, "hello you");
}

/// An endpoint that answers an upgrade before it has read the body: nothing of the next caller's request may become part
/// of that body, so no other request comes on its connection.
#[tokio::test]
async fn a_connection_that_was_asked_to_leave_http_is_not_used_again() {
    let transcripts: Arc<Mutex<Vec<String>>> = Arc::default();
    let log = transcripts.clone();
    let endpoint = endpoints::raw(move |mut stream| {
        let log = log.clone();
        async move {
            let (mut heard, mut answered) = (Vec::new(), 0);
            let place = {
                let mut log = log.lock().expect("lock");
                log.push(String::new());
                log.len() - 1
            };
            while let Ok(1..) = stream.read_buf(&mut heard).await {
                log.lock().expect("lock")[place] = String::from_utf8_lossy(&heard).into_owned();
                let heads = heard.windows(4).filter(|four| *four == b"\r\n\r\n").count();
                for _ in answered..heads {
                    let _ = stream.write_all(b"HTTP/1.1 403 Forbidden\r\nContent-Length: 2\r\n\r\nno").await;
                }
                answered = heads;
            }
        }
    })
    .await;
    let (_fed, address) = fed(endpoint).await;
    for _ in 0..8 {
        assert!(ask(address, &upgrade("/first")).await.0.starts_with("http/1.1 403"));
        assert!(ask(address, &get("web.shop", "/second")).await.0.starts_with("http/1.1 403"));
    }
    let bodies = || transcripts.lock().expect("lock").iter().filter(|text| text.contains(BODY)).count();
    within(async {
        while bodies() < 8 {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    })
    .await;
    for text in transcripts.lock().expect("lock").iter() {
        let end = text.find(BODY).map(|at| at + BODY.len());
        assert!(end.is_none_or(|end| end == text.len()), "a request after that of an upgrade: {text}");
    }
}

/// An endpoint that switches protocols unasked, or before it has the request: the caller's next bytes are not its.
#[tokio::test]
async fn an_endpoint_does_not_leave_http_by_itself() {
    let endpoint = endpoints::raw(|mut stream| async move {
        if read_until(&mut stream, &mut Vec::new(), b"\r\n\r\n").await {
            let answer = "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: tcp\r\n\r\n";
            stream.write_all(answer.as_bytes()).await.expect("written");
            let _ = stream.read_to_end(&mut Vec::new()).await;
        }
    })
    .await;
    let (_fed, address) = fed(endpoint).await;
    let half =
        "POST / HTTP/1.1\r\nHost: web.shop\r\nConnection: Upgrade\r\nUpgrade: tcp\r\nContent-Length: 9\r\n\r\nhalf";
    for (case, request) in [("unasked", get("web.shop", "/")), ("early", half.to_owned())] {
        let (head, _) = ask(address, &request).await;
        assert!(head.starts_with("http/1.1 502"), "{case}: {head}");
        assert!(head.contains("x-maesh-reason: upstream_protocol\r\n"), "{case}: {head}");
    }
}
