//! Flags of the commands that look at a mesh that runs.

use std::{net::SocketAddr, path::PathBuf, time::Duration};

use clap::Args;

use super::Output;

/// Which mesh to look at.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Cluster")]
pub struct ClusterArgs {
    /// Kubeconfig of the cluster; without it $KUBECONFIG, else ~/.kube/config, else the pod this runs in
    #[arg(long, env = "MAESH_KUBECONFIG", value_name = "FILE")]
    pub kubeconfig: Option<PathBuf>,
    /// Context of the kubeconfig; its current one if not given
    #[arg(long, value_name = "NAME")]
    pub context: Option<String>,
    /// Namespace in which the mesh is installed
    #[arg(long, short = 'n', env = "MAESH_NAMESPACE", default_value = "maesh", value_name = "NAMESPACE")]
    pub namespace: String,
}

/// Say what a caller is answered for a mesh name, which way its requests go, and what is wrong
///
/// It asks the roles themselves, with the code that serves callers: dns what it answers this caller and by which rule,
/// the proxy in that answer which listener, Service and endpoints a request would reach, and the controller what it
/// knows of the Service, of the caller, and what is wrong. Nothing is sent to a backend, and nothing changes.
///
/// Without a flag it looks at the cluster of your kubeconfig, or, where you have none, at the `maesh dev` of this
/// machine. In a cluster it reads pods of the mesh's namespace and asks them through the API server, which needs the
/// rights `get,list pods` and `get pods/proxy` there.
///
/// Exit code: 0 when the caller is served, 1 when it is not, or nobody could be asked.
#[derive(Debug, Clone, Args)]
#[command(after_help = "Examples:
  maesh explain web.shop.maesh --from shop/client-5c9d      # as a pod is answered
  maesh explain shop/web --from 10.1.2.3 --port 8080        # one port, for an address
  maesh explain web.shop.maesh --admin 127.0.0.1:5380       # from a `maesh dev`
  maesh explain web.shop.maesh -o json | jq .problems")]
pub struct ExplainArgs {
    /// A mesh name (web.shop.maesh), SERVICE.NAMESPACE, NAMESPACE/SERVICE, or a ClusterIP
    #[arg(value_name = "NAME")]
    pub name: String,
    /// Who asks: an address, NAMESPACE/POD, or a pod's name; without it, a caller of whom nothing is known
    #[arg(long, value_name = "ADDRESS|POD")]
    pub from: Option<String>,
    /// Only this port of the Service
    #[arg(long, value_name = "PORT", value_parser = clap::value_parser!(u16).range(1..))]
    pub port: Option<u16>,
    /// Ask a `maesh dev` (or `maesh demo`) by its admin address instead of a cluster
    #[arg(long, value_parser = super::socket, value_name = "ADDR", conflicts_with_all = ["kubeconfig", "context"])]
    pub admin: Option<SocketAddr>,
    /// How to print it
    #[arg(long, short = 'o', default_value = "text")]
    pub output: Output,
    #[command(flatten)]
    pub cluster: ClusterArgs,
}

/// Check whether a mesh can be installed (--pre), or whether the installed one works
///
/// Every check says pass, warn, fail or skip, and whatever is not right comes with the line that mends it. Nothing is
/// changed: objects are tried out by dry runs only. A check that cannot be made from here is skipped, and says why; run
/// it in a pod to have those that ask the cluster's DNS over the network made too.
///
/// Exit code: 0 when nothing failed, 1 when a check failed or the cluster was not reached, 3 with --strict when nothing
/// failed but something was warned of (2 is a mistake in the command line).
#[derive(Debug, Clone, Args)]
#[command(after_help = "Examples:
  maesh check --pre                         # before helm install
  maesh check                               # after it
  maesh check --only proxy-nodes,config     # some checks, by the names in the second column
  maesh check --wait 60s                    # again and again until nothing fails, a minute at most
  maesh check -o json | jq '.checks[] | select(.result == \"fail\")'")]
pub struct CheckArgs {
    /// Check what an installation needs, not an installed mesh
    #[arg(long)]
    pub pre: bool,
    /// Only these checks, by name; repeat it, or separate them by commas
    #[arg(long, value_delimiter = ',', value_parser = crate::check::check_name, value_name = "CHECK")]
    pub only: Vec<String>,
    /// Exit with 3 when something is warned of
    #[arg(long)]
    pub strict: bool,
    /// Repeat what fails until it passes, for so long at most
    #[arg(long, default_value = "0s", value_parser = maesh_config::duration::parse, value_name = "DURATION")]
    pub wait: Duration,
    /// How to print it
    #[arg(long, short = 'o', default_value = "text")]
    pub output: Output,
    #[command(flatten)]
    pub cluster: ClusterArgs,
}
