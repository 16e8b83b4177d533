//! Where a request of HTTP/1.1 ends: nothing that others could read in another way is served.

use crate::support::{Fed, Raw, config, echoing, endpoints, get, within};
use maesh_config::model::Scheme;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

fn chunked(host: &str, body: &str) -> String {
    format!("POST / HTTP/1.1\r\nHost: {host}\r\nTransfer-Encoding: chunked\r\n\r\n{body}")
}

const EVIL: &str = "GET /evil HTTP/1.1\r\nHost: web.shop\r\n\r\n";

/// Chunked bodies with lines that end in another way than by CR LF. A proxy in front that reads them in its own way would
/// take what follows for another request than this one does.
const MALFORMED: [(&str, &str); 12] = [
    ("a bare LF that ends a trailer", "0\r\nX: a\n\r\n"),
    ("bare LFs that end the trailers", "0\r\nX: a\n\n"),
    ("bare LFs right after the last chunk", "0\r\n\n\n"),
    ("a bare CR in a trailer", "0\r\nX: a\rb\r\n\r\n"),
    ("a folded trailer", "0\r\nX: a\r\n b\r\n\r\n"),
    ("trailers that begin with space", "0\r\n X: a\r\n\r\n"),
    ("a bare LF after a size", "3\nabc\r\n0\r\n\r\n"),
    ("a bare LF in an extension", "3;a=\nb\r\nabc\r\n0\r\n\r\n"),
    ("a bare CR in an extension", "3;a=\rb\r\nabc\r\n0\r\n\r\n"),
    ("a bare LF after the data", "3\r\nabc\n0\r\n\r\n"),
    ("a size of many digits", "00000000000000003\r\nabc\r\n0\r\n\r\n"),
    ("no size", ";a=b\r\nabc\r\n0\r\n\r\n"),
];

#[tokio::test]
async fn malformed_chunks_are_refused_and_nothing_after_them_is_served() {
    let (_fed, address, _server) = echoing().await;
    for (case, body) in MALFORMED {
        // The second is answered before its body is read, which then still is in the way of what follows.
        for (host, status) in [("web.shop", "400"), ("nobody.shop", "404")] {
            let mut raw = Raw::to(address).await;
            raw.say(&format!("{}{EVIL}{EVIL}", chunked(host, body))).await;
            let answer = raw.rest().await;
            assert!(answer.starts_with(&format!("HTTP/1.1 {status}")), "{case}: {answer}");
            assert_eq!(answer.matches("HTTP/1.1 ").count(), 1, "{case}: {answer}");
            assert!(!answer.contains("/evil"), "{case}: {answer}");
            assert!(status != "400" || answer.contains("x-maesh-reason: bad_request"), "{case}: {answer}");
        }
    }
}

/// What is well-formed is served, one response for each request and in order, however it arrives.
#[tokio::test]
async fn requests_that_follow_each_other_are_told_apart() {
    let (_fed, address, _server) = echoing().await;
    let requests = [
        chunked("web.shop", "3;a=\"b c\"\r\nabc\r\nA \t\r\n0123456789\r\n000\r\nX: y\r\nZ:\r\n\r\n"),
        get("web.shop", "/two"),
        "\r\nPOST /three HTTP/1.1\r\nHost: web.shop\r\nContent-Length: 4\r\n\r\n\r\n\n0".into(),
        "GET /four HTTP/1.1\nHost: web.shop\n\n".into(),
        chunked("web.shop", "0\r\n\r\n"),
        "GET /five HTTP/1.1\r\nHost: web.shop\r\nConnection: close\r\n\r\n".into(),
    ]
    .concat();
    for piece in [requests.len(), 1, 7] {
        let mut raw = Raw::to(address).await;
        for bytes in requests.as_bytes().chunks(piece) {
            raw.stream.write_all(bytes).await.expect("written");
            tokio::task::yield_now().await;
        }
        let answer = raw.rest().await;
        let asked: Vec<_> = answer.lines().filter_map(|line| line.strip_prefix("one ")).collect();
        let want = ["POST /", "GET /two", "POST /three", "GET /four", "POST /", "GET /five"];
        let want: Vec<_> = want.iter().map(|asked| format!("{asked} web.shop")).collect();
        assert_eq!(asked, want, "pieces of {piece}: {answer}");
        assert!(answer.contains("\nabc0123456789"), "{answer}");
    }
}

/// A fragment is refused wherever the request stands.
#[tokio::test]
async fn a_fragment_is_refused_in_every_request() {
    let (_fed, address, _server) = echoing().await;
    let bad = "GET /b#fragment HTTP/1.1\r\nHost: web.shop\r\n\r\n";
    for (before, want) in [(0, "400"), (1, "200 400"), (2, "200 200 400")] {
        let mut raw = Raw::to(address).await;
        raw.say(&format!("{}{bad}{EVIL}", get("web.shop", "/a").repeat(before))).await;
        let answer = raw.rest().await;
        let statuses: Vec<_> = answer.lines().filter_map(|line| line.strip_prefix("HTTP/1.1 ")?.get(..3)).collect();
        assert_eq!(statuses.join(" "), want, "{answer}");
        assert!(!answer.contains("/evil"), "{answer}");
    }
}

/// Heads that a parser could read in two ways.
#[tokio::test]
async fn malformed_heads_are_refused() {
    let (_fed, address, _server) = echoing().await;
    for (case, fields) in [
        ("a bare CR in a value", "X: a\rb\r\n"),
        ("a bare CR for a line's end", "X: a\rContent-Length: 5\r\n"),
        ("a folded value", "X: a\r\n b\r\n"),
        ("space before the colon", "Content-Length : 5\r\n"),
        ("a sign in the length", "Content-Length: +5\r\n"),
        ("two lengths", "Content-Length: 5\r\nContent-Length: 6\r\n"),
        ("lengths in a list", "Content-Length: 5, 5\r\n"),
    ] {
        let mut raw = Raw::to(address).await;
        raw.say(&format!("POST / HTTP/1.1\r\nHost: web.shop\r\n{fields}\r\nhello{EVIL}")).await;
        let answer = raw.rest().await;
        assert!(answer.starts_with("HTTP/1.1 400") && answer.contains("bad_request"), "{case}: {answer}");
        assert_eq!(answer.matches("HTTP/1.1 ").count(), 1, "{case}: {answer}");
    }
}

const WEBSOCKET: &str = "GET /chat HTTP/1.1\r\nHost: web.shop\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n";

/// Whether what follows a request to leave HTTP is HTTP is known only once it is answered.
#[tokio::test]
async fn what_follows_an_upgrade_is_read_as_what_was_agreed() {
    let server = endpoints::raw(|mut stream| async move {
        let mut heard = Vec::new();
        while !heard.ends_with(b"\r\n\r\n") {
            if !matches!(stream.read_buf(&mut heard).await, Ok(1..)) {
                return;
            }
        }
        let answer = "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n";
        stream.write_all(answer.as_bytes()).await.expect("written");
        let (mut reading, mut writing) = stream.split();
        let _ = tokio::io::copy(&mut reading, &mut writing).await;
    })
    .await;
    let fed = Fed::new(config()).await;
    fed.begin().await;
    let address = fed.http("web.shop", Scheme::Http, &[server]).await;
    let mut raw = Raw::to(address).await;
    raw.say(&format!("{WEBSOCKET}POST # HTTP\n\nearly")).await;
    assert!(raw.head().await.starts_with("http/1.1 101"));
    raw.say(" and late\n").await;
    within(raw.stream.shutdown()).await.expect("shut");
    assert_eq!(raw.rest().await, "POST # HTTP\n\nearly and late\n");

    // Not agreed: what follows is a request, and read as strictly as any other.
    let (_fed, address, _server) = echoing().await;
    let mut raw = Raw::to(address).await;
    raw.say(&format!(
        "{WEBSOCKET}{}{WEBSOCKET}{}{EVIL}",
        get("web.shop", "/two"),
        chunked("web.shop", "0\r\nX: a\n\r\n")
    ))
    .await;
    let answer = raw.rest().await;
    let statuses: Vec<_> = answer.lines().filter_map(|line| line.strip_prefix("HTTP/1.1 ")?.get(..3)).collect();
    assert_eq!(statuses.join(" "), "200 200 200 400", "{answer}");
    assert!(answer.contains("one GET /two ") && !answer.contains("/evil"), "{answer}");
}
