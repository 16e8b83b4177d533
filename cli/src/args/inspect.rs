//! Flags of the commands that look at a mesh that runs.

use std::{net::SocketAddr, path::PathBuf, time::Duration};

use clap::{Args, Subcommand, ValueEnum};
use http::{HeaderName, HeaderValue, Method};

use super::{Asked, Output, ReportOutput, asked, defaults, parse};

/// Which mesh to look at.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Cluster")]
pub struct ClusterArgs {
    /// Kubeconfig of the cluster; without it $KUBECONFIG, else ~/.kube/config, else the pod this runs in
    #[arg(long, env = "MAESH_KUBECONFIG", value_name = "FILE")]
    pub kubeconfig: Option<PathBuf>,
    /// Context of the kubeconfig; the current one if not given
    #[arg(long, value_name = "NAME")]
    pub context: Option<String>,
    /// Namespace in which the mesh is installed, not that of your objects
    #[arg(long, short = 'n', env = "MAESH_NAMESPACE", default_value = defaults::NAMESPACE, value_name = "NAMESPACE")]
    pub namespace: String,
    /// How the flag for that namespace is written in this command.
    #[arg(skip = NAMESPACE_FLAG)]
    pub namespace_flag: &'static str,
}

/// The flag for the mesh's namespace, where no other has this name.
pub const NAMESPACE_FLAG: &str = "--namespace";

impl ClusterArgs {
    /// The namespace of the mesh, where somebody wrote it on the command line.
    pub fn written_namespace(&self) -> Option<&str> {
        let usual =
            |name: &str| name == defaults::NAMESPACE || std::env::var("MAESH_NAMESPACE").is_ok_and(|it| it == name);
        Some(self.namespace.as_str()).filter(|name| !usual(name))
    }
}

/// Show what a name resolves to for a pod, where the request goes, and what is wrong
///
/// It asks the running roles: dns for its answer to this caller and the rule behind it, the proxy in that answer for the
/// listener, Service and endpoints that a request would reach, and the controller for what it knows of the Service and of
/// the caller. Nothing is sent to a backend, and nothing changes.
///
/// For a URL it says which route the request takes, decided by the proxy with the code that decides it for requests. METHOD
/// stands right before the URL. Of https:// and tls:// only the server name is asked about: the mesh does not open TLS.
///
/// Without flags it looks at the cluster of your kubeconfig or, if you have none, at the `maesh dev` on this machine. In a
/// cluster it asks the mesh's pods through port-forwards of the API server, which needs the rights to `list pods` and to
/// `get` and `create` `pods/portforward` in the mesh's namespace.
///
/// Exit code: 0 if the caller is served, 1 if it is not, or if no mesh or no dns of it could be asked, 2 for a mistake in the
/// command line. With -o json, `dns` is null if no dns could be asked.
///
/// A caller that access control denies is not served. To have this said, name the caller by --from and, for HTTP, the request:
/// by METHOD, --header or an http:// URL. If nobody has called the Service through this proxy, the proxy fetches its
/// configuration to answer, and waits for it for up to a second. If it does not arrive, the exit code is 0, and the line of the
/// request says that its route is not known.
#[derive(Debug, Clone, Args)]
#[command(after_help = "Examples:
  maesh explain web.shop.maesh --from shop/client-5c9d      # for a pod
  maesh explain http://web.shop.maesh:8080/path             # what you would give to curl: which route does it take?
  maesh explain POST http://web.shop.maesh:8080/ -H 'Cookie: preview=on'
  maesh explain tls://db.shop.maesh:5432                    # TLS, by its server name
  maesh explain shop/web --from 10.1.2.3 --port 8080        # one port, for an address
  maesh explain web.shop.maesh --admin 127.0.0.1:5380       # in a `maesh dev`
  maesh explain web.shop.maesh -o json | jq .problems")]
// METHOD may be missing before the URL.
#[command(allow_missing_positional = true)]
pub struct ExplainArgs {
    /// Method of the request; GET if not given
    #[arg(value_name = "METHOD", value_parser = asked::method)]
    pub method: Option<Method>,
    /// A URL, or a mesh name (web.shop.maesh) with a port if you like, SERVICE.NAMESPACE, NAMESPACE/SERVICE, or a ClusterIP
    #[arg(value_name = "URL", value_parser = Asked::parse)]
    pub name: Asked,
    /// Field of the request, such as 'Cookie: preview=on'; repeat it for several. `Host` is that of the URL if not given
    #[arg(long = "header", short = 'H', value_parser = asked::field, value_name = "FIELD")]
    pub fields: Vec<(HeaderName, HeaderValue)>,
    /// Server name that TLS says (SNI), if it is another than the host of the URL
    #[arg(long, value_parser = asked::server_name, value_name = "NAME")]
    pub server_name: Option<String>,
    /// The caller: an address, NAMESPACE/POD, or a pod's name; without it, a caller whose node is not known
    #[arg(long, value_parser = parse::caller, value_name = "ADDRESS|POD")]
    pub from: Option<String>,
    /// Only this port of the Service
    #[arg(long, value_name = "PORT", value_parser = asked::port)]
    pub port: Option<u16>,
    /// Ask a `maesh dev` (or `maesh demo`) by its admin address instead of a cluster
    #[arg(long, value_parser = parse::admin, value_name = "ADDR", conflicts_with_all = ["kubeconfig", "context"])]
    pub admin: Option<SocketAddr>,
    /// Format of the output
    #[arg(long, short = 'o', default_value = "text")]
    pub output: Output,
    #[command(flatten)]
    pub cluster: ClusterArgs,
}

/// Show who may call whom under access control
#[derive(Debug, Clone, Args)]
pub struct AccessArgs {
    #[command(subcommand)]
    pub command: AccessCommand,
}

#[derive(Debug, Clone, Subcommand)]
pub enum AccessCommand {
    Matrix(MatrixArgs),
}

/// Print which ServiceAccounts may call which Services, with what, and by which TrafficTarget
///
/// It asks a controller, which works it out with the code that decides. While access control is off or a dry run, it shows
/// what would hold. Without flags it looks at the cluster of your kubeconfig or, if you have none, at the `maesh dev` on
/// this machine. In a cluster it needs the same rights as `maesh explain`.
///
/// Exit code: 0, or 1 if no Service of NAMESPACE is in the mesh, or nobody could be asked.
#[derive(Debug, Clone, Args)]
#[command(after_help = "Examples:
  maesh access matrix                       # all Services of the mesh
  maesh access matrix shop                  # those of one namespace
  maesh access matrix --admin 127.0.0.1:5380    # of manifests that a `maesh dev --acl` serves, without a cluster
  maesh access matrix -o json | jq '.rows[] | select(.grants == [])'   # whom nobody may call")]
pub struct MatrixArgs {
    /// Only Services of this namespace
    #[arg(value_name = "NAMESPACE")]
    pub of: Option<String>,
    /// Ask a `maesh dev` (or `maesh demo`) by its admin address instead of a cluster
    #[arg(long, value_parser = parse::admin, value_name = "ADDR", conflicts_with_all = ["kubeconfig", "context"])]
    pub admin: Option<SocketAddr>,
    /// Format of the output
    #[arg(long, short = 'o', default_value = "text")]
    pub output: ReportOutput,
    #[command(flatten)]
    pub cluster: ClusterArgs,
}

/// Print objects for the cluster, to look at and apply
#[derive(Debug, Clone, Args)]
pub struct PrintObjectsArgs {
    #[command(subcommand)]
    pub command: PrintCommand,
}

#[derive(Debug, Clone, Subcommand)]
pub enum PrintCommand {
    NetworkPolicy(NetworkPolicyArgs),
}

/// Print NetworkPolicies that let only the proxies connect to the pods of Services
///
/// Access control sees what passes the mesh. These policies prevent that a caller goes around it. They need a network
/// plugin that enforces NetworkPolicies. Nothing is changed: look at them, add what else has to reach the pods, and apply
/// them. Services that the mesh does not carry are left out, with the reason in a comment.
///
/// Exit code: 0, or 1 if a Service named with --service got no policy, no policy was printed, no proxy runs in the mesh's
/// namespace, or the cluster was not reached.
#[derive(Debug, Clone, Args)]
#[command(after_help = "Examples:
  maesh print network-policy                          # for all Services that the mesh carries
  maesh print network-policy shop                     # of one namespace
  maesh print network-policy shop --service web | kubectl apply -f -")]
pub struct NetworkPolicyArgs {
    /// Only Services of this namespace
    #[arg(value_name = "NAMESPACE")]
    pub of: Option<String>,
    /// Only the Service of this name; repeat it for several
    #[arg(long = "service", value_name = "NAME")]
    pub services: Vec<String>,
    #[command(flatten)]
    pub cluster: ClusterArgs,
}

/// Check whether the mesh can be installed (--pre), or whether the installed mesh works
///
/// Each check says pass, warn, fail or skip, and each finding prints a suggested fix. Nothing is changed: objects are tried by
/// dry runs only. A check that cannot run from here is skipped and says why. Run the command in a pod to include the checks
/// that query the cluster's DNS.
///
/// Exit code: 0 if nothing failed, 1 if a check failed or the cluster was not reached, 2 for a mistake in the command line, 3
/// with --strict if nothing failed but there was a warning.
#[derive(Debug, Clone, Args)]
#[command(after_help = "Examples:
  maesh check --pre                         # before helm install
  maesh check                               # after it
  maesh check --only proxy-nodes,config     # some checks, by the names in the second column
  maesh check --wait 60s                    # repeat failed checks, for a minute at most
  maesh check -o short                      # findings only, a line each
  maesh check -o junit > check.xml          # for a pipeline
  maesh check -o json | jq '.checks[] | select(.result == \"fail\")'")]
pub struct CheckArgs {
    /// Check the cluster before an installation
    #[arg(long)]
    pub pre: bool,
    /// Only these checks, by name; repeat it, or separate names by commas
    #[arg(long, value_delimiter = ',', value_parser = crate::check::check_name, value_name = "CHECK")]
    pub only: Vec<String>,
    /// Exit with 3 if there is a warning
    #[arg(long)]
    pub strict: bool,
    /// Repeat failed checks until they pass, for this long at most
    #[arg(long, default_value = "0s", value_parser = maesh_config::duration::parse, value_name = "DURATION")]
    pub wait: Duration,
    /// Format of the output
    #[arg(long, short = 'o', default_value = "text")]
    pub output: CheckOutput,
    #[command(flatten)]
    pub cluster: ClusterArgs,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum CheckOutput {
    /// For people
    Text,
    /// Only what is to be mended, a line each
    Short,
    /// For scripts: one JSON object
    Json,
    /// For pipelines: the XML of JUnit. With --strict, a warning is a failure
    Junit,
}
