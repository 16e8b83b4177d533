//! Flags of `maesh status` and `maesh get`.

use std::{net::SocketAddr, path::PathBuf, time::Duration};

use clap::{Args, ValueEnum};
use maesh_config::duration;

use super::{ClusterArgs, defaults, parse};

/// Show at a glance whether the mesh works: versions, the leader, who is ready, and what needs attention
///
/// It asks every controller what it knows of itself, of dns and of the proxies, and changes nothing. Without flags it looks at
/// the cluster of your kubeconfig or, if you have none, at the `maesh dev` on this machine. Warnings about your objects are
/// counted, and need no attention for the mesh to be healthy; errors do.
///
/// Exit code: 0 if the mesh is healthy, 1 if something needs attention or nobody could be asked.
#[derive(Debug, Clone, Args)]
#[command(after_help = "Examples:
  maesh status
  maesh status --wait 2m                    # after helm install or an upgrade
  maesh status --admin 127.0.0.1:5380       # of a `maesh dev`
  maesh status -o json | jq .problems")]
pub struct StatusArgs {
    /// Wait until the mesh is healthy, for this long at most
    #[arg(long, default_value = "0s", value_parser = duration::parse, value_name = "DURATION")]
    pub wait: Duration,
    /// Ask a `maesh dev` (or `maesh demo`) by its admin address instead of a cluster
    #[arg(long, value_parser = parse::admin, value_name = "ADDR", conflicts_with_all = ["kubeconfig", "context"])]
    pub admin: Option<SocketAddr>,
    /// Format of the output
    #[arg(long, short = 'o', default_value = "text")]
    pub output: ReportOutput,
    #[command(flatten)]
    pub cluster: ClusterArgs,
}

/// How a report is printed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum ReportOutput {
    /// For people
    Text,
    /// For scripts: one JSON object
    Json,
    /// The same as YAML
    Yaml,
}

/// List what is in the mesh: Services, routes, proxies, and mistakes in your objects
///
/// The lists are those of a controller. JSON and YAML are what it answers; docs/reference/status-api.yaml describes them.
/// Without -n it lists all namespaces. Without flags it looks at the cluster of your kubeconfig or, if you have none, at the
/// `maesh dev` on this machine.
///
/// Exit code: 0, also for an empty list; 1 if nobody could be asked, or NAME does not exist.
#[derive(Debug, Clone, Args)]
#[command(after_help = "Examples:
  maesh get services                        # mesh names, addresses, ports, ready endpoints
  maesh get routes -n shop                  # where requests go by what they are
  maesh get proxies -o wide                 # who is ready, and who could not put something in force
  maesh get diagnostics web                 # what is wrong with objects called web
  maesh get services -o name | xargs -n 1 maesh explain")]
pub struct GetArgs {
    /// What to list
    #[arg(value_name = "WHAT")]
    pub what: Listed,
    /// Only this one: a Service, a proxy, or an object with diagnostics. NAMESPACE/NAME is taken too
    #[arg(value_name = "NAME")]
    pub name: Option<String>,
    /// Only those of this namespace; --mesh-namespace is that of the mesh
    #[arg(long, short = 'n', value_name = "NAMESPACE", conflicts_with = "all_namespaces")]
    pub namespace: Option<String>,
    /// Those of all namespaces, as without -n
    #[arg(long, short = 'A')]
    pub all_namespaces: bool,
    /// Format of the output
    #[arg(long, short = 'o', default_value = "table")]
    pub output: ListOutput,
    /// Print no line of headers
    #[arg(long)]
    pub no_headers: bool,
    /// Ask a `maesh dev` (or `maesh demo`) by its admin address instead of a cluster
    #[arg(long, value_parser = parse::admin, value_name = "ADDR", conflicts_with_all = ["kubeconfig", "context"])]
    pub admin: Option<SocketAddr>,
    /// Kubeconfig of the cluster; without it $KUBECONFIG, else ~/.kube/config, else the pod this runs in
    #[arg(long, env = "MAESH_KUBECONFIG", value_name = "FILE", help_heading = "Cluster")]
    pub kubeconfig: Option<PathBuf>,
    /// Context of the kubeconfig; the current one if not given
    #[arg(long, value_name = "NAME", help_heading = "Cluster")]
    pub context: Option<String>,
    /// Namespace in which the mesh is installed
    #[arg(
        long,
        env = "MAESH_NAMESPACE",
        default_value = defaults::NAMESPACE,
        value_name = "NAMESPACE",
        help_heading = "Cluster"
    )]
    pub mesh_namespace: String,
}

impl GetArgs {
    /// Which mesh to look at.
    pub fn cluster(&self) -> ClusterArgs {
        ClusterArgs {
            kubeconfig: self.kubeconfig.clone(),
            context: self.context.clone(),
            namespace: self.mesh_namespace.clone(),
            namespace_flag: "--mesh-namespace",
        }
    }
}

/// What can be listed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Listed {
    /// Services in the mesh; also `service`, `svc`
    #[value(aliases = ["service", "svc"])]
    Services,
    /// Routes of Services; also `route`
    #[value(alias = "route")]
    Routes,
    /// Proxies that are connected; also `proxy`
    #[value(alias = "proxy")]
    Proxies,
    /// Mistakes in your objects; also `diagnostic`, `diag`
    #[value(aliases = ["diagnostic", "diag", "diags"])]
    Diagnostics,
}

impl Listed {
    /// As it is written.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Services => "services",
            Self::Routes => "routes",
            Self::Proxies => "proxies",
            Self::Diagnostics => "diagnostics",
        }
    }
}

/// How a list is printed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum ListOutput {
    /// For people
    Table,
    /// With further columns, and nothing cut
    Wide,
    /// Names alone, one a line
    Name,
    /// For scripts: one JSON object
    Json,
    /// The same as YAML
    Yaml,
}
