//! Flags of the commands for the mesh's part in the cluster's DNS: `maesh dns status`, `install`, `uninstall`, `print`.

use std::{net::IpAddr, time::Duration};

use clap::{Args, Subcommand, ValueEnum};
use maesh_config::{Zone, duration};

use super::{ClusterArgs, DnsArgs, Output, defaults};

/// The role, or a command for the cluster's DNS.
///
/// Without a command this is the role dns, which answers queries for the mesh's zones. With a command, it manages the stanza
/// by which the cluster's DNS forwards these zones.
#[derive(Debug, Clone, Args)]
#[command(args_conflicts_with_subcommands = true, subcommand_negates_reqs = true)]
pub struct DnsOrCommandArgs {
    #[command(subcommand)]
    pub command: Option<ClusterDnsCommand>,
    #[command(flatten)]
    pub role: Option<DnsArgs>,
}

#[derive(Debug, Clone, Subcommand)]
pub enum ClusterDnsCommand {
    /// Show whether the cluster's DNS forwards to the mesh. Exit code 0 if it does, or if the stanza is written and the
    /// servers cannot be asked from here
    Status(ClusterDnsArgs),
    /// Write the stanza, wait until it takes effect, and undo it if names stop resolving
    Install(InstallArgs),
    /// Remove the stanza, restoring the configuration byte for byte, and wait until no server forwards to the mesh
    Uninstall(RemoveArgs),
    /// Print the stanza
    Print(PrintArgs),
}

/// Which mesh, in which cluster.
#[derive(Debug, Clone, Args)]
pub struct ClusterDnsArgs {
    #[command(flatten)]
    pub cluster: ClusterArgs,
    #[command(flatten)]
    pub stanza: StanzaArgs,
    /// Format of the output
    #[arg(long, short = 'o', default_value = "text")]
    pub output: Output,
}

/// What the stanza is for.
#[derive(Debug, Clone, Args)]
pub struct StanzaArgs {
    /// DNS zone of the mesh; repeat it for several
    #[arg(long = "zone", env = "MAESH_ZONES", value_delimiter = ',', default_values = defaults::ZONES)]
    pub zones: Vec<Zone>,
    #[command(flatten)]
    pub service: DnsServiceArgs,
}

/// Where the cluster's DNS forwards to.
#[derive(Debug, Clone, Args)]
pub struct DnsServiceArgs {
    /// Service of the mesh's dns, in the mesh's namespace
    #[arg(long, env = "MAESH_DNS_SERVICE", default_value = "maesh-dns", value_name = "NAME")]
    pub dns_service: String,
}

#[derive(Debug, Clone, Args)]
pub struct InstallArgs {
    #[command(flatten)]
    pub common: ClusterDnsArgs,
    /// Write it even if the cluster's DNS cannot be asked from here, so that the effect is not checked
    #[arg(long)]
    pub unverified: bool,
    /// How long the cluster's DNS may take to read the change
    #[arg(long, env = "MAESH_DNS_DEADLINE", default_value = defaults::DNS_DEADLINE, value_parser = duration::parse, value_name = "DURATION")]
    pub deadline: Duration,
}

#[derive(Debug, Clone, Args)]
pub struct RemoveArgs {
    #[command(flatten)]
    pub common: ClusterDnsArgs,
    /// How long the cluster's DNS may take to read the change; 0s means do not wait
    #[arg(long, env = "MAESH_DNS_DEADLINE", default_value = defaults::DNS_DEADLINE, value_parser = duration::parse, value_name = "DURATION")]
    pub deadline: Duration,
}

#[derive(Debug, Clone, Args)]
pub struct PrintArgs {
    #[command(flatten)]
    pub common: ClusterDnsArgs,
    /// Address of the Service of the mesh's dns; with it, no cluster is needed
    #[arg(long, value_name = "IP")]
    pub forward: Option<IpAddr>,
    /// Port that the cluster's DNS listens on, if no cluster is asked
    #[arg(long, default_value_t = 53, value_name = "PORT", requires = "forward")]
    pub port: u16,
}

/// Who writes the stanza.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum CorednsMode {
    /// The leader of the controller's replicas
    Auto,
    /// A person
    Manual,
}
