//! What a proxy is told at its start; nothing reads flags or environment later.

use std::{fmt, net::IpAddr, ops::RangeInclusive, path::PathBuf, str::FromStr, sync::Arc, time::Duration};

use http::Uri;
use ipnet::IpNet;
use maesh_config::{NodeName, policy::Percent};

/// Settings of one proxy.
#[derive(Clone, Debug)]
pub struct Config {
    /// Addresses on which shared ports listen. `::` serves both families where the system has both.
    pub shared: Vec<IpAddr>,
    /// Socket of the [`Keeper`](crate::Keeper) that has copies of the listening sockets, if there is one.
    pub keeper: Option<PathBuf>,
    /// Threads that carry traffic, each with an event loop and connections of its own.
    pub workers: usize,
    /// Node on which the proxy and most of its callers run.
    pub node: Option<NodeName>,
    /// An address of that node, by which the controller is asked for its zone.
    pub node_address: Option<IpAddr>,
    /// Zone of that node, for the hints of EndpointSlices; if not given, as the controller says.
    pub zone: Option<Arc<str>>,
    /// Callers whose `X-Forwarded-*` headers are kept and appended to. Everybody else's are replaced.
    pub trusted: Vec<IpNet>,
    /// Endpoints may be on loopback, where callers and proxy are too (`maesh dev`, tests).
    pub loopback_endpoints: bool,
    /// Local ports of outgoing connections, where they must stay apart from ports that the mesh listens on. Only narrows
    /// the range of the system.
    pub outgoing_ports: Option<RangeInclusive<u16>>,
    /// Listeners that cannot be opened are logged as warnings. Off where the process tells people of them otherwise.
    pub warn_of_listeners: bool,
    /// Time without requests after which a Service's configuration is let go of.
    pub idle_service: Duration,
    /// How long the first request for a Service waits for its configuration.
    pub first_use: Duration,
    /// With access control, how long a caller is held whose address no pod is known to have: the API server hears of a pod's
    /// address some time after the pod has begun to run.
    pub identity_hold: Duration,
    /// With access control, how long what is known of callers is trusted while no controller answers.
    pub identity_trust: Duration,
    /// How long a listener whose configuration is gone goes on accepting, because names may be cached.
    pub linger: Duration,
    /// How long new connections are still accepted once a drain has begun, because names may be cached.
    pub drain_horizon: Duration,
    /// How long requests in flight may take to finish after that.
    pub drain_timeout: Duration,
    /// Whether and how requests and TCP connections are logged.
    pub access_log: Option<AccessLogSettings>,
    /// Whether and where spans of requests are sent.
    pub traces: Option<TraceSettings>,
    /// Limits on what callers can occupy.
    pub limits: Limits,
}

/// How requests and TCP connections are logged.
#[derive(Clone, Debug)]
pub struct AccessLogSettings {
    /// The form of a line.
    pub form: AccessLogForm,
    /// Which share of them is logged.
    pub sample: Percent,
    /// The file that lines are added to; standard output if not given.
    pub file: Option<PathBuf>,
}

/// The form of a line of the access log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AccessLogForm {
    /// An object of JSON.
    Json,
    /// The common log format, and some more fields.
    Common,
}

/// Where spans of requests are sent, and of which.
#[derive(Clone, Debug)]
pub struct TraceSettings {
    /// The receiver.
    pub endpoint: TraceEndpoint,
    /// How it is spoken to.
    pub protocol: TraceProtocol,
    /// Which share of the requests is recorded whose callers do not say.
    pub sample: Percent,
    /// The fields in which a context is passed on that begins here.
    pub propagation: Vec<TracePropagation>,
}

/// How spans are sent: OTLP over one of these.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TraceProtocol {
    /// gRPC.
    Grpc,
    /// HTTP/1.1 with binary bodies.
    Http,
}

/// Fields that carry the context of a trace.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TracePropagation {
    /// `traceparent` and `tracestate`.
    W3c,
    /// `b3`.
    B3,
    /// `X-B3-TraceId` and its siblings.
    B3Multi,
}

/// A receiver of spans: `http://HOST:PORT`, for OTLP over HTTP also with a path.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TraceEndpoint(Uri);

/// A text that is none.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("not an address such as http://collector.observability:4317; https is not served")]
pub struct BadTraceEndpoint;

impl FromStr for TraceEndpoint {
    type Err = BadTraceEndpoint;

    fn from_str(text: &str) -> Result<Self, BadTraceEndpoint> {
        let uri: Uri = text.parse().map_err(|_| BadTraceEndpoint)?;
        let named = uri.host().is_some_and(|host| !host.is_empty()) && uri.port_u16() != Some(0);
        let plain = uri.authority().is_some_and(|authority| !authority.as_str().contains('@'));
        if uri.scheme_str() == Some("http") && named && plain { Ok(Self(uri)) } else { Err(BadTraceEndpoint) }
    }
}

impl fmt::Display for TraceEndpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl TraceEndpoint {
    /// Host and port as in `Host`.
    pub(crate) fn authority(&self) -> &str {
        self.0.authority().map_or("", |authority| authority.as_str())
    }

    /// A name or an address.
    pub(crate) fn host(&self) -> &str {
        let host = self.0.host().unwrap_or_default();
        host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(host)
    }

    pub(crate) fn port(&self) -> u16 {
        self.0.port_u16().unwrap_or(80)
    }

    /// The path of OTLP over HTTP: the one of its specification, unless another is given.
    pub(crate) fn path(&self) -> &str {
        match self.0.path() {
            "" | "/" => "/v1/traces",
            path => path,
        }
    }
}

/// Limits on what callers can occupy. Each has a plain answer when it is reached.
///
/// The limits of connections are also bounded by the files that the process may open (`nofile`): what is set here only
/// lowers them.
#[derive(Clone, Debug)]
pub struct Limits {
    /// Files that are left to others in this process, for instance the admin port.
    pub other_files: usize,
    /// Open connections in all. Further ones are refused (`overloaded` where the port carries HTTP).
    pub connections: usize,
    /// Open connections of one address. One address never has more than a fifth of what the process can have.
    pub connections_per_caller: usize,
    /// Open flows of datagrams in all. One address never has more than a fifth of them. A new one takes the place of an
    /// old one.
    pub flows: usize,
    /// Concurrent streams on one HTTP/2 connection.
    pub streams: u32,
    /// Bytes that are held in all for callers that do not take their responses, or whose endpoints do not take their
    /// uploads. Above it, HTTP/2 streams that stand still are reset, and HTTP/1.1 connections are closed.
    pub buffered: usize,
    /// The same for one address.
    pub buffered_per_caller: usize,
    /// Bytes of a request's head.
    pub head: usize,
    /// Fields of a request's head.
    pub fields: usize,
    /// Bytes of a request's target.
    pub target: usize,
    /// Longest time from the first byte of a head to its last.
    pub head_timeout: Duration,
    /// Longest time a caller's connection is kept open without a request.
    pub keep_alive: Duration,
    /// The same for connections that were there while a port was leaving, which their callers may not have been told:
    /// well within the time for which that is served.
    pub keep_alive_leaving: Duration,
    /// An HTTP/1.1 connection that has been idle for so long gives its buffers back until the next request.
    pub park_after: Duration,
    /// An HTTP/2 connection that is to be sent away hears so at the latest after this time. Before, it hears so once it has had a
    /// request and has none under way: many callers take a GOAWAY that crosses a request for a failure of that.
    pub leave_within: Duration,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            shared: Vec::new(),
            keeper: None,
            workers: std::thread::available_parallelism().map_or(1, |cores| cores.get().min(4)),
            node: None,
            node_address: None,
            zone: None,
            trusted: Vec::new(),
            loopback_endpoints: false,
            outgoing_ports: None,
            warn_of_listeners: true,
            idle_service: Duration::from_secs(600),
            first_use: Duration::from_secs(1),
            identity_hold: Duration::from_secs(5),
            identity_trust: Duration::from_secs(15 * 60),
            linger: Duration::ZERO,
            drain_horizon: Duration::from_secs(45),
            drain_timeout: Duration::from_secs(30),
            access_log: None,
            traces: None,
            limits: Limits::default(),
        }
    }
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            other_files: 64,
            connections: 60_000,
            connections_per_caller: 10_000,
            flows: 10_000,
            streams: 256,
            buffered: 64 << 20,
            buffered_per_caller: 16 << 20,
            head: 64 * 1024,
            fields: 128,
            target: 16 * 1024,
            head_timeout: Duration::from_secs(30),
            keep_alive: Duration::from_secs(180),
            keep_alive_leaving: Duration::from_secs(20),
            park_after: Duration::from_secs(2),
            leave_within: Duration::from_secs(1),
        }
    }
}
