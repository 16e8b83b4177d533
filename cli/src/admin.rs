//! The admin endpoint of every role: health, readiness, metrics, the status API.
//!
//! It runs on a thread of its own, so that a scrape never waits for traffic nor traffic for a scrape. Whatever changes
//! something (the log level) is taken from loopback addresses only.

use std::{
    collections::BTreeMap,
    io,
    net::{SocketAddr, TcpListener},
    sync::Arc,
    time::Duration,
};

use anyhow::Context as _;
use bytes::Bytes;
use futures_util::future::BoxFuture;
use http::{Method, Request, Response, StatusCode, header};
use http_body_util::{BodyExt as _, Full, Limited};
use hyper::{body::Incoming, server::conn::http1, service::service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use parking_lot::Mutex;
use prometheus_client::registry::Registry;
use serde_json::{Value, json};
use tokio::sync::Semaphore;

use crate::logs::LogLevel;

/// Connections served at a time; more wait.
const CONNECTIONS: usize = 64;
/// Longest request head may take to arrive.
const HEAD_TIMEOUT: Duration = Duration::from_secs(10);
/// Largest body read (a log filter).
const BODY_LIMIT: usize = 4096;
/// Longest question behind a question mark.
const QUERY_LIMIT: usize = 2048;
/// Longest time that an answer may take.
const QUERY_TIMEOUT: Duration = Duration::from_secs(5);

/// Something that must hold before a role is ready.
pub type Check = Box<dyn Fn() -> Result<(), String> + Send + Sync>;
/// Makes one answer of the status API.
pub type View = Box<dyn Fn() -> Value + Send + Sync>;
/// Makes one answer that depends on parameters; the error says what is wrong with them.
pub type Query = Box<dyn Fn(Parameters) -> BoxFuture<'static, Result<Value, String>> + Send + Sync>;
/// What stands behind the question mark, each name once.
pub type Parameters = BTreeMap<String, String>;

/// What the endpoint shows.
pub struct Admin {
    /// Conditions of readiness, by name.
    pub checks: Vec<(&'static str, Check)>,
    /// Metrics of all roles in this process.
    pub metrics: Arc<Mutex<Registry>>,
    /// The status API, by path below `/api/`.
    pub views: BTreeMap<&'static str, View>,
    /// The same where there is something to ask for: `/api/NAME?name=value`.
    pub queries: BTreeMap<&'static str, Query>,
    /// The level of the logs.
    pub log_level: LogLevel,
}

/// Takes the port, so that a taken one is reported before anything else starts.
pub fn bind(address: SocketAddr) -> anyhow::Result<TcpListener> {
    let listener = TcpListener::bind(address).map_err(|error| taken(address, "--admin", &error))?;
    listener.set_nonblocking(true).context("admin listener")?;
    Ok(listener)
}

/// Says which port is taken and what to do.
pub fn taken(address: SocketAddr, flag: &str, error: &io::Error) -> anyhow::Error {
    let next = match error.kind() {
        io::ErrorKind::AddrInUse => format!(
            "port {} is taken; end the other program (`ss -ltnup 'sport = :{}'` shows it) or choose another with {flag}",
            address.port(),
            address.port()
        ),
        io::ErrorKind::PermissionDenied => {
            format!("ports below 1024 need a right this process lacks; choose another with {flag}")
        }
        io::ErrorKind::AddrNotAvailable => {
            format!("{} is no address of this machine; choose another with {flag}", address.ip())
        }
        _ => format!("choose another with {flag}"),
    };
    anyhow::anyhow!("cannot listen on {address}: {error}: {next}")
}

impl Admin {
    /// An endpoint that shows these metrics and is always ready.
    pub fn new(metrics: Arc<Mutex<Registry>>, log_level: LogLevel) -> Self {
        Self { checks: Vec::new(), metrics, views: BTreeMap::new(), queries: BTreeMap::new(), log_level }
    }

    /// One more condition of readiness.
    pub fn check(&mut self, name: &'static str, check: Check) {
        self.checks.push((name, check));
    }

    /// Serves on a thread of its own until the process ends.
    pub fn serve(self, listener: TcpListener) -> anyhow::Result<SocketAddr> {
        let address = listener.local_addr().context("admin listener")?;
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().context("admin runtime")?;
        let admin = Arc::new(self);
        std::thread::Builder::new()
            .name("admin".into())
            .spawn(move || runtime.block_on(accept(listener, admin)))
            .context("admin thread")?;
        Ok(address)
    }

    fn not_ready(&self) -> Vec<String> {
        let failed = |(name, check): &(&str, Check)| check().err().map(|why| format!("{name}: {why}"));
        self.checks.iter().filter_map(failed).collect()
    }

    async fn answer(&self, request: Request<Incoming>, from: SocketAddr) -> Response<Full<Bytes>> {
        let path = request.uri().path();
        if path == "/api/log-level" && request.method() == Method::PUT {
            return self.set_log_level(request, from).await;
        }
        if request.method() != Method::GET && request.method() != Method::HEAD {
            return text(StatusCode::METHOD_NOT_ALLOWED, "only GET is known here\n");
        }
        match path {
            "/livez" => text(StatusCode::OK, "ok\n"),
            "/readyz" => self.readiness(),
            "/metrics" => self.exposition(),
            "/api" | "/api/" => json_answer(&self.index()),
            "/api/log-level" => json_answer(&json!({ "level": self.log_level.get() })),
            path => {
                let name = path.strip_prefix("/api/").unwrap_or_default();
                if let Some(view) = self.views.get(name) {
                    return json_answer(&view());
                }
                match self.queries.get(name) {
                    Some(query) => ask(query, request.uri().query().unwrap_or_default()).await,
                    None => text(StatusCode::NOT_FOUND, "not found; see /livez, /readyz, /metrics, /api\n"),
                }
            }
        }
    }

    fn readiness(&self) -> Response<Full<Bytes>> {
        let failed = self.not_ready();
        if failed.is_empty() {
            return text(StatusCode::OK, "ok\n");
        }
        text(StatusCode::SERVICE_UNAVAILABLE, failed.join("\n") + "\n")
    }

    fn exposition(&self) -> Response<Full<Bytes>> {
        let mut body = String::new();
        match prometheus_client::encoding::text::encode(&mut body, &self.metrics.lock()) {
            Ok(()) => with_type("application/openmetrics-text; version=1.0.0; charset=utf-8", body),
            Err(error) => text(StatusCode::INTERNAL_SERVER_ERROR, format!("{error}\n")),
        }
    }

    fn index(&self) -> Value {
        let names = self.views.keys().copied().chain(["log-level"]);
        let paths = |names: &mut dyn Iterator<Item = &'static str>| {
            names.map(|name| format!("/api/{name}")).collect::<Vec<_>>()
        };
        json!({ "paths": paths(&mut { names }), "queries": paths(&mut self.queries.keys().copied()) })
    }

    async fn set_log_level(&self, request: Request<Incoming>, from: SocketAddr) -> Response<Full<Bytes>> {
        if !from.ip().to_canonical().is_loopback() {
            return text(StatusCode::FORBIDDEN, "the log level is changed from a loopback address only\n");
        }
        let Ok(body) = Limited::new(request.into_body(), BODY_LIMIT).collect().await else {
            return text(StatusCode::PAYLOAD_TOO_LARGE, "send the filter as the body, for instance: debug\n");
        };
        let body = body.to_bytes();
        let filter = std::str::from_utf8(&body).unwrap_or_default().trim();
        match self.log_level.set(filter) {
            Ok(()) => json_answer(&json!({ "level": self.log_level.get() })),
            Err(error) => text(StatusCode::BAD_REQUEST, format!("{error:#}\n")),
        }
    }
}

/// One answer that depends on parameters.
async fn ask(query: &Query, question: &str) -> Response<Full<Bytes>> {
    if question.len() > QUERY_LIMIT {
        return text(StatusCode::URI_TOO_LONG, "the question is too long\n");
    }
    let parameters = form_urlencoded::parse(question.as_bytes()).into_owned().collect();
    match tokio::time::timeout(QUERY_TIMEOUT, query(parameters)).await {
        Ok(Ok(answer)) => json_answer(&answer),
        Ok(Err(why)) => text(StatusCode::BAD_REQUEST, why + "\n"),
        Err(_) => text(StatusCode::SERVICE_UNAVAILABLE, "no answer in time; ask again\n"),
    }
}

async fn accept(listener: TcpListener, admin: Arc<Admin>) {
    let listener = match tokio::net::TcpListener::from_std(listener) {
        Ok(listener) => listener,
        Err(error) => return tracing::error!(%error, "admin endpoint ends"),
    };
    let places = Arc::new(Semaphore::new(CONNECTIONS));
    loop {
        let Ok(place) = places.clone().acquire_owned().await else { return };
        let (stream, from) = match listener.accept().await {
            Ok(accepted) => accepted,
            Err(error) => {
                tracing::warn!(%error, "admin endpoint: accept");
                tokio::time::sleep(Duration::from_millis(100)).await;
                continue;
            }
        };
        let admin = admin.clone();
        tokio::spawn(async move {
            let service =
                service_fn(|request| async { Ok::<_, std::convert::Infallible>(admin.answer(request, from).await) });
            let served = http1::Builder::new()
                .timer(TokioTimer::new())
                .header_read_timeout(HEAD_TIMEOUT)
                .serve_connection(TokioIo::new(stream), service)
                .await;
            if let Err(error) = served {
                tracing::debug!(%error, %from, "admin endpoint: connection");
            }
            drop(place);
        });
    }
}

fn text(status: StatusCode, body: impl Into<Bytes>) -> Response<Full<Bytes>> {
    let mut response = with_type("text/plain; charset=utf-8", body);
    *response.status_mut() = status;
    response
}

fn json_answer(value: &Value) -> Response<Full<Bytes>> {
    with_type("application/json", value.to_string() + "\n")
}

fn with_type(content_type: &'static str, body: impl Into<Bytes>) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(body.into()));
    response.headers_mut().insert(header::CONTENT_TYPE, header::HeaderValue::from_static(content_type));
    response
}
