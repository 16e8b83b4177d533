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

/// What is asked about: a name, and the port where it was written with one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Asked {
    /// The name, without anything around it.
    pub name: String,
    /// The port written behind it, or that of the URL's scheme.
    pub port: Option<u16>,
}

impl Asked {
    /// Reads a name, `NAME:PORT` or a URL. The scheme's port counts only where a path could not be meant otherwise: a URL.
    fn parse(written: &str) -> Result<Self, String> {
        let (scheme, rest) = match written.split_once("://") {
            Some((scheme, rest)) => (Some(scheme.to_ascii_lowercase()), rest),
            None => (None, written),
        };
        let rest = if scheme.is_some() { rest.split(['/', '?', '#']).next().unwrap_or_default() } else { rest };
        let rest = if scheme.is_some() { rest.rsplit_once('@').map_or(rest, |(_, host)| host) } else { rest };
        let usual = match scheme.as_deref() {
            Some("http" | "ws") => Some(80),
            Some("https" | "wss") => Some(443),
            _ => None,
        };
        if let Some(address) = rest.strip_prefix('[') {
            let (address, port) = address.split_once(']').ok_or_else(|| format!("{written:?} lacks the closing ]"))?;
            let port = port.strip_prefix(':').map(|port| number(written, port)).transpose()?;
            return Ok(Self { name: address.to_owned(), port: port.or(usual) });
        }
        match rest.split_once(':') {
            // An IPv6 address has several.
            Some((name, port)) if !port.contains(':') => {
                Ok(Self { name: name.to_owned(), port: Some(number(written, port)?) })
            }
            _ if rest.is_empty() => Err(format!("{written:?} has no name")),
            _ => Ok(Self { name: rest.to_owned(), port: usual }),
        }
    }
}

fn number(written: &str, port: &str) -> Result<u16, String> {
    let number = port.parse().ok().filter(|port| *port > 0);
    number.ok_or_else(|| format!("{port:?} in {written:?} is no port; ports are 1 to 65535"))
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
  maesh explain http://web.shop.maesh:8080/path             # what you would give to curl
  maesh explain shop/web --from 10.1.2.3 --port 8080        # one port, for an address
  maesh explain web.shop.maesh --admin 127.0.0.1:5380       # from a `maesh dev`
  maesh explain web.shop.maesh -o json | jq .problems")]
pub struct ExplainArgs {
    /// A mesh name (web.shop.maesh), with a port or as a URL if you like, SERVICE.NAMESPACE, NAMESPACE/SERVICE, or a
    /// ClusterIP
    #[arg(value_name = "NAME", value_parser = Asked::parse)]
    pub name: Asked,
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_with_what_people_paste_around_them() {
        for (written, name, port) in [
            ("web.shop.maesh", "web.shop.maesh", None),
            ("web.shop.maesh.", "web.shop.maesh.", None),
            ("shop/web", "shop/web", None),
            ("web.shop.maesh:8080", "web.shop.maesh", Some(8080)),
            ("shop/web:8080", "shop/web", Some(8080)),
            ("http://web.shop.maesh:8080/path", "web.shop.maesh", Some(8080)),
            ("http://web.shop.maesh/path?a=b:c", "web.shop.maesh", Some(80)),
            ("https://web.shop.maesh", "web.shop.maesh", Some(443)),
            ("grpc://web.shop.maesh", "web.shop.maesh", None),
            ("http://user@web.shop.maesh", "web.shop.maesh", Some(80)),
            ("http://[fd00::1]:81/", "fd00::1", Some(81)),
            ("[fd00::1]", "fd00::1", None),
            ("fd00::1", "fd00::1", None),
        ] {
            assert_eq!(Asked::parse(written), Ok(Asked { name: name.into(), port }), "{written}");
        }
        for (written, why) in
            [("web:http", "\"http\""), ("web:0", "1 to 65535"), ("http:///path", "no name"), ("[fd00::1", "closing")]
        {
            assert!(Asked::parse(written).unwrap_err().contains(why), "{written}");
        }
    }
}
