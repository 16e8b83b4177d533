use std::time::Duration;

use clap::{Args, ValueEnum};
use maesh_config::duration;

/// Own addresses of a cluster: Services in the mesh's namespace that the leader of the controllers makes.
#[derive(Debug, Clone, Args)]
pub struct OwnArgs {
    /// What names of HTTP Services answer: the proxy on the caller's node; one address for everybody, a Service that
    /// leads to the proxies; or the first where the cluster's DNS tells the caller's address, else the second
    #[arg(long, env = "MAESH_ADDRESSING", default_value = "node", value_name = "MODE")]
    pub addressing: AddressingMode,
    /// For `--addressing auto`: the cluster's DNS tells dns the caller's address, as CoreDNS does with the stanza; false
    /// for OpenShift's operator, kube-dns, and other platforms whose DNS cannot
    #[arg(long, env = "MAESH_CALLER_KNOWN", default_value_t = true, action = clap::ArgAction::Set, value_name = "BOOL")]
    pub caller_known: bool,
    /// How long the EndpointSlices of an own address must have led to a ready proxy before its name answers it:
    /// kube-proxy needs that time on the nodes
    #[arg(long, env = "MAESH_OWN_SETTLE", default_value = "2s", value_parser = duration::parse, value_name = "DURATION")]
    pub own_settle: Duration,
    /// Most writes of own addresses in a second
    #[arg(long, env = "MAESH_OWN_WRITES", default_value_t = 20, value_name = "N")]
    pub own_writes: u32,
    /// Ports of all own addresses times proxies, which every node's kube-proxy holds, past which the leader writes the
    /// EndpointSlices of own addresses itself, each with up to three ready proxies of every zone; back below four fifths
    /// of it. 0: never, each own address leads to every proxy
    #[arg(long, env = "MAESH_OWN_BUDGET", default_value_t = 20_000, value_name = "N")]
    pub own_budget: u32,
    /// Label of the proxies' pods, to which own addresses lead; repeat it for several
    #[arg(
        long,
        env = "MAESH_PROXY_LABELS",
        value_delimiter = ',',
        value_parser = label,
        default_values = ["app.kubernetes.io/name=maesh", "app.kubernetes.io/component=proxy"],
        value_name = "KEY=VALUE"
    )]
    pub proxy_label: Vec<(String, String)>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum AddressingMode {
    Node,
    Service,
    Auto,
}

impl OwnArgs {
    /// Whether names of HTTP Services answer one address for everybody.
    pub fn one_address(&self) -> bool {
        match self.addressing {
            AddressingMode::Node => false,
            AddressingMode::Service => true,
            AddressingMode::Auto => !self.caller_known,
        }
    }
}

fn label(text: &str) -> Result<(String, String), String> {
    let (key, value) = text.split_once('=').ok_or("a label is KEY=VALUE")?;
    Ok((key.to_owned(), value.to_owned()))
}
