//! Flags of `maesh migrate`.

use std::path::PathBuf;

use clap::{Args, ValueEnum};

use super::{ClusterArgs, Mode, inspect::NAMESPACE_FLAG};

/// Translate annotations of Traefik Mesh and TrafficSplits of SMI into annotations of this mesh
///
/// It reads the objects of your cluster, or the files and folders given, and changes nothing. On standard output it prints
/// commands of kubectl annotate; on standard error, for each object what is kept, what is translated, and what cannot be kept and
/// why. What it prints has been compiled and routes requests as before.
///
/// No command overwrites an annotation, and those of Traefik Mesh stay, so the way back is open. TrafficTargets,
/// HTTPRouteGroups, TCPRoutes and UDPRoutes stay as they are: the mesh reads them in every version.
///
/// Exit code: 0 if all can be kept, 1 if something could not be read, 2 for a mistake in the command line, 3 if something cannot
/// be kept.
#[derive(Debug, Clone, Args)]
#[command(after_help = "Examples:
  maesh migrate > annotate.sh               # all namespaces of the cluster; look at it, then: sh annotate.sh
  maesh migrate -n shop -o report           # one namespace, only what would become of it
  maesh migrate -o yaml manifests/          # files and folders without a cluster, to copy the annotations from
  helm get values traefik-mesh -o yaml > old.yaml
  maesh migrate --values old.yaml > values.yaml    # values of the chart of Traefik Mesh")]
pub struct MigrateArgs {
    /// Files or folders of manifests (YAML or JSON) instead of a cluster; `-` reads standard input
    // Not so with kubeconfig, which may be set in the environment.
    #[arg(value_name = "PATH", conflicts_with = "context")]
    pub paths: Vec<PathBuf>,
    /// Translate these values of the chart of Traefik Mesh instead of objects; `-` reads standard input
    #[arg(long, value_name = "FILE", conflicts_with_all = ["paths", "context", "namespace"])]
    pub values: Option<PathBuf>,
    /// Only objects of this namespace, which is not that of the mesh; all if not given
    #[arg(long, short = 'n', value_name = "NAMESPACE")]
    pub namespace: Option<String>,
    /// What a Service without the annotation traffic-type was in your Traefik Mesh, by its value defaultMode
    #[arg(long, default_value = "http", value_name = "TYPE")]
    pub default_mode: Mode,
    /// What is printed
    #[arg(long, short = 'o', default_value = "sh")]
    pub output: MigrateOutput,
    /// Kubeconfig of the cluster; without it $KUBECONFIG, else ~/.kube/config, else the pod this runs in
    #[arg(long, env = "MAESH_KUBECONFIG", value_name = "FILE", help_heading = "Cluster")]
    pub kubeconfig: Option<PathBuf>,
    /// Context of the kubeconfig; the current one if not given
    #[arg(long, value_name = "NAME", help_heading = "Cluster")]
    pub context: Option<String>,
}

impl MigrateArgs {
    /// The command that means the same cluster.
    pub fn kubectl(&self) -> Vec<String> {
        let file = self.kubeconfig.iter().map(|file| format!("--kubeconfig={}", file.display()));
        let context = self.context.iter().map(|context| format!("--context={context}"));
        std::iter::once("kubectl".to_owned()).chain(file).chain(context).collect()
    }

    /// The cluster to read.
    pub fn cluster(&self) -> ClusterArgs {
        ClusterArgs {
            kubeconfig: self.kubeconfig.clone(),
            context: self.context.clone(),
            // Rights that are missing are said to be of this namespace.
            namespace: self.namespace.clone().unwrap_or_else(|| "*".to_owned()),
            namespace_flag: NAMESPACE_FLAG,
        }
    }
}

/// What `maesh migrate` prints.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum MigrateOutput {
    /// Commands of kubectl annotate, or values for the chart; on standard error the report, as comments
    Sh,
    /// Services that hold the annotations alone, to copy from; on standard error the report, as comments
    Yaml,
    /// The report alone
    Report,
    /// Both, as one line of JSON
    Json,
}
