use std::time::Duration;

use clap::{Args, ValueEnum};
use maesh_config::duration;

/// Own addresses of a cluster: Services in the mesh's namespace that the leader of the controllers makes.
#[derive(Debug, Clone, Args)]
pub struct OwnArgs {
    /// What the name of an HTTP Service resolves to. `node`: the proxy on the caller's node. `service`: one address for
    /// all callers, a Service that selects the proxies. `auto`: `node` if the cluster's DNS tells the mesh the caller's
    /// address (CoreDNS), else `service`; the controller looks once, when it starts
    #[arg(long, env = "MAESH_ADDRESSING", default_value = "node", value_name = "MODE")]
    pub addressing: AddressingMode,
    /// For `--addressing auto`: whether the cluster's DNS tells the mesh the caller's address. Without this flag the
    /// controller finds out; set it where the controller may not read pods and Services of kube-system
    #[arg(long, env = "MAESH_CALLER_KNOWN", action = clap::ArgAction::Set, value_name = "BOOL")]
    pub caller_known: Option<bool>,
    /// How long the EndpointSlices of an own address must list a ready proxy before the name resolves to it: kube-proxy
    /// needs that time on the nodes
    #[arg(long, env = "MAESH_OWN_SETTLE", default_value = "2s", value_parser = duration::parse, value_name = "DURATION")]
    pub own_settle: Duration,
    /// Maximum writes per second of Services and EndpointSlices of own addresses
    #[arg(long, env = "MAESH_OWN_WRITES", default_value_t = 20, value_name = "N")]
    pub own_writes: u32,
    /// Limit for (ports of all own addresses) x (proxies), which every node's kube-proxy has to program. Above it the
    /// leader writes the EndpointSlices of own addresses itself, each with up to three ready proxies of every zone; below
    /// four fifths of it every proxy is listed again. 0: no limit
    #[arg(long, env = "MAESH_OWN_BUDGET", default_value_t = 20_000, value_name = "N")]
    pub own_budget: u32,
    /// Label of the proxies' pods, which own addresses select; repeat it for several
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
    /// Whether names of HTTP Services resolve to one address for all callers; `None` if the cluster has to be asked.
    pub fn one_address(&self) -> Option<bool> {
        match self.addressing {
            AddressingMode::Node => Some(false),
            AddressingMode::Service => Some(true),
            AddressingMode::Auto => self.caller_known.map(|known| !known),
        }
    }
}

fn label(text: &str) -> Result<(String, String), String> {
    let (key, value) = text.split_once('=').ok_or("a label is KEY=VALUE")?;
    Ok((key.to_owned(), value.to_owned()))
}
