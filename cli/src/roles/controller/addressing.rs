//! `--addressing auto`: finds out whether the cluster's DNS tells the mesh who asks.
//!
//! CoreDNS does, by the stanza's `rewrite edns0 subnet`. kube-dns, OpenShift's operator and DNS services outside of the
//! cluster do not; there one address for all callers is right. The answer is worked out once, before anything is compiled,
//! so that every replica compiles the same.

use std::time::Duration;

use anyhow::bail;
use kube::Client;
use maesh_controller::duties::stanza::{Cluster, ClusterError, Place, Software, Unplaced};
use tokio::time::sleep;

/// Pause between two looks at a cluster's DNS that does not run yet, or an API server that does not answer.
const PAUSE: Duration = Duration::from_secs(2);

/// What a look at the cluster's DNS says.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Finding {
    /// The mesh learns the caller's address.
    Known,
    /// It does not, and why.
    Unknown(String),
    /// Not to be said yet, and why.
    Later(String),
    /// The controller has no right to look.
    Forbidden(String),
}

/// Whether names of HTTP Services resolve to one address for all callers.
///
/// # Errors
/// When the controller may not look.
pub async fn one_address(client: Client) -> anyhow::Result<bool> {
    let cluster = Cluster::new(client);
    let mut said = None;
    loop {
        match judge(cluster.place().await) {
            Finding::Known => {
                tracing::info!(
                    "addressing auto: the cluster's DNS is CoreDNS; names resolve to the proxy on the caller's node"
                );
                return Ok(false);
            }
            Finding::Unknown(why) => {
                tracing::info!("addressing auto: {why}; names resolve to one address for all callers");
                return Ok(true);
            }
            Finding::Later(why) => {
                if said.as_ref() != Some(&why) {
                    tracing::warn!("addressing auto: {why}; looking again every {PAUSE:?}");
                    said = Some(why);
                }
                sleep(PAUSE).await;
            }
            Finding::Forbidden(why) => bail!(
                "--addressing auto: {why}. The controller cannot find out whether the cluster's DNS tells the caller's \
                 address; say so with --caller-known true (CoreDNS) or false (anything else), in the chart \
                 coredns.tellsCaller"
            ),
        }
    }
}

fn judge(place: Result<Place, ClusterError>) -> Finding {
    match place.map(|place| place.software) {
        Ok(Software::CoreDns { .. }) => Finding::Known,
        Ok(Software::KubeDns { map }) => {
            Finding::Unknown(format!("the cluster's DNS is kube-dns ({map}), which does not tell who asks"))
        }
        Err(ClusterError::Unplaced(why @ (Unplaced::OpenShift | Unplaced::NoService | Unplaced::NoCorefile(_)))) => {
            let why = why.to_string();
            Finding::Unknown(why.split(". ").next().unwrap_or_default().to_owned())
        }
        Err(error @ ClusterError::Forbidden { .. }) => Finding::Forbidden(error.to_string()),
        Err(error) => Finding::Later(error.to_string()),
    }
}

#[cfg(test)]
mod tests {
    use std::net::{Ipv4Addr, SocketAddr};

    use maesh_controller::duties::stanza::MapName;

    use super::*;

    #[test]
    fn what_a_look_at_the_clusters_dns_says() {
        let map = || MapName { namespace: "kube-system".into(), name: "dns".into() };
        let runs = |software| {
            let service = SocketAddr::from((Ipv4Addr::LOCALHOST, 53));
            Ok(Place { service, servers: Vec::new(), software, node_local: None })
        };
        let coredns =
            Software::CoreDns { map: map(), key: "Corefile".into(), folder: "/etc/coredns".into(), mounts: Vec::new() };
        let forbidden = ClusterError::Forbidden {
            what: "listing pods".into(),
            message: "no".into(),
            allow: "Allow it".into(),
            instead: "do it by hand".into(),
        };
        let silent = ClusterError::Silent { what: "listing pods".into() };
        for (case, place, want) in [
            ("CoreDNS", runs(coredns), "Known"),
            ("kube-dns", runs(Software::KubeDns { map: map() }), "Unknown"),
            ("OpenShift", Err(Unplaced::OpenShift.into()), "Unknown"),
            ("no DNS in the cluster", Err(Unplaced::NoService.into()), "Unknown"),
            ("settings that are no ConfigMap", Err(Unplaced::NoCorefile("dns-1".into()).into()), "Unknown"),
            ("DNS that does not run yet", Err(Unplaced::NoPods("kube-system/kube-dns".into()).into()), "Later"),
            ("an API server that is silent", Err(silent), "Later"),
            ("no right to look", Err(forbidden), "Forbidden"),
        ] {
            let found = format!("{:?}", judge(place));
            assert!(found.starts_with(want), "{case}: {found}");
        }
    }
}
