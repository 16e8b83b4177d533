//! The admin endpoint of every role: health, readiness, metrics, the status API.
//!
//! It runs on a thread of its own, so that a scrape never waits for traffic nor traffic for a scrape. Probes are answered
//! there; what takes longer (metrics, views) is made on another thread, for a few requests at a time. Whatever changes
//! something (the log level) is taken from loopback addresses only. Other addresses may read probes and metrics, and the status
//! API where they were allowed to ([`readers`]). A page in somebody's browser learns nothing here ([`host`]).

mod exposition;
mod host;
mod openapi;
mod page;
mod readers;
mod serve;

use std::{
    collections::BTreeMap,
    convert::identity,
    io,
    net::{IpAddr, SocketAddr, TcpListener},
    sync::Arc,
    time::{Duration, Instant},
};

use anyhow::Context as _;
use bytes::Bytes;
use futures_util::future::BoxFuture;
use http::{Method, Request, Response, StatusCode, header};
use http_body_util::{BodyExt as _, Full, Limited};
use hyper::body::Incoming;
use parking_lot::Mutex;
use prometheus_client::{metrics::info::Info, registry::Registry};
use serde_json::{Value, json};
use socket2::{Domain, Protocol, Socket, Type};
use tokio::sync::Semaphore;

use self::exposition::{Expositions, Form};
pub use self::{host::HostCheck, readers::ApiReaders};
use crate::{logs::LogLevel, version::VERSION};

/// Connections that wait to be accepted. A queue that is full makes a probe's packets wait for a second.
const BACKLOG: i32 = 1024;
/// Answers that are made on other threads at a time; more wait.
const WORKERS: usize = 2;
/// Largest body read (a log filter).
const BODY_LIMIT: usize = 4096;
/// Longest question behind a question mark, where it needs no more.
const QUERY_LIMIT: usize = 2048;
/// Longest time that an answer may take, and that a body may.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(5);

/// Something that must hold before a role is ready.
pub type ReadinessCheck = Box<dyn Fn() -> Result<(), String> + Send + Sync>;
/// Makes one answer of the status API.
pub type View = Box<dyn Fn() -> Value + Send + Sync>;
/// Makes one answer that depends on parameters and, where answers are rationed, on who asks; the error says what is wrong.
type Answer = Box<dyn Fn(Parameters, IpAddr) -> BoxFuture<'static, Result<Value, String>> + Send + Sync>;
/// What stands behind the question mark, each name once.
pub type Parameters = BTreeMap<String, String>;

/// A question that can be asked.
pub struct Query {
    limit: usize,
    answer: Answer,
}

impl Query {
    /// One that is answered so.
    pub fn new(
        answer: impl Fn(Parameters, IpAddr) -> BoxFuture<'static, Result<Value, String>> + Send + Sync + 'static,
    ) -> Self {
        Self { limit: QUERY_LIMIT, answer: Box::new(answer) }
    }

    /// The same, where what stands behind the question mark may have so many bytes.
    pub fn up_to(self, limit: usize) -> Self {
        Self { limit, ..self }
    }
}

/// What the endpoint shows.
pub struct Admin {
    /// Conditions of readiness, by name.
    pub checks: Vec<(&'static str, ReadinessCheck)>,
    /// Metrics of all roles in this process.
    pub metrics: Arc<Mutex<Registry>>,
    /// The status API, by path below `/api/`.
    pub views: BTreeMap<&'static str, View>,
    /// The same where there is something to ask for: `/api/NAME?name=value`.
    pub queries: BTreeMap<&'static str, Query>,
    /// The level of the logs.
    pub log_level: LogLevel,
    /// Which requests must name this machine.
    pub host_check: HostCheck,
    readers: ApiReaders,
    workers: Semaphore,
    expositions: tokio::sync::Mutex<Expositions>,
}

/// Takes the port, so that a taken one is reported before anything else starts.
pub fn bind(address: SocketAddr) -> anyhow::Result<TcpListener> {
    listen(address).map_err(|error| taken(address, "--admin", &error))
}

fn listen(address: SocketAddr) -> io::Result<TcpListener> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
    socket.set_reuse_address(true)?;
    socket.bind(&address.into())?;
    socket.listen(BACKLOG)?;
    socket.set_nonblocking(true)?;
    Ok(socket.into())
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
    pub fn new(metrics: Arc<Mutex<Registry>>, log_level: LogLevel, readers: ApiReaders) -> Self {
        let build = Info::new([("version", VERSION)]);
        metrics.lock().register("maesh_build", "The version of this process, as a label; always 1", build);
        Self {
            checks: Vec::new(),
            metrics,
            views: BTreeMap::new(),
            queries: BTreeMap::new(),
            log_level,
            host_check: HostCheck::FromLoopback,
            readers,
            workers: Semaphore::new(WORKERS),
            expositions: tokio::sync::Mutex::default(),
        }
    }

    /// One more condition of readiness.
    pub fn check(&mut self, name: &'static str, check: ReadinessCheck) {
        self.checks.push((name, check));
    }

    /// Serves on a thread of its own until the process ends.
    pub fn serve(self, listener: TcpListener) -> anyhow::Result<SocketAddr> {
        let address = listener.local_addr().context("admin listener")?;
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().context("admin runtime")?;
        let admin = Arc::new(self);
        std::thread::Builder::new()
            .name("admin".into())
            .spawn(move || runtime.block_on(serve::accept(listener, admin)))
            .context("admin thread")?;
        Ok(address)
    }

    fn not_ready(&self) -> Vec<String> {
        let failed = |(name, check): &(&str, ReadinessCheck)| check().err().map(|why| format!("{name}: {why}"));
        self.checks.iter().filter_map(failed).collect()
    }

    async fn answer(self: Arc<Self>, request: Request<Incoming>, from: SocketAddr) -> Response<Full<Bytes>> {
        let path = request.uri().path();
        if let Err(refused) = self.readers.check(path, from.ip()) {
            return text(StatusCode::FORBIDDEN, refused);
        }
        if let Err(refused) = self.host_check.check(path, &request, from.ip()) {
            return text(StatusCode::FORBIDDEN, refused);
        }
        if path == "/api/log-level" && request.method() == Method::PUT {
            // A page in somebody's browser may reach this port, under any name. Only browsers send this field.
            if request.headers().contains_key(header::ORIGIN) {
                return text(StatusCode::FORBIDDEN, "a browser must not change the log level; use curl\n");
            }
            return self.set_log_level(request, from).await;
        }
        if request.method() != Method::GET && request.method() != Method::HEAD {
            return text(StatusCode::METHOD_NOT_ALLOWED, "only GET is known here\n");
        }
        match path {
            "/livez" => text(StatusCode::OK, "ok\n"),
            "/readyz" => self.readiness(),
            _ => {
                let is_scrape = path == "/metrics";
                let made = async {
                    if is_scrape {
                        self.scrape(Form::wanted(request.headers())).await
                    } else {
                        self.make(request, from.ip().to_canonical()).await
                    }
                };
                let made = tokio::time::timeout(ANSWER_TIMEOUT, made).await;
                made.unwrap_or_else(|_| text(StatusCode::SERVICE_UNAVAILABLE, "no answer in time; ask again\n"))
            }
        }
    }

    /// The metrics. Who asks while they are written down for somebody else shares what is written next, so that many
    /// who ask cost as much as few.
    async fn scrape(self: Arc<Self>, form: Form) -> Response<Full<Bytes>> {
        let arrived = Instant::now();
        let this = self.clone();
        let mut last = this.expositions.lock().await;
        if let Some(written) = last.since(form, arrived) {
            return with_type(form.media_type(), written);
        }
        let begun = Instant::now();
        match tokio::task::spawn_blocking(move || form.write(&self.metrics.lock())).await {
            Ok(Ok(written)) => {
                last.keep(form, begun, written.clone());
                with_type(form.media_type(), written)
            }
            Ok(Err(error)) => text(StatusCode::INTERNAL_SERVER_ERROR, format!("{error}\n")),
            Err(error) => text(StatusCode::INTERNAL_SERVER_ERROR, format!("{error}\n")),
        }
    }

    /// What is neither a probe nor a scrape, once it is its turn.
    async fn make(self: Arc<Self>, request: Request<Incoming>, from: IpAddr) -> Response<Full<Bytes>> {
        let this = self.clone();
        let Ok(_turn) = this.workers.acquire().await else {
            return text(StatusCode::SERVICE_UNAVAILABLE, "this process is ending\n");
        };
        let path = request.uri().path();
        if let Some(query) = path.strip_prefix("/api/").and_then(|name| self.queries.get(name)) {
            return ask(query, request.uri().query().unwrap_or_default(), from).await;
        }
        let path = path.to_owned();
        let made = tokio::task::spawn_blocking(move || self.make_now(&path)).await;
        made.map_or_else(|error| text(StatusCode::INTERNAL_SERVER_ERROR, format!("{error}\n")), identity)
    }

    fn make_now(&self, path: &str) -> Response<Full<Bytes>> {
        match path {
            "/" => {
                let services = self.views.get("services").map(|view| view());
                with_type(
                    "text/html; charset=utf-8",
                    page::start(&self.paths(), &self.query_paths(), services.as_ref()),
                )
            }
            "/api" | "/api/" => json_answer(&json!({ "paths": self.paths(), "queries": self.query_paths() })),
            "/api/log-level" => json_answer(&json!({ "level": self.log_level.get() })),
            "/api/openapi.json" => match openapi::document() {
                Ok(document) => json_answer(&document),
                Err(error) => text(StatusCode::INTERNAL_SERVER_ERROR, format!("{error}\n")),
            },
            path => match path.strip_prefix("/api/").and_then(|name| self.views.get(name)) {
                Some(view) => json_answer(&view()),
                None => text(StatusCode::NOT_FOUND, "not found; see /, /livez, /readyz, /metrics, /api\n"),
            },
        }
    }

    fn readiness(&self) -> Response<Full<Bytes>> {
        let failed = self.not_ready();
        if failed.is_empty() {
            return text(StatusCode::OK, "ok\n");
        }
        text(StatusCode::SERVICE_UNAVAILABLE, failed.join("\n") + "\n")
    }

    fn paths(&self) -> Vec<String> {
        self.views.keys().copied().chain(["log-level", "openapi.json"]).map(|name| format!("/api/{name}")).collect()
    }

    fn query_paths(&self) -> Vec<String> {
        self.queries.keys().map(|name| format!("/api/{name}")).collect()
    }

    async fn set_log_level(&self, request: Request<Incoming>, from: SocketAddr) -> Response<Full<Bytes>> {
        if !from.ip().to_canonical().is_loopback() {
            return text(StatusCode::FORBIDDEN, "the log level is changed from a loopback address only\n");
        }
        let body = Limited::new(request.into_body(), BODY_LIMIT).collect();
        let body = match tokio::time::timeout(ANSWER_TIMEOUT, body).await {
            Ok(Ok(body)) => body.to_bytes(),
            Ok(Err(_)) => {
                return text(StatusCode::PAYLOAD_TOO_LARGE, "send the filter as the body, for instance: debug\n");
            }
            Err(_) => {
                return text(StatusCode::REQUEST_TIMEOUT, "the body did not come in time; send the filter again\n");
            }
        };
        let filter = std::str::from_utf8(&body).unwrap_or_default().trim();
        match self.log_level.set(filter) {
            Ok(()) => json_answer(&json!({ "level": self.log_level.get() })),
            Err(error) => text(StatusCode::BAD_REQUEST, format!("{error:#}\n")),
        }
    }
}

/// One answer that depends on parameters.
async fn ask(query: &Query, question: &str, from: IpAddr) -> Response<Full<Bytes>> {
    if question.len() > query.limit {
        return text(StatusCode::URI_TOO_LONG, "the question is too long\n");
    }
    let parameters = form_urlencoded::parse(question.as_bytes()).into_owned().collect();
    match (query.answer)(parameters, from).await {
        Ok(answer) => json_answer(&answer),
        Err(why) => text(StatusCode::BAD_REQUEST, why + "\n"),
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
