//! The command line: every flag and environment variable, as one typed value per command.
//!
//! Nothing reads flags or the environment later.

mod analyze;
mod asked;
mod cluster_dns;
mod defaults;
mod inspect;
mod lists;
mod migrate;
mod own;
#[cfg(test)]
mod page;
mod parse;
mod refused;
mod telemetry;
mod uninstall;

use std::{net::SocketAddr, path::PathBuf, time::Duration};

pub use analyze::{AnalyzeArgs, AnalyzeOutput, FailOn};
use clap::{Args, Parser, Subcommand, ValueEnum};
pub use cluster_dns::{
    ClusterDnsArgs, ClusterDnsCommand, CorednsMode, DnsOrCommandArgs, DnsServiceArgs, InstallArgs, PrintArgs,
    RemoveArgs, StanzaArgs,
};
pub use inspect::{
    AccessArgs, AccessCommand, CheckArgs, CheckOutput, ClusterArgs, ExplainArgs, MatrixArgs, NetworkPolicyArgs,
    PrintCommand, PrintObjectsArgs,
};
use ipnet::IpNet;
pub use lists::{GetArgs, ListOutput, Listed, ReportOutput, StatusArgs};
use maesh_compiler::compile::PORTS_PER_NAMESPACE;
use maesh_config::{
    Zone, duration,
    model::{AccessSource, Protocol},
};
pub use migrate::{MigrateArgs, MigrateOutput};
pub use uninstall::{LeaveArgs, UninstallArgs};

use self::parse::{namespace, network, socket};
pub use self::{
    asked::Asked,
    own::OwnArgs,
    parse::access_source,
    refused::{refuse, refuse_combination},
    telemetry::TelemetryArgs,
};

/// A service mesh for Kubernetes without sidecars.
///
/// Call `http://web.shop.maesh` instead of `http://web.shop`, and the proxy on the caller's own node balances,
/// retries and measures the request. No sidecar, no iptables, no restart.
///
/// Start with `maesh demo`: it runs the whole mesh on this machine with three small backends, and prints what to type.
#[derive(Debug, Parser)]
#[command(name = "maesh", version, propagate_version = true, max_term_width = 110)]
pub struct Cli {
    #[command(flatten)]
    pub logs: LogArgs,
    #[command(subcommand)]
    pub command: Command,
}

#[derive(Debug, Subcommand)]
pub enum Command {
    /// Run the whole mesh in this process from a folder of ordinary manifests; no cluster, no root
    Dev(DevArgs),
    /// Run `maesh dev` with three small backends, and print what to type
    Demo(DemoArgs),
    Explain(ExplainArgs),
    Access(AccessArgs),
    Analyze(AnalyzeArgs),
    Check(CheckArgs),
    Status(StatusArgs),
    Get(GetArgs),
    Print(PrintObjectsArgs),
    Migrate(MigrateArgs),
    /// Role: watch the cluster and send configuration to dns and the proxies
    Controller(Box<ControllerArgs>),
    /// Role: answer DNS queries for the mesh's zones; with a command, manage the stanza in the cluster's DNS
    Dns(Box<DnsOrCommandArgs>),
    /// Role: carry the requests of one node
    Proxy(ProxyArgs),
    /// Beside a proxy: keep its listening sockets open while it restarts
    Keeper(KeeperArgs),
    /// Remove the DNS stanza and drain the proxies before the mesh is deleted
    Uninstall(UninstallArgs),
    /// Print the version
    Version(VersionArgs),
    /// Print a completion script for your shell
    ///
    /// For instance: source <(maesh completion bash)
    Completion {
        /// Shell to complete in
        shell: clap_complete::Shell,
    },
}

/// What is logged, and how. Logs go to standard error.
#[derive(Debug, Clone, Args)]
pub struct LogArgs {
    /// What to log: error, warn, info, debug, trace, or a filter such as `info,maesh_proxy=debug`. Can be changed at run
    /// time with `PUT /api/log-level`
    #[arg(
        long,
        global = true,
        env = "MAESH_LOG_LEVEL",
        default_value = "info",
        value_parser = crate::logs::checked,
        value_name = "FILTER",
        help_heading = "Logs"
    )]
    pub log_level: String,
    /// Format of a log line
    #[arg(
        long,
        global = true,
        env = "MAESH_LOG_FORMAT",
        default_value = "text",
        value_name = "FORMAT",
        help_heading = "Logs"
    )]
    pub log_format: LogFormat,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum LogFormat {
    /// For people
    Text,
    /// One JSON object per line
    Json,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Output {
    /// For people
    Text,
    /// For scripts: one JSON object per line
    Json,
}

/// What decides how Services are meshed, the same for `maesh dev` and `maesh controller`.
#[derive(Debug, Clone, Args)]
pub struct MeshArgs {
    /// DNS zone of the mesh; repeat it for several. The first is the one that the mesh itself uses
    #[arg(long = "zone", env = "MAESH_ZONES", value_delimiter = ',', default_values = defaults::ZONES)]
    pub zones: Vec<Zone>,
    /// Protocol of a port that does not say its own
    #[arg(long, env = "MAESH_DEFAULT_MODE", default_value = "http", value_name = "TYPE")]
    pub default_mode: Mode,
    /// Access control: deny what no TrafficTarget of SMI allows
    #[arg(long, env = "MAESH_ACL")]
    pub acl: bool,
    /// Count and log what access control would deny, and deny nothing
    #[arg(long, env = "MAESH_ACL_DRY_RUN", conflicts_with = "acl")]
    pub acl_dry_run: bool,
    /// A range of addresses outside of the pods, and the ServiceAccount that its callers count as for access control, such as
    /// 192.168.1.7/32=ingress/nginx; repeat it for several
    #[arg(long, env = "MAESH_ACL_SOURCES", value_delimiter = ',', value_parser = access_source, value_name = "CIDR=NAMESPACE/NAME")]
    pub acl_source: Vec<AccessSource>,
    /// Mesh only this namespace; repeat it for several
    #[arg(long, env = "MAESH_WATCH_NAMESPACES", value_delimiter = ',', value_parser = namespace, value_name = "NAMESPACE")]
    pub watch_namespace: Vec<String>,
    /// Do not mesh this namespace (kube-system and the mesh's own are never meshed); repeat it for several
    #[arg(long, env = "MAESH_IGNORE_NAMESPACES", value_delimiter = ',', value_parser = namespace, value_name = "NAMESPACE")]
    pub ignore_namespace: Vec<String>,
    /// Mesh only Services that have an annotation of the mesh
    #[arg(long, env = "MAESH_REQUIRE_ANNOTATION")]
    pub require_annotation: bool,
    /// Namespace of the mesh itself, not that of your objects
    #[arg(long, env = "MAESH_NAMESPACE", default_value = defaults::NAMESPACE, value_name = "NAMESPACE")]
    pub namespace: String,
    /// The cluster's DNS domain
    #[arg(long, env = "MAESH_CLUSTER_DOMAIN", default_value = defaults::CLUSTER_DOMAIN, value_name = "DOMAIN")]
    pub cluster_domain: String,
    /// If no proxy is ready, names resolve to the Service's ClusterIP
    #[arg(long, env = "MAESH_FAIL_TO_PLAIN", default_value_t = true, action = clap::ArgAction::Set, value_name = "BOOL")]
    pub fail_to_plain: bool,
    /// All names resolve to ClusterIPs: the mesh keeps running, and no traffic passes it
    #[arg(long, env = "MAESH_BYPASS")]
    pub bypass: bool,
    /// Leave endpoints in this range out of every Service, such as the addresses of nodes or of the API server; repeat it
    /// for several
    #[arg(long, env = "MAESH_DENY_ENDPOINT_CIDRS", value_delimiter = ',', value_parser = network, value_name = "CIDR")]
    pub deny_endpoint_cidr: Vec<IpNet>,
    /// Most ports on the proxies that the Services of one namespace may use. The names of further Services in it resolve to
    /// their ClusterIP; with --acl, or with --fail-to-plain false, they have no address
    #[arg(long, env = "MAESH_PORTS_PER_NAMESPACE", default_value_t = PORTS_PER_NAMESPACE, value_name = "N")]
    pub ports_per_namespace: usize,
}

impl Default for MeshArgs {
    /// What the command line without any flag gives.
    fn default() -> Self {
        Self {
            zones: defaults::ZONES.iter().filter_map(|zone| zone.parse().ok()).collect(),
            default_mode: Mode::Http,
            acl: false,
            acl_dry_run: false,
            acl_source: Vec::new(),
            watch_namespace: Vec::new(),
            ignore_namespace: Vec::new(),
            require_annotation: false,
            namespace: defaults::NAMESPACE.into(),
            cluster_domain: defaults::CLUSTER_DOMAIN.into(),
            fail_to_plain: true,
            bypass: false,
            deny_endpoint_cidr: Vec::new(),
            ports_per_namespace: PORTS_PER_NAMESPACE,
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Mode {
    Http,
    Tcp,
    Udp,
}

impl From<Mode> for Protocol {
    fn from(mode: Mode) -> Self {
        match mode {
            Mode::Http => Self::Http,
            Mode::Tcp => Self::Tcp,
            Mode::Udp => Self::Udp,
        }
    }
}

#[derive(Debug, Clone, Args)]
pub struct DevArgs {
    /// Files or folders of manifests (YAML or JSON): Service, EndpointSlice, Pod, Node, Namespace, ServiceAccount,
    /// ConfigMap (CA certificates that `tls-ca` names), and of SMI TrafficSplit, TrafficTarget, HTTPRouteGroup, TCPRoute
    /// and UDPRoute; `-` reads standard input
    #[arg(required = true, value_name = "PATH")]
    pub paths: Vec<PathBuf>,
    #[command(flatten)]
    pub listen: DevListenArgs,
    /// Format of standard output
    #[arg(long, short = 'o', default_value = "text")]
    pub output: Output,
    #[command(flatten)]
    pub telemetry: TelemetryArgs,
    #[command(flatten)]
    pub mesh: MeshArgs,
}

/// Who may read the status API of the admin endpoint.
#[derive(Debug, Clone, Args)]
pub struct ApiArgs {
    /// Let callers with addresses in this range read the status API. Without it, only loopback addresses may, as those behind
    /// `kubectl port-forward`; health and metrics are for everybody. Repeat it for several
    #[arg(long, env = "MAESH_API_FROM", value_delimiter = ',', value_parser = network, value_name = "CIDR")]
    pub api_from: Vec<IpNet>,
}

/// Where `maesh dev` and `maesh demo` listen, and how they end.
#[derive(Debug, Clone, Args)]
pub struct DevListenArgs {
    /// Address that DNS queries are answered on (UDP and TCP)
    #[arg(long, default_value = "127.0.0.1:5354", value_parser = socket, value_name = "ADDR")]
    pub dns: SocketAddr,
    /// Address of health, metrics and the status API
    #[arg(long, default_value = "127.0.0.1:5380", value_parser = socket, value_name = "ADDR")]
    pub admin: SocketAddr,
    #[command(flatten)]
    pub api: ApiArgs,
    /// Range of the addresses that names resolve to: HTTP Services share the first host address, the others are own
    /// addresses
    #[arg(long, default_value = "127.77.0.0/16", value_parser = network, value_name = "CIDR")]
    pub address_range: IpNet,
    /// How long requests in flight may take after SIGTERM or Ctrl-C
    #[arg(long, default_value = "5s", value_parser = duration::parse, value_name = "DURATION")]
    pub drain_timeout: Duration,
}

#[derive(Debug, Clone, Args)]
pub struct DemoArgs {
    /// Run the commands that the demo proposes, check every answer, and exit with 0 or 1
    #[arg(long)]
    pub self_test: bool,
    #[command(flatten)]
    pub listen: DevListenArgs,
}

#[derive(Debug, Clone, Args)]
pub struct ControllerArgs {
    /// Kubeconfig of the cluster to watch; without it, the ServiceAccount of the pod that this runs in
    #[arg(long, env = "MAESH_KUBECONFIG", value_name = "FILE")]
    pub kubeconfig: Option<PathBuf>,
    /// Context of the kubeconfig; the current one if not given
    #[arg(long, requires = "kubeconfig", value_name = "NAME")]
    pub context: Option<String>,
    /// Read manifests from this file or folder instead of a cluster; repeat it for several
    #[arg(long, conflicts_with = "kubeconfig", value_name = "PATH")]
    pub manifests: Vec<PathBuf>,
    /// Address of the discovery stream
    #[arg(long, env = "MAESH_LISTEN", default_value = "127.0.0.1:5390", value_parser = socket, value_name = "ADDR")]
    pub listen: SocketAddr,
    /// Address of health, metrics and the status API
    #[arg(long, env = "MAESH_ADMIN", default_value = "127.0.0.1:5381", value_parser = socket, value_name = "ADDR")]
    pub admin: SocketAddr,
    #[command(flatten)]
    pub api: ApiArgs,
    /// Take own addresses from this range. The proxies bind them themselves: for flat networks without kube-proxy
    #[arg(long, env = "MAESH_ADDRESS_RANGE", value_parser = network, value_name = "CIDR")]
    pub address_range: Option<IpNet>,
    /// Certificate chain for the discovery stream (PEM; read again when it changes)
    #[arg(long, env = "MAESH_TLS_CERT", requires = "tls_key", value_name = "FILE")]
    pub tls_cert: Option<PathBuf>,
    /// Private key for the discovery stream (PEM; read again when it changes)
    #[arg(long, env = "MAESH_TLS_KEY", requires = "tls_cert", value_name = "FILE")]
    pub tls_key: Option<PathBuf>,
    /// File with a secret that dns and proxies must present; without it only loopback addresses may connect
    #[arg(long, env = "MAESH_SECRET_FILE", value_name = "FILE")]
    pub secret_file: Option<PathBuf>,
    /// Serve dns and proxies on other machines without authentication
    #[arg(long)]
    pub insecure: bool,
    #[command(flatten)]
    pub trust: TrustArgs,
    /// Service in the mesh's namespace whose endpoints are the replicas of this controller; proxies report their state to
    /// all of them
    #[arg(long, env = "MAESH_SERVICE", value_name = "NAME")]
    pub service: Option<String>,
    /// How long after its start the controller waits for proxies to connect, before names are published without them
    #[arg(long, env = "MAESH_PROXY_SETTLE", default_value = "5s", value_parser = duration::parse, value_name = "DURATION")]
    pub proxy_settle: Duration,
    /// Write nothing to the cluster: no Lease, and nothing that the leader of the replicas writes
    #[arg(long, env = "MAESH_READ_ONLY")]
    pub read_only: bool,
    /// Lease in the mesh's namespace whose holder writes to the cluster
    #[arg(long, env = "MAESH_LEASE", default_value = defaults::CONTROLLER, value_name = "NAME")]
    pub lease: String,
    /// Name of this replica: the pod's name
    #[arg(long, env = "MAESH_POD_NAME", default_value = defaults::CONTROLLER, value_name = "NAME")]
    pub id: String,
    /// Drain window: how long the old address or protocol of a Service keeps working after a change, because clients
    /// cache DNS answers
    #[arg(long, env = "MAESH_HORIZON", default_value = defaults::HORIZON, value_parser = duration::parse, value_name = "DURATION")]
    pub horizon: Duration,
    /// Who writes the stanza in the cluster's DNS
    #[arg(long, env = "MAESH_COREDNS_MODE", default_value = defaults::COREDNS_MODE, value_name = "MODE")]
    pub coredns_mode: CorednsMode,
    #[command(flatten)]
    pub dns_service: DnsServiceArgs,
    #[command(flatten)]
    pub leave: LeaveArgs,
    #[command(flatten)]
    pub own: OwnArgs,
    #[command(flatten)]
    pub mesh: MeshArgs,
}

/// How dns, proxies and controller authenticate each other in a cluster.
#[derive(Debug, Clone, Args)]
pub struct TrustArgs {
    /// Serve with certificates of a CA that the controllers create and renew themselves: its key is in the Secret of this
    /// name in the mesh's namespace, its certificate in the ConfigMap of this name
    #[arg(long, env = "MAESH_CA", conflicts_with_all = ["tls_cert", "read_only", "manifests"], value_name = "NAME")]
    pub ca: Option<String>,
    /// Name in the certificates of --ca, which dns and proxies verify
    #[arg(long, env = "MAESH_SERVER_NAME", default_value = "maesh-controller.maesh.svc", value_name = "NAME")]
    pub server_name: String,
    /// Keep a certificate for DNS over TLS, signed by --ca, in the Secret of this name in the mesh's namespace. It is for the
    /// names and the ClusterIP of --dns-service
    #[arg(long, env = "MAESH_DNS_CERTIFICATE_SECRET", requires = "ca", value_name = "NAME")]
    pub dns_certificate_secret: Option<String>,
    /// ServiceAccount of dns in the mesh's namespace; its pods authenticate with tokens for the audience `maesh`
    #[arg(
        long,
        env = "MAESH_DNS_ACCOUNT",
        requires = "proxy_account",
        conflicts_with_all = ["secret_file", "insecure", "manifests"],
        value_name = "NAME"
    )]
    pub dns_account: Option<String>,
    /// ServiceAccount of the proxies in the mesh's namespace; its pods authenticate in the same way
    #[arg(long, env = "MAESH_PROXY_ACCOUNT", requires = "dns_account", value_name = "NAME")]
    pub proxy_account: Option<String>,
}

/// How dns and proxies reach the controller.
#[derive(Debug, Clone, Args)]
pub struct SubscribeArgs {
    /// Address of a controller's discovery stream, `host:port`; repeat it for several. One is used at a time
    #[arg(
        long,
        env = "MAESH_CONTROLLER",
        value_delimiter = ',',
        default_value = "127.0.0.1:5390",
        value_name = "ADDR"
    )]
    pub controller: Vec<String>,
    /// CA certificates to verify the controller with (PEM; read again when they change). Without it the stream is not
    /// encrypted, which is allowed for loopback addresses only
    #[arg(long, env = "MAESH_TLS_CA", value_name = "FILE")]
    pub tls_ca: Option<PathBuf>,
    /// Name in the controller's certificate; the host of --controller if not given
    #[arg(long, env = "MAESH_TLS_SERVER_NAME", value_name = "NAME")]
    pub tls_server_name: Option<String>,
    /// Connect to a controller on another machine without encryption
    #[arg(long)]
    pub insecure: bool,
    /// File with the token or secret to authenticate with (read again when it changes)
    #[arg(long, env = "MAESH_TOKEN_FILE", value_name = "FILE")]
    pub token_file: Option<PathBuf>,
    /// Folder for the last good configuration, so that a restarted process can serve at once
    #[arg(long, env = "MAESH_STATE_DIR", value_name = "DIR")]
    pub state_dir: Option<PathBuf>,
    /// Name of this process, unique in its role: the pod's name
    #[arg(long, env = "MAESH_POD_NAME", value_name = "NAME")]
    pub id: String,
    /// Name of the node that it runs on
    #[arg(long, env = "MAESH_NODE_NAME", value_name = "NODE")]
    pub node: Option<String>,
}

#[derive(Debug, Clone, Args)]
// Says when the role is meant: clap leaves the group of a struct with others inside empty.
#[group(args = ["id"])]
pub struct DnsArgs {
    /// Address to answer on, UDP and TCP; repeat it for several
    #[arg(long, env = "MAESH_LISTEN", value_delimiter = ',', default_value = "127.0.0.1:5354", value_parser = socket, value_name = "ADDR")]
    pub listen: Vec<SocketAddr>,
    /// Address to answer DNS over TLS on (RFC 7858); repeat it for several. Off if not given
    #[arg(
        long,
        env = "MAESH_TLS_LISTEN",
        value_delimiter = ',',
        requires = "tls_certificate",
        value_parser = socket,
        value_name = "ADDR"
    )]
    pub tls_listen: Vec<SocketAddr>,
    /// Certificate chain for DNS over TLS (PEM; read again when it changes). While it cannot be used, the port is closed
    #[arg(long, env = "MAESH_TLS_CERTIFICATE", requires_all = ["tls_certificate_key", "tls_listen"], value_name = "FILE")]
    pub tls_certificate: Option<PathBuf>,
    /// Private key of --tls-certificate (PEM; read again when it changes)
    #[arg(long, env = "MAESH_TLS_CERTIFICATE_KEY", requires = "tls_certificate", value_name = "FILE")]
    pub tls_certificate_key: Option<PathBuf>,
    /// Address of `ns.dns.<zone>`; the listen addresses if not given. Repeat it for IPv4 and IPv6
    #[arg(long, env = "MAESH_NS_ADDRESS", value_delimiter = ',', value_name = "IP")]
    pub ns_address: Vec<std::net::IpAddr>,
    /// Address of health, metrics and the status API
    #[arg(long, env = "MAESH_ADMIN", default_value = "127.0.0.1:5382", value_parser = socket, value_name = "ADDR")]
    pub admin: SocketAddr,
    #[command(flatten)]
    pub api: ApiArgs,
    /// How long to go on answering queries after SIGTERM
    #[arg(long, env = "MAESH_LAMEDUCK", default_value = "5s", value_parser = duration::parse, value_name = "DURATION")]
    pub lameduck: Duration,
    /// Threads that answer on each address; 0 means one per core, four at most
    #[arg(long, env = "MAESH_THREADS", default_value_t = 0, value_name = "N")]
    pub threads: usize,
    /// Admin port of the proxies. While the controller is away, dns asks there whether a proxy is ready; without this
    /// flag it only checks that a proxy accepts connections
    #[arg(long, env = "MAESH_PROBE_PORT", value_name = "PORT")]
    pub probe_port: Option<u16>,
    #[command(flatten)]
    pub subscribe: SubscribeArgs,
}

#[derive(Debug, Clone, Args)]
pub struct ProxyArgs {
    /// Address that the proxy listens on and that callers of this node use; repeat it for IPv4 and IPv6
    #[arg(long, env = "MAESH_ADDRESS", required = true, value_delimiter = ',', value_name = "IP")]
    pub address: Vec<std::net::IpAddr>,
    /// Address of health, metrics and the status API
    #[arg(long, env = "MAESH_ADMIN", default_value = "127.0.0.1:5383", value_parser = socket, value_name = "ADDR")]
    pub admin: SocketAddr,
    #[command(flatten)]
    pub api: ApiArgs,
    /// Address of this node, with which the proxy asks the controller for the node's zone
    #[arg(long, env = "MAESH_NODE_ADDRESS", value_name = "IP")]
    pub node_address: Option<std::net::IpAddr>,
    /// Zone of this node, for topology hints; if not given, the controller tells it
    #[arg(long, env = "MAESH_NODE_ZONE", value_name = "ZONE")]
    pub zone: Option<String>,
    /// Drain window: how long to go on accepting connections after SIGTERM, because clients cache the address
    #[arg(long, env = "MAESH_DRAIN_HORIZON", default_value = defaults::HORIZON, value_parser = duration::parse, value_name = "DURATION")]
    pub drain_horizon: Duration,
    /// How long requests in flight may take after that
    #[arg(long, env = "MAESH_DRAIN_TIMEOUT", default_value = "5s", value_parser = duration::parse, value_name = "DURATION")]
    pub drain_timeout: Duration,
    /// Socket of the `maesh keeper` beside it, which keeps the listening sockets open while this process restarts
    #[arg(long, env = "MAESH_KEEPER", value_name = "PATH")]
    pub keeper: Option<PathBuf>,
    /// Threads that carry requests; 0 means one per core, four at most
    #[arg(long, env = "MAESH_THREADS", default_value_t = 0, value_name = "N")]
    pub threads: usize,
    /// Most connections of callers at once. The limit of open files sets another bound; the lower one holds
    #[arg(long, env = "MAESH_MAX_CONNECTIONS", value_name = "N")]
    pub max_connections: Option<usize>,
    /// Most connections of one caller's address at once; a fifth of what the limit of open files has room for at most
    #[arg(long, env = "MAESH_MAX_CONNECTIONS_PER_CALLER", value_name = "N")]
    pub max_connections_per_caller: Option<usize>,
    #[command(flatten)]
    pub telemetry: TelemetryArgs,
    #[command(flatten)]
    pub subscribe: SubscribeArgs,
}

#[derive(Debug, Clone, Args)]
pub struct KeeperArgs {
    /// Socket that the proxy connects to. Both must run as the same user and in the same network namespace
    #[arg(long, env = "MAESH_KEEPER", value_name = "PATH")]
    pub socket: PathBuf,
    /// How long new connections may wait for the proxy before they are refused
    #[arg(long, env = "MAESH_HOLD", default_value = "10s", value_parser = duration::parse, value_name = "DURATION")]
    pub hold: Duration,
}

#[derive(Debug, Clone, Args)]
pub struct VersionArgs {
    /// Format of the output
    #[arg(long, short = 'o', default_value = "text")]
    pub output: Output,
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn every_command_is_well_formed() {
        Cli::command().debug_assert();
    }

    #[test]
    fn dns_is_a_role_and_has_commands() {
        let parse = |arguments: &[&str]| {
            let cli = Cli::try_parse_from(["maesh", "dns"].iter().chain(arguments)).unwrap();
            let Command::Dns(args) = cli.command else { panic!("not dns") };
            (args.role.map(|role| role.subscribe.id), args.command.is_some())
        };
        assert_eq!(parse(&["--id", "a"]), (Some("a".into()), false));
        assert_eq!(parse(&["--listen", "127.0.0.1:1", "--id", "a"]), (Some("a".into()), false));
        assert_eq!(parse(&["status"]), (None, true));
        assert!(Cli::try_parse_from(["maesh", "dns", "--listen", "127.0.0.1:1"]).is_err(), "--id is missing");
    }

    #[test]
    fn dev_has_the_defaults_that_scripts_rely_on() {
        let cli = Cli::try_parse_from(["maesh", "dev", "folder"]).unwrap();
        let Command::Dev(dev) = cli.command else { panic!("not dev") };
        assert_eq!(dev.listen.dns.to_string(), "127.0.0.1:5354");
        assert_eq!(dev.listen.admin.to_string(), "127.0.0.1:5380");
        assert_eq!(dev.listen.address_range.to_string(), "127.77.0.0/16");
        assert_eq!(dev.listen.drain_timeout, Duration::from_secs(5));
        assert_eq!(dev.mesh.zones.iter().map(Zone::as_str).collect::<Vec<_>>(), ["maesh", "traefik.mesh"]);
    }
}
