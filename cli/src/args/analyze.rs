//! Flags of `maesh analyze`.

use std::path::PathBuf;

use clap::{Args, ValueEnum};

use super::{ClusterArgs, MeshArgs, inspect::NAMESPACE_FLAG};

/// Find mistakes in manifests before they are applied
///
/// The manifests are compiled as a controller compiles the objects of a cluster, and every finding is printed with its place,
/// object, field, value, what is used instead, and what to do. Nothing is sent or changed. A document that cannot be parsed is
/// a finding; the others are still looked at. An object without a namespace counts as one of namespace `default`.
///
/// Give the flags with which the mesh of your cluster runs, such as --acl. Without --cluster only the given files are known:
/// what they name and do not have counts as missing.
///
/// Exit code: 0 if nothing was found that --fail-on asks for, 79 if something was, 1 if a file could not be read at all or there
/// was none, 2 for a mistake in the command line.
#[derive(Debug, Clone, Args)]
#[command(after_help = "Examples:
  maesh analyze deploy/                              # all manifests of a folder
  helm template ./chart | maesh analyze -            # what a chart or kustomize renders
  maesh analyze deploy/ --acl                        # as a mesh with access control reads them
  maesh analyze deploy/ --cluster                    # together with the objects of the cluster of your kubeconfig
  maesh analyze deploy/ -o sarif > maesh.sarif       # for the code scanning of a forge
  maesh analyze deploy/ -o json | jq '.findings[] | select(.severity == \"error\")'")]
pub struct AnalyzeArgs {
    /// Files or folders of manifests (YAML or JSON); `-` reads standard input
    #[arg(required = true, value_name = "PATH")]
    pub paths: Vec<PathBuf>,
    /// Format of the output
    #[arg(long, short = 'o', default_value = "text")]
    pub output: AnalyzeOutput,
    /// From which severity on a finding makes the exit code 79
    #[arg(long, default_value = "warning", value_name = "SEVERITY")]
    pub fail_on: FailOn,
    /// Read the objects of the cluster too, and put the manifests over them. Only what the manifests change is reported
    #[arg(long)]
    pub cluster: bool,
    /// With --cluster: its kubeconfig; without it $KUBECONFIG, else ~/.kube/config
    #[arg(long, env = "MAESH_KUBECONFIG", value_name = "FILE")]
    pub kubeconfig: Option<PathBuf>,
    /// With --cluster: context of the kubeconfig; the current one if not given
    #[arg(long, requires = "cluster", value_name = "NAME")]
    pub context: Option<String>,
    #[command(flatten)]
    pub mesh: MeshArgs,
}

impl AnalyzeArgs {
    /// The cluster whose objects count, too.
    pub fn cluster(&self) -> Option<ClusterArgs> {
        self.cluster.then(|| ClusterArgs {
            kubeconfig: self.kubeconfig.clone(),
            context: self.context.clone(),
            namespace: self.mesh.namespace.clone(),
            namespace_flag: NAMESPACE_FLAG,
        })
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum AnalyzeOutput {
    /// For people
    Text,
    /// For scripts: one JSON object
    Json,
    /// SARIF 2.1.0, for code scanning
    Sarif,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum FailOn {
    /// An object or a document that cannot be used at all
    Error,
    /// Something is used in place of what is written
    Warning,
    /// Something that the mesh does not read
    Info,
    /// Findings never change the exit code
    Never,
}
