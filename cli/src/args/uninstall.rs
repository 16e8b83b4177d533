//! Flags of `maesh uninstall`, and of the duty of the same purpose.

use std::{path::PathBuf, time::Duration};

use clap::Args;
use maesh_config::duration;
use maesh_controller::duties::uninstall;

use super::{CorednsMode, StanzaArgs, defaults};

/// How the mesh is uninstalled; the same for the controller and for `maesh uninstall`.
#[derive(Debug, Clone, Args)]
pub struct LeaveArgs {
    /// ConfigMap in the mesh's namespace whose existence starts an uninstallation
    #[arg(
        long = "uninstall-marker",
        env = "MAESH_UNINSTALL_MARKER",
        default_value = "maesh-uninstall",
        value_name = "NAME"
    )]
    pub marker: String,
    /// The controller's Deployment, which owns the objects that the mesh creates in its namespace
    #[arg(long, env = "MAESH_DEPLOYMENT", default_value = defaults::CONTROLLER, value_name = "NAME")]
    pub deployment: String,
    /// How long the cluster's DNS may take to stop forwarding to the mesh after the stanza was removed
    #[arg(long, env = "MAESH_DNS_DEADLINE", default_value = defaults::DNS_DEADLINE, value_parser = duration::parse, value_name = "DURATION")]
    pub dns_deadline: Duration,
}

/// How long a marker has to be gone until that is believed: the last replicas of a mesh end well within it.
const REGRET: Duration = Duration::from_secs(60);

impl LeaveArgs {
    /// For the mesh in `namespace`, whose answers are remembered for `horizon`.
    pub fn options(&self, namespace: &str, horizon: Duration) -> uninstall::Options {
        uninstall::Options {
            namespace: namespace.to_owned(),
            marker: self.marker.clone(),
            horizon,
            dns_deadline: self.dns_deadline,
            regret: REGRET,
        }
    }
}

#[derive(Debug, Clone, Args)]
pub struct UninstallArgs {
    /// Kubeconfig of the cluster; without it, the ServiceAccount of the pod that this runs in
    #[arg(long, env = "MAESH_KUBECONFIG", value_name = "FILE")]
    pub kubeconfig: Option<PathBuf>,
    /// Context of the kubeconfig; the current one if not given
    #[arg(long, requires = "kubeconfig", value_name = "NAME")]
    pub context: Option<String>,
    /// Namespace of the mesh
    #[arg(long, env = "MAESH_NAMESPACE", default_value = defaults::NAMESPACE, value_name = "NAMESPACE")]
    pub namespace: String,
    #[command(flatten)]
    pub leave: LeaveArgs,
    /// Who removes the stanza in the cluster's DNS: with `auto` this program does, with `manual` you do
    #[arg(long, env = "MAESH_COREDNS_MODE", default_value = defaults::COREDNS_MODE, value_name = "MODE")]
    pub coredns_mode: CorednsMode,
    #[command(flatten)]
    pub stanza: StanzaArgs,
    /// Drain window: how long clients may cache a DNS answer
    #[arg(long, env = "MAESH_HORIZON", default_value = defaults::HORIZON, value_parser = duration::parse, value_name = "DURATION")]
    pub horizon: Duration,
    /// How long to wait for a controller to begin, before this program does the work itself
    #[arg(long, default_value = "20s", value_parser = duration::parse, value_name = "DURATION")]
    pub takeover: Duration,
    /// How long everything may take
    #[arg(long, default_value = "10m", value_parser = duration::parse, value_name = "DURATION")]
    pub deadline: Duration,
}
