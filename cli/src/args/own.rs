use std::time::Duration;

use clap::Args;
use maesh_config::duration;

/// Own addresses of a cluster: Services in the mesh's namespace that the leader of the controllers makes.
#[derive(Debug, Clone, Args)]
pub struct OwnArgs {
    /// How long the EndpointSlices of an own address must have led to a ready proxy before its name answers it:
    /// kube-proxy needs that time on the nodes
    #[arg(long, env = "MAESH_OWN_SETTLE", default_value = "2s", value_parser = duration::parse, value_name = "DURATION")]
    pub own_settle: Duration,
    /// Most writes of own addresses in a second
    #[arg(long, env = "MAESH_OWN_WRITES", default_value_t = 20, value_name = "N")]
    pub own_writes: u32,
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

fn label(text: &str) -> Result<(String, String), String> {
    let (key, value) = text.split_once('=').ok_or("a label is KEY=VALUE")?;
    Ok((key.to_owned(), value.to_owned()))
}
