//! Endpoints that choose HTTP/2 over TLS.

use std::{
    convert::Infallible,
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering},
    },
    time::Duration,
};

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Request, Response};
use http_body_util::{BodyExt, StreamBody};
use hyper::{body::Frame, body::Incoming, service::service_fn};
use hyper_util::rt::{TokioExecutor, TokioIo};
use maesh_config::model::{BackendPolicy, Protocol};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};
use tokio_rustls::server::TlsStream;

use crate::endpoints_tls::{fed, outcome};
use crate::support::{
    Raw, ask, endpoints,
    frames::{DATA, END_HEADERS, GOAWAY, HEADERS, OK, PING, SETTINGS, block, frame},
    tls::{self, Authority, NAME},
    within,
};

/// A server that chooses the first protocol of `offered` that the proxy offers too.
async fn server<A>(
    authority: &Authority,
    offered: &[&str],
    answer: impl Fn(TlsStream<TcpStream>) -> A + Send + Sync + 'static,
) -> SocketAddr
where
    A: Future<Output = ()> + Send + 'static,
{
    let mut config = tls::usual(authority);
    config.alpn_protocols = offered.iter().map(|name| name.as_bytes().to_vec()).collect();
    tls::serve(config, answer).await
}

/// Which protocol was chosen.
fn chosen(stream: &TlsStream<TcpStream>) -> String {
    String::from_utf8_lossy(stream.get_ref().1.alpn_protocol().unwrap_or(b"nothing")).into_owned()
}

/// Serves HTTP in the protocol that was chosen.
async fn answering<F>(stream: TlsStream<TcpStream>, answer: impl Fn(Request<Incoming>) -> F)
where
    F: Future<Output = Response<endpoints::Body>> + Send + 'static,
{
    let http2 = chosen(&stream) == "h2";
    let service = service_fn(|request| {
        let answered = answer(request);
        async move { Ok::<_, Infallible>(answered.await) }
    });
    let io = TokioIo::new(stream);
    // The proxy may close the connection at any time.
    let _ = if http2 {
        hyper::server::conn::http2::Builder::new(TokioExecutor::new()).serve_connection(io, service).await
    } else {
        hyper::server::conn::http1::Builder::new().serve_connection(io, service).await
    };
}

/// Answers `connection N PROTOCOL METHOD URI`, then `Host`, then the body.
async fn echo(authority: &Authority, offered: &[&str]) -> SocketAddr {
    let connections = AtomicU32::new(0);
    server(authority, offered, move |stream| {
        let number = connections.fetch_add(1, Ordering::Relaxed) + 1;
        let about = format!("connection {number} {}", chosen(&stream));
        answering(stream, move |request| {
            let about = about.clone();
            async move {
                let (head, body) = request.into_parts();
                let host = head.headers.get("host").map(|host| host.to_str().expect("text").to_owned());
                let body = body.collect().await.map_or_else(|error| error.to_string().into(), |body| body.to_bytes());
                let body = String::from_utf8_lossy(&body);
                let text = format!("{about} {} {}\n{}\n{body}", head.method, head.uri, host.unwrap_or_default());
                Response::new(endpoints::full(text))
            }
        })
    })
    .await
}

const BOTH: &[&str] = &["h2", "http/1.1"];
const GET: &str = "GET /pay?a=b HTTP/1.1\r\nHost: web.shop\r\n\r\n";

type Sender = hyper::client::conn::http2::SendRequest<endpoints::Body>;

/// A caller of HTTP/2.
async fn caller(to: SocketAddr) -> Sender {
    let io = TokioIo::new(TcpStream::connect(to).await.expect("connected"));
    let made = hyper::client::conn::http2::handshake(TokioExecutor::new(), io).await;
    let (sender, connection) = made.expect("a handshake");
    tokio::spawn(connection);
    sender
}

#[tokio::test]
async fn all_requests_share_a_connection_of_http2() {
    let authority = Authority::new();
    let (_fed, address) = fed(authority.policy(NAME), &[echo(&authority, BOTH).await]).await;
    for _ in 0..5 {
        let (_, body) = ask(address, GET).await;
        assert_eq!(body, "connection 1 h2 GET https://web.shop/pay?a=b\n\n");
        let request = "POST /pay HTTP/1.1\r\nHost: web.shop\r\nContent-Length: 4\r\n\r\ncoin";
        assert_eq!(ask(address, request).await.1, "connection 1 h2 POST https://web.shop/pay\n\ncoin");
    }
    let mut running = tokio::task::JoinSet::new();
    let sender = caller(address).await;
    for number in 0..50 {
        let mut sender = sender.clone();
        running.spawn(async move {
            let sent = Request::put(format!("http://web.shop/{number}")).body(endpoints::full(number.to_string()));
            let answer = within(sender.send_request(sent.expect("a request"))).await.expect("an answer");
            let body = answer.into_body().collect().await.expect("a body").to_bytes();
            assert_eq!(body, format!("connection 1 h2 PUT https://web.shop/{number}\n\n{number}"));
        });
    }
    while let Some(done) = within(running.join_next()).await {
        done.expect("answered");
    }
}

/// A rollout from one version of a server to another: each endpoint is spoken to as it chooses, and none is asked twice.
#[tokio::test]
async fn each_endpoint_chooses_for_itself() {
    let authority = Authority::new();
    let endpoints = [echo(&authority, BOTH).await, echo(&authority, &["http/1.1"]).await, echo(&authority, &[]).await];
    let (fed, address) = fed(authority.policy(NAME), &endpoints).await;
    let mut seen = std::collections::BTreeSet::new();
    let mut raw = Raw::to(address).await;
    for number in 0..60 {
        raw.say(&format!("POST /pay HTTP/1.1\r\nHost: web.shop\r\nContent-Length: 2\r\n\r\n{number:02}")).await;
        let (head, body) = raw.hear().await;
        assert_eq!(outcome(&head), (200, ""));
        let (about, rest) = body.split_once(" POST ").expect("what was asked");
        let want = if about.ends_with("h2") { "https://web.shop/pay\n\n" } else { "/pay\nweb.shop\n" };
        assert_eq!(rest, format!("{want}{number:02}"));
        seen.insert(about.to_owned());
    }
    let want = ["connection 1 h2", "connection 1 http/1.1", "connection 1 nothing"];
    assert_eq!(seen.iter().map(String::as_str).collect::<Vec<_>>(), want);
    assert_eq!(fed.counted("maesh_proxy_upstream_connects_total", &["outcome=\"ok\""]), 3);
}

#[tokio::test]
async fn grpc_with_trailers_both_ways() {
    let authority = Authority::new();
    let server = server(&authority, &["h2"], |stream| {
        answering(stream, |request| async {
            let scheme = request.uri().scheme_str().expect("a scheme").to_owned();
            let body = request.into_body().collect().await.expect("a body");
            let mut trailers = HeaderMap::new();
            trailers.insert("grpc-status", HeaderValue::from_static("0"));
            trailers.insert("x-echo", body.trailers().expect("trailers")["x-sent"].clone());
            trailers.insert("x-scheme", scheme.parse().expect("a value"));
            let frames = [Ok(Frame::data(body.to_bytes())), Ok(Frame::trailers(trailers))];
            let mut response = Response::new(BodyExt::boxed(StreamBody::new(futures_util::stream::iter(frames))));
            response.headers_mut().insert("content-type", HeaderValue::from_static("application/grpc"));
            response
        })
    })
    .await;
    let (_fed, address) = fed(authority.policy(NAME), &[server]).await;
    let mut trailers = HeaderMap::new();
    trailers.insert("x-sent", HeaderValue::from_static("yes"));
    let frames = [Ok(Frame::data(Bytes::from("\0\0\0\0\u{3}abc"))), Ok(Frame::trailers(trailers))];
    let request = Request::post("http://web.shop/pkg.Service/Method")
        .header("content-type", "application/grpc")
        .header("te", "trailers")
        .body(BodyExt::boxed(StreamBody::new(futures_util::stream::iter(frames))))
        .expect("a request");
    let answer = within(caller(address).await.send_request(request)).await.expect("an answer");
    let body = within(answer.into_body().collect()).await.expect("a body");
    let trailers = body.trailers().cloned().expect("trailers");
    for (name, value) in [("grpc-status", "0"), ("x-echo", "yes"), ("x-scheme", "https")] {
        assert_eq!(trailers[name], value, "{name}");
    }
    assert_eq!(&body.to_bytes()[..], b"\0\0\0\0\x03abc");
}

/// gRPC cannot do without HTTP/2, so an endpoint that does not choose it gets no request.
#[tokio::test]
async fn grpc_to_an_endpoint_without_http2() {
    let authority = Authority::new();
    for offered in [&["http/1.1"][..], &[]] {
        let (_fed, address) = fed(authority.policy(NAME), &[echo(&authority, offered).await]).await;
        for _ in 0..2 {
            let request = "POST /a.B/C HTTP/1.1\r\nHost: web.shop\r\nTE: trailers\r\nContent-Type: application/grpc\r\n\
                           Content-Length: 0\r\n\r\n";
            assert!(ask(address, request).await.0.contains("x-maesh-reason: upstream_protocol"));
        }
        assert_eq!(outcome(&ask(address, GET).await.0), (200, ""), "other requests are served");
    }
}

/// WebSocket begins in HTTP/1.1, also where other requests use HTTP/2.
#[tokio::test]
async fn an_upgrade_goes_over_http1() {
    let authority = Authority::new();
    let server = server(&authority, BOTH, |mut stream| async move {
        if chosen(&stream) == "h2" {
            return answering(stream, |_| async { Response::new(endpoints::full("h2")) }).await;
        }
        let mut heard = Vec::new();
        while !heard.ends_with(b"\r\n\r\n") && matches!(stream.read_buf(&mut heard).await, Ok(1..)) {}
        let answer = "HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: websocket\r\n\r\nhello";
        stream.write_all(answer.as_bytes()).await.expect("written");
        stream.shutdown().await.expect("ended");
    })
    .await;
    let (_fed, address) = fed(authority.policy(NAME), &[server]).await;
    for _ in 0..2 {
        assert_eq!(ask(address, GET).await.1, "h2");
        let mut raw = Raw::to(address).await;
        raw.say(
            "GET /chat HTTP/1.1\r\nHost: web.shop\r\nConnection: upgrade\r\nUpgrade: websocket\r\n\
             Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n",
        )
        .await;
        let head = raw.head().await;
        assert!(head.starts_with("http/1.1 101"), "{head}");
        assert_eq!(raw.rest().await, "hello");
    }
}

/// A connection of HTTP/2, too, is used only by those who asked for just that identity.
#[tokio::test]
async fn connections_belong_to_their_identity() {
    let (authority, other) = (Authority::new(), Authority::new());
    let (fed, address) = fed(authority.policy(NAME), &[echo(&authority, BOTH).await]).await;
    let mut raw = Raw::to(address).await;
    for (case, backend, want) in [
        ("as it is", None, "connection 1 h2 "),
        ("the same again", Some(authority.policy(NAME)), "connection 1 h2 "),
        ("other roots", Some(other.policy(NAME)), ""),
        ("as before", Some(authority.policy(NAME)), "connection 2 h2 "),
    ] {
        if let Some(backend) = backend {
            fed.define("web.shop", address.port(), Protocol::Http, backend, Vec::new());
            fed.push_service("web.shop").await;
        }
        raw.say(GET).await;
        let (head, body) = raw.hear().await;
        assert_eq!(outcome(&head), if want.is_empty() { (502, "connect_failed") } else { (200, "") }, "{case}");
        assert!(body.starts_with(want) || want.is_empty(), "{case}: {body}");
    }
}

#[tokio::test]
async fn large_bodies_pass_unchanged() {
    let authority = Authority::new();
    let server = server(&authority, BOTH, |stream| {
        answering(stream, |request| async { Response::new(request.into_body().boxed()) })
    })
    .await;
    let (_fed, address) = fed(authority.policy(NAME), &[server]).await;
    let sent: Bytes = (0..4_000_000_u32).map(|at| (at % 251) as u8).collect();
    let sender = caller(address).await;
    let mut running = tokio::task::JoinSet::new();
    for _ in 0..3 {
        let (mut sender, sent) = (sender.clone(), sent.clone());
        running.spawn(async move {
            let request = Request::post("http://web.shop/").body(endpoints::full(sent.clone())).expect("a request");
            let answer = within(sender.send_request(request)).await.expect("an answer");
            let body = within(answer.into_body().collect()).await.expect("a body").to_bytes();
            assert!(body == sent, "{} bytes of {}", body.len(), sent.len());
        });
    }
    while let Some(done) = within(running.join_next()).await {
        done.expect("unchanged");
    }
}

/// What an endpoint may do once it has chosen HTTP/2.
#[tokio::test]
async fn an_endpoint_that_does_not_speak_what_it_chose() {
    let authority = Authority::new();
    let pings: Vec<u8> =
        frame(SETTINGS, 0, 0, &[]).into_iter().chain((0..50_000).flat_map(|_| frame(PING, 0, 0, &[0; 8]))).collect();
    let settings = |rest: Vec<u8>| [frame(SETTINGS, 0, 0, &[]), rest].concat();
    for (case, says, want) in [
        ("nothing", Vec::new(), (504, "connect_timeout")),
        ("HTTP/1.1", b"HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\n\r\n".to_vec(), (502, "connect_failed")),
        ("part of a frame", frame(SETTINGS, 0, 0, &[0; 6])[..12].to_vec(), (504, "connect_timeout")),
        ("leave", settings(frame(GOAWAY, 0, 0, &[0; 8])), (502, "upstream_closed")),
        ("pings without end", pings, (502, "upstream_closed")),
        (
            "a malformed head",
            settings(frame(HEADERS, END_HEADERS, 1, &block(&[(":status", "two hundred")]))),
            (502, "upstream_protocol"),
        ),
    ] {
        let says = Arc::new(says);
        let server = server(&authority, BOTH, move |stream| {
            let says = says.clone();
            async move {
                let (mut read, mut write) = tokio::io::split(stream);
                let reading = async {
                    let mut bytes = [0; 4096];
                    // What the endpoint says to a request comes after that.
                    let _ = read.read(&mut bytes).await;
                    bytes
                };
                let writing = async {
                    let _ = write.write_all(&says).await;
                    let _ = write.flush().await;
                };
                tokio::join!(reading, writing);
                let _ = tokio::io::copy(&mut read, &mut tokio::io::sink()).await;
            }
        })
        .await;
        let backend = BackendPolicy { connect_timeout: Duration::from_millis(300), ..authority.policy(NAME) };
        let (_fed, address) = fed(backend, &[server]).await;
        let (head, _) = ask(address, GET).await;
        let (status, reason) = outcome(&head);
        // Whether it is noticed before the request is sent or after it is a race.
        let may = (status, reason) == want || (status == 502 && want.0 == 502 && !reason.is_empty());
        assert!(may, "{case}: {head}");
    }
}

/// A response that ends with the socket, without a `close_notify` and without the end of its stream, is cut off.
#[tokio::test]
async fn a_response_that_is_cut_off_is_not_complete() {
    let authority = Authority::new();
    let server = server(&authority, &["h2"], |mut stream| async move {
        let settings = frame(SETTINGS, 0, 0, &[]);
        stream.write_all(&settings).await.expect("written");
        stream.flush().await.expect("flushed");
        let mut heard = Vec::new();
        // The preface, SETTINGS, and then the request.
        while !heard.windows(4).any(|bytes| bytes == b"/pay") && matches!(stream.read_buf(&mut heard).await, Ok(1..)) {}
        let answer = [frame(HEADERS, END_HEADERS, 1, OK), frame(DATA, 0, 1, b"part")].concat();
        stream.write_all(&answer).await.expect("written");
        stream.flush().await.expect("flushed");
    })
    .await;
    let (_fed, address) = fed(authority.policy(NAME), &[server]).await;
    let mut raw = Raw::to(address).await;
    raw.say("GET /pay HTTP/1.1\r\nHost: web.shop\r\n\r\n").await;
    let answer = raw.rest().await;
    assert!(answer.ends_with("4\r\npart\r\n"), "{answer}");
}

const GRPC: &str = "POST /a.B/C HTTP/1.1\r\nHost: web.shop\r\nTE: trailers\r\nContent-Type: application/grpc\r\n\
                    Content-Length: 0\r\n\r\n";
const CHAT: &str = "GET /chat HTTP/1.1\r\nHost: web.shop\r\nConnection: upgrade\r\nUpgrade: websocket\r\n\
                    Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n";

/// A call that the endpoint of this kind cannot serve says nothing of the endpoint: it goes to another one, without a connection that
/// is of no use, and requests of other kinds are sent there as before.
#[tokio::test]
async fn what_an_endpoint_does_not_speak_is_not_its_fault() {
    let authority = Authority::new();
    let mut endpoints = vec![echo(&authority, &["h2"]).await];
    for _ in 0..3 {
        endpoints.push(echo(&authority, &["http/1.1"]).await);
    }
    let (fed, address) = fed(authority.policy(NAME), &endpoints).await;
    for number in 0..20 {
        assert_eq!(outcome(&ask(address, GRPC).await.0), (200, ""), "call {number}");
    }
    for number in 0..20 {
        // The echo answers 200: what matters is that an endpoint of HTTP/1.1 was asked.
        let (head, body) = ask(address, CHAT).await;
        assert!(outcome(&head).0 == 200 && body.contains(" http/1.1 GET /chat"), "upgrade {number}: {head}{body}");
    }
    let mut seen = std::collections::BTreeSet::new();
    for _ in 0..100 {
        let (head, body) = ask(address, GET).await;
        assert_eq!(outcome(&head), (200, ""));
        seen.insert(body.split(' ').nth(2).expect("a protocol").to_owned());
    }
    assert_eq!(seen.into_iter().collect::<Vec<_>>(), ["h2", "http/1.1"], "none of them was ejected");
    assert_eq!(fed.counted("maesh_proxy_ejections_total", &[]), 0);
    let connects = fed.counted("maesh_proxy_upstream_connects_total", &["outcome=\"ok\""]);
    assert!(connects < 40, "{connects} connections for 20 calls of gRPC and 20 upgrades");
}

/// A server of HTTP/1.1 is replaced by one of HTTP/2 at the same address, as when a container starts again.
#[tokio::test]
async fn an_endpoint_may_become_another_program() {
    let authority = Authority::new();
    let protocols: Arc<std::sync::Mutex<Vec<Vec<u8>>>> = Arc::new(std::sync::Mutex::new(vec![b"http/1.1".to_vec()]));
    let (authority, speaks) = (Arc::new(authority), protocols.clone());
    let signs = authority.clone();
    let endpoint = endpoints::raw(move |stream| {
        let mut config = tls::usual(&signs);
        config.alpn_protocols = speaks.lock().expect("lock").clone();
        async move {
            // A handshake may be made to fail.
            if let Ok(stream) = tokio_rustls::TlsAcceptor::from(Arc::new(config)).accept(stream).await {
                let about = chosen(&stream);
                answering(stream, move |_| {
                    let mut response = Response::new(endpoints::full(about.clone()));
                    if about == "http/1.1" {
                        response.headers_mut().insert("connection", HeaderValue::from_static("close"));
                    }
                    async move { response }
                })
                .await;
            }
        }
    })
    .await;
    let (_fed, address) = fed(authority.policy(NAME), &[endpoint]).await;
    for _ in 0..3 {
        assert_eq!(ask(address, GET).await.1, "http/1.1");
    }
    *protocols.lock().expect("lock") = vec![b"h2".to_vec()];
    for _ in 0..3 {
        let (head, body) = ask(address, "POST / HTTP/1.1\r\nHost: web.shop\r\nContent-Length: 2\r\n\r\nhi").await;
        assert_eq!((outcome(&head), &*body), ((200, ""), "h2"));
    }
}

/// Authorities that are replaced again and again, of which the endpoint's is always one: requests that began under the old ones are
/// answered as those that begin under the new ones are.
#[tokio::test]
async fn authorities_change_under_many_requests() {
    let (authority, other) = (Authority::new(), Authority::new());
    let mut config = tls::usual(&authority);
    config.alpn_protocols = vec![b"h2".to_vec()];
    let acceptor = tokio_rustls::TlsAcceptor::from(Arc::new(config));
    let server = endpoints::raw(move |stream| {
        let acceptor = acceptor.clone();
        async move {
            // Slower than the authorities change.
            tokio::time::sleep(Duration::from_millis(50)).await;
            if let Ok(stream) = acceptor.accept(stream).await {
                answering(stream, |_| async { Response::new(endpoints::full("done")) }).await;
            }
        }
    })
    .await;
    let (fed, address) = fed(authority.policy(NAME), &[server]).await;
    let stop = tokio_util::sync::CancellationToken::new();
    let mut callers = tokio::task::JoinSet::new();
    for _ in 0..50 {
        let stop = stop.clone();
        callers.spawn(async move {
            let mut raw = Raw::to(address).await;
            while !stop.is_cancelled() {
                raw.say(GET).await;
                let (head, _) = raw.hear().await;
                assert_eq!(outcome(&head), (200, ""));
            }
        });
    }
    let mut pace = tokio::time::interval(Duration::from_millis(10));
    for number in 0..100 {
        pace.tick().await;
        let roots = if number % 2 == 0 { vec![other.der(), authority.der()] } else { vec![authority.der()] };
        let backend = tls::policy(NAME, maesh_config::policy::TlsRoots::Certificates(roots.into()));
        fed.define("web.shop", address.port(), Protocol::Http, backend, Vec::new());
        fed.push_service("web.shop").await;
    }
    stop.cancel();
    while let Some(done) = within(callers.join_next()).await {
        done.expect("answered");
    }
}
