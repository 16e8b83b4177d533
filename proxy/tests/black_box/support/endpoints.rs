//! Endpoints: what answers behind the proxy.

use std::{convert::Infallible, net::SocketAddr, sync::Arc};

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Request, Response};
use http_body_util::{BodyExt, Full, StreamBody, combinators::BoxBody};
use hyper::{body::Frame, body::Incoming, service::service_fn};
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::{
    net::{TcpListener, TcpStream},
    task::{JoinHandle, JoinSet},
};

use super::LOCAL;

pub type Body = BoxBody<Bytes, hyper::Error>;

/// A server that stops hard when dropped: its socket and all its connections are gone at once.
pub struct Server {
    pub address: SocketAddr,
    task: JoinHandle<()>,
}

impl Drop for Server {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Server {
    pub async fn stop(mut self) {
        self.task.abort();
        let _ = (&mut self.task).await;
    }
}

pub fn full(text: impl Into<Bytes>) -> Body {
    Full::new(text.into()).map_err(|never| match never {}).boxed()
}

/// A server that does with each connection what `serve` says, for as long as the test runs.
pub async fn raw<A>(serve: impl Fn(TcpStream) -> A + Send + 'static) -> SocketAddr
where
    A: Future<Output = ()> + Send + 'static,
{
    let listener = TcpListener::bind((LOCAL, 0)).await.expect("bound");
    let address = listener.local_addr().expect("bound");
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            tokio::spawn(serve(stream));
        }
    });
    address
}

/// A server of HTTP/1.1 (`h2` false) or HTTP/2 that answers with `answer`.
pub async fn serve<F, A>(h2: bool, answer: F) -> Server
where
    F: Fn(Request<Incoming>) -> A + Send + Sync + 'static,
    A: Future<Output = Response<Body>> + Send,
{
    let listener = TcpListener::bind((LOCAL, 0)).await.expect("bound");
    let address = listener.local_addr().expect("bound");
    let answer = Arc::new(answer);
    let task = tokio::spawn(async move {
        let mut connections = JoinSet::new();
        loop {
            let Ok((stream, _)) = listener.accept().await else { continue };
            let answer = answer.clone();
            connections.spawn(async move {
                let service = service_fn(move |request| {
                    let answer = answer.clone();
                    async move { Ok::<_, Infallible>(answer(request).await) }
                });
                let io = TokioIo::new(stream);
                if h2 {
                    let mut builder = hyper::server::conn::http2::Builder::new(TokioExecutor::new());
                    let _ = builder.enable_connect_protocol().serve_connection(io, service).await;
                } else {
                    let builder = hyper::server::conn::http1::Builder::new();
                    let _ = builder.serve_connection(io, service).with_upgrades().await;
                }
            });
        }
    });
    Server { address, task }
}

/// Says who it is, and what it was asked: `name METHOD target host` and then the fields, one a line.
pub async fn echo(h2: bool, name: &'static str) -> Server {
    serve(h2, move |request| async move {
        let (head, body) = request.into_parts();
        let host = head.headers.get("host").map_or_else(
            || head.uri.authority().map(ToString::to_string).unwrap_or_default(),
            |host| host.to_str().expect("text").to_owned(),
        );
        let mut text = format!("{name} {} {} {host}\n", head.method, head.uri.path_and_query().expect("a path"));
        for (name, value) in &head.headers {
            text += &format!("{name}: {}\n", String::from_utf8_lossy(value.as_bytes()));
        }
        if let Ok(body) = body.collect().await {
            text += "\n";
            text += &String::from_utf8_lossy(&body.to_bytes());
        }
        Response::new(full(text))
    })
    .await
}

/// Answers gRPC: the request's messages back, then trailers.
pub async fn grpc() -> Server {
    serve(true, |request| async move {
        let te = request.headers().get("te").cloned();
        let body = request.into_body().collect().await.expect("a body");
        let sent = body.trailers().and_then(|trailers| trailers.get("x-sent")).cloned();
        let mut trailers = HeaderMap::new();
        trailers.insert("grpc-status", HeaderValue::from_static("0"));
        if let Some(sent) = sent {
            trailers.insert("x-echo", sent);
        }
        if let Some(te) = te {
            trailers.insert("x-te", te);
        }
        let frames = [Ok(Frame::data(body.to_bytes())), Ok(Frame::trailers(trailers))];
        let body = StreamBody::new(futures_util::stream::iter(frames));
        let mut response = Response::new(BodyExt::boxed(body));
        response.headers_mut().insert("content-type", HeaderValue::from_static("application/grpc"));
        response
    })
    .await
}
