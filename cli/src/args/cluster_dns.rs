//! Flags of the commands for the mesh's part in the cluster's DNS: `maesh dns status`, `install`, `uninstall`, `print`.

use std::{net::IpAddr, time::Duration};

use clap::{Args, Subcommand, ValueEnum};
use maesh_config::{Zone, duration};

use super::{ClusterArgs, DnsArgs, Output};

/// The role, or a command for the cluster's DNS.
///
/// Without a command this is the role: it answers the mesh's DNS zones. With one, it looks after the stanza by which
/// the cluster's DNS forwards these zones to the role.
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
    /// Say whether the cluster's DNS leads to the mesh; exit code 0 if it does, or, where its servers cannot be asked from
    /// here, if the stanza is written
    Status(ClusterDnsArgs),
    /// Put the stanza into the cluster's DNS, watch it take effect, and undo it if names fail
    Install(InstallArgs),
    /// Take the stanza out of the cluster's DNS, to the byte, and wait until nobody asks the mesh any more
    Uninstall(RemoveArgs),
    /// Print the stanza, to add it by hand
    Print(PrintArgs),
}

/// Which mesh, in which cluster.
#[derive(Debug, Clone, Args)]
pub struct ClusterDnsArgs {
    #[command(flatten)]
    pub cluster: ClusterArgs,
    #[command(flatten)]
    pub stanza: StanzaArgs,
    /// How to print it
    #[arg(long, short = 'o', default_value = "text")]
    pub output: Output,
}

/// What the stanza is for.
#[derive(Debug, Clone, Args)]
pub struct StanzaArgs {
    /// Zone of the mesh; repeat it for several
    #[arg(long = "zone", env = "MAESH_ZONES", value_delimiter = ',', default_values = ["maesh", "traefik.mesh"])]
    pub zones: Vec<Zone>,
    #[command(flatten)]
    pub service: DnsServiceArgs,
}

/// Where the cluster's DNS is to forward to.
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
    /// Write it also where the cluster's DNS cannot be asked from here, so that what comes of it is not seen
    #[arg(long)]
    pub unverified: bool,
    /// How long the cluster's DNS may take to read the change
    #[arg(long, env = "MAESH_DNS_DEADLINE", default_value = "240s", value_parser = duration::parse, value_name = "DURATION")]
    pub deadline: Duration,
}

#[derive(Debug, Clone, Args)]
pub struct RemoveArgs {
    #[command(flatten)]
    pub common: ClusterDnsArgs,
    /// How long the cluster's DNS may take to read the change; 0s: do not wait
    #[arg(long, env = "MAESH_DNS_DEADLINE", default_value = "240s", value_parser = duration::parse, value_name = "DURATION")]
    pub deadline: Duration,
}

#[derive(Debug, Clone, Args)]
pub struct PrintArgs {
    #[command(flatten)]
    pub common: ClusterDnsArgs,
    /// Address of the Service of the mesh's dns; with it, no cluster is asked
    #[arg(long, value_name = "IP")]
    pub forward: Option<IpAddr>,
    /// Port that the cluster's DNS listens on, where no cluster is asked
    #[arg(long, default_value_t = 53, value_name = "PORT", requires = "forward")]
    pub port: u16,
}

/// Who looks after the stanza.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum CorednsMode {
    /// The leader of the controller's replicas
    Auto,
    /// A person
    Manual,
}
