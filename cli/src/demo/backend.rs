//! The toy backends of the demo: two that always answer and one that keeps going away.

use std::{
    net::{Ipv4Addr, SocketAddr},
    pin::pin,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use anyhow::Context as _;
use bytes::Bytes;
use http::{Request, Response};
use http_body_util::Full;
use hyper::{body::Incoming, server::conn::http1, service::service_fn};
use hyper_util::rt::TokioIo;
use tokio::{
    net::{TcpListener, TcpSocket, TcpStream},
    task::{JoinHandle, JoinSet},
};
use tokio_util::sync::CancellationToken;

/// How long the flaky backend is up, and then down.
pub const FLAKY_PHASE: Duration = Duration::from_secs(1);

/// A backend that runs until it is dropped.
pub struct Backend {
    /// What it calls itself.
    pub name: &'static str,
    /// Where it listens.
    pub address: SocketAddr,
    answered: Arc<AtomicU64>,
    task: JoinHandle<()>,
}

impl Backend {
    /// Counts the requests or connections it answered.
    pub fn counter(&self) -> Arc<AtomicU64> {
        self.answered.clone()
    }
}

impl Drop for Backend {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// An HTTP backend that says its name.
pub fn steady(name: &'static str) -> anyhow::Result<Backend> {
    let listener = listen(0)?;
    start(name, listener, |listener, answered| async move {
        serve(name, &listener, &answered, &CancellationToken::new()).await;
    })
}

/// An HTTP backend that refuses connections, and drops those it has, every other second.
pub fn flaky(name: &'static str) -> anyhow::Result<Backend> {
    let listener = listen(0)?;
    let address = listener.local_addr().context("flaky backend")?;
    start(name, listener, move |first, answered| async move {
        let mut listener = Some(first);
        loop {
            if let Some(up) = listener.take().or_else(|| listen(address.port()).ok()) {
                let down = CancellationToken::new();
                let _ = tokio::time::timeout(FLAKY_PHASE, serve(name, &up, &answered, &down)).await;
                // What is in flight may finish; whoever comes now is refused.
                down.cancel();
            }
            tokio::time::sleep(FLAKY_PHASE).await;
        }
    })
}

/// A TCP backend that sends back what it gets.
pub fn echo(name: &'static str) -> anyhow::Result<Backend> {
    let listener = listen(0)?;
    start(name, listener, |listener, answered| async move {
        let mut connections = JoinSet::new();
        while let Ok((mut stream, _)) = listener.accept().await {
            answered.fetch_add(1, Ordering::Relaxed);
            while connections.try_join_next().is_some() {}
            connections.spawn(async move {
                let (mut read, mut write) = stream.split();
                let _ = tokio::io::copy(&mut read, &mut write).await;
            });
        }
    })
}

fn start<F, T>(name: &'static str, listener: TcpListener, run: F) -> anyhow::Result<Backend>
where
    F: FnOnce(TcpListener, Arc<AtomicU64>) -> T,
    T: Future<Output = ()> + Send + 'static,
{
    let address = listener.local_addr().with_context(|| format!("backend {name}"))?;
    let answered = Arc::new(AtomicU64::new(0));
    let task = tokio::spawn(run(listener, answered.clone()));
    Ok(Backend { name, address, answered, task })
}

fn listen(port: u16) -> anyhow::Result<TcpListener> {
    let socket = TcpSocket::new_v4()?;
    socket.set_reuseaddr(true)?;
    socket.bind((Ipv4Addr::LOCALHOST, port).into())?;
    Ok(socket.listen(256)?)
}

async fn serve(name: &'static str, listener: &TcpListener, answered: &Arc<AtomicU64>, down: &CancellationToken) {
    while let Ok((stream, _)) = listener.accept().await {
        tokio::spawn(connection(name, stream, answered.clone(), down.clone()));
    }
}

async fn connection(name: &'static str, stream: TcpStream, answered: Arc<AtomicU64>, down: CancellationToken) {
    let answer = |request: Request<Incoming>| {
        answered.fetch_add(1, Ordering::Relaxed);
        let body = format!("{name} answers {} {}\n", request.method(), request.uri().path());
        async { Ok::<_, std::convert::Infallible>(Response::new(Full::new(Bytes::from(body)))) }
    };
    let mut connection = pin!(http1::Builder::new().serve_connection(TokioIo::new(stream), service_fn(answer)));
    tokio::select! {
        _ = connection.as_mut() => return,
        () = down.cancelled() => connection.as_mut().graceful_shutdown(),
    }
    // A caller that went away in the middle is no concern of a toy.
    let _ = connection.await;
}
