//! Flags of the commands that look at a mesh that runs.

use std::{net::SocketAddr, path::PathBuf, time::Duration};

use clap::Args;

use super::{Output, defaults, parse};

/// Which mesh to look at.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Cluster")]
pub struct ClusterArgs {
    /// Kubeconfig of the cluster; without it $KUBECONFIG, else ~/.kube/config, else the pod this runs in
    #[arg(long, env = "MAESH_KUBECONFIG", value_name = "FILE")]
    pub kubeconfig: Option<PathBuf>,
    /// Context of the kubeconfig; the current one if not given
    #[arg(long, value_name = "NAME")]
    pub context: Option<String>,
    /// Namespace in which the mesh is installed
    #[arg(long, short = 'n', env = "MAESH_NAMESPACE", default_value = defaults::NAMESPACE, value_name = "NAMESPACE")]
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
        let asked = Self::split(written)?;
        parse::name(&asked.name)?;
        Ok(asked)
    }

    fn split(written: &str) -> Result<Self, String> {
        let (scheme, rest) = match written.split_once("://") {
            Some((scheme, rest)) => (Some(scheme.to_ascii_lowercase()), rest),
            None => (None, written),
        };
        let rest = if scheme.is_some() { rest.split(['/', '?', '#']).next().unwrap_or_default() } else { rest };
        let rest = if scheme.is_some() { rest.rsplit_once('@').map_or(rest, |(_, host)| host) } else { rest };
        let usual = match scheme.as_deref() {
            Some("http" | "ws") => Some(80),
            Some("https" | "wss") => Some(443),
            Some(no @ ("ftp" | "ftps" | "file")) => {
                return Err(format!(
                    "the mesh does not carry {no}://; write http://web.shop.maesh, or a name with its port: {rest}:PORT"
                ));
            }
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
            _ => Ok(Self { name: rest.to_owned(), port: usual }),
        }
    }
}

fn number(written: &str, port: &str) -> Result<u16, String> {
    let number = port.parse().ok().filter(|port| *port > 0);
    number.ok_or_else(|| format!("{port:?} in {written:?} is no port; ports are 1 to 65535"))
}

/// Show what a name resolves to for a pod, where the request goes, and what is wrong
///
/// It asks the running roles: dns for its answer to this caller and the rule behind it, the proxy in that answer for the
/// listener, Service and endpoints that a request would reach, and the controller for what it knows of the Service and of
/// the caller. Nothing is sent to a backend, and nothing changes.
///
/// Without flags it looks at the cluster of your kubeconfig or, if you have none, at the `maesh dev` on this machine. In a
/// cluster it asks the mesh's pods through the API server, which needs the rights to `list pods` and `get pods/proxy` in
/// the mesh's namespace.
///
/// Exit code: 0 if the caller is served, 1 if it is not, or if no role could be asked.
#[derive(Debug, Clone, Args)]
#[command(after_help = "Examples:
  maesh explain web.shop.maesh --from shop/client-5c9d      # for a pod
  maesh explain http://web.shop.maesh:8080/path             # what you would give to curl
  maesh explain shop/web --from 10.1.2.3 --port 8080        # one port, for an address
  maesh explain web.shop.maesh --admin 127.0.0.1:5380       # in a `maesh dev`
  maesh explain web.shop.maesh -o json | jq .problems")]
pub struct ExplainArgs {
    /// A mesh name (web.shop.maesh), with a port or as a URL if you like, SERVICE.NAMESPACE, NAMESPACE/SERVICE, or a
    /// ClusterIP
    #[arg(value_name = "NAME", value_parser = Asked::parse)]
    pub name: Asked,
    /// The caller: an address, NAMESPACE/POD, or a pod's name; without it, a caller whose node is not known
    #[arg(long, value_parser = parse::caller, value_name = "ADDRESS|POD")]
    pub from: Option<String>,
    /// Only this port of the Service
    #[arg(long, value_name = "PORT", value_parser = clap::value_parser!(u16).range(1..))]
    pub port: Option<u16>,
    /// Ask a `maesh dev` (or `maesh demo`) by its admin address instead of a cluster
    #[arg(long, value_parser = parse::admin, value_name = "ADDR", conflicts_with_all = ["kubeconfig", "context"])]
    pub admin: Option<SocketAddr>,
    /// Format of the output
    #[arg(long, short = 'o', default_value = "text")]
    pub output: Output,
    #[command(flatten)]
    pub cluster: ClusterArgs,
}

/// Check whether the mesh can be installed (--pre), or whether the installed mesh works
///
/// Each check says pass, warn, fail or skip, and each finding prints a suggested fix. Nothing is changed: objects are tried by
/// dry runs only. A check that cannot run from here is skipped and says why. Run the command in a pod to include the checks
/// that query the cluster's DNS.
///
/// Exit code: 0 if nothing failed, 1 if a check failed or the cluster was not reached, 2 for a mistake in the command line, 3
/// with --strict if nothing failed but there was a warning.
#[derive(Debug, Clone, Args)]
#[command(after_help = "Examples:
  maesh check --pre                         # before helm install
  maesh check                               # after it
  maesh check --only proxy-nodes,config     # some checks, by the names in the second column
  maesh check --wait 60s                    # repeat failed checks, for a minute at most
  maesh check -o json | jq '.checks[] | select(.result == \"fail\")'")]
pub struct CheckArgs {
    /// Check the cluster before an installation
    #[arg(long)]
    pub pre: bool,
    /// Only these checks, by name; repeat it, or separate names by commas
    #[arg(long, value_delimiter = ',', value_parser = crate::check::check_name, value_name = "CHECK")]
    pub only: Vec<String>,
    /// Exit with 3 if there is a warning
    #[arg(long)]
    pub strict: bool,
    /// Repeat failed checks until they pass, for this long at most
    #[arg(long, default_value = "0s", value_parser = maesh_config::duration::parse, value_name = "DURATION")]
    pub wait: Duration,
    /// Format of the output
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
        for (written, why) in [
            ("web:http", "\"http\""),
            ("web:0", "1 to 65535"),
            ("http:///path", "no name"),
            ("[fd00::1", "closing"),
            ("ftp://web.shop.maesh", "does not carry ftp"),
            ("//", "not a name"),
            ("", "no name"),
        ] {
            assert!(Asked::parse(written).unwrap_err().contains(why), "{written}");
        }
    }
}
