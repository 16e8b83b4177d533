//! Taking the stanza out, whoever does it: the leader when the mesh goes, or a person.

use std::{net::SocketAddr, time::Duration};

use futures_util::future::join_all;
use maesh_config::Zone;
use tokio::time::sleep;

use super::{Answered, Change, Cluster, ClusterError, Mesh, Right, Unplaced, look};
use crate::duties::{
    events::{Note, Recorder, Tone},
    uninstall::{ClusterDns, DnsFuture, Removed},
};

/// How often a write is tried again when somebody else wrote at the same moment.
const TRIES: usize = 5;

/// Takes out the stanza wherever it is; says what was changed. Others that write at the same moment are waited for.
///
/// # Errors
/// If the API server refuses; or if a text is not understood, after the others were cleared.
pub async fn take_out(cluster: &Cluster, mesh: &Mesh, right: &Right) -> Result<Vec<Change>, ClusterError> {
    let mut tries = 0;
    loop {
        // Where the mesh is gone already, its address is not needed.
        let forward = cluster.forward(mesh).await.ok();
        let there = cluster.read(cluster.place().await?).await?;
        let (changes, refusal) = there.removals(&mesh.zones, forward);
        match (cluster.write(&there, &changes, right).await, refusal) {
            (Err(ClusterError::Conflict(_)), _) if tries < TRIES => tries += 1,
            (Ok(()), Some(refusal)) => return Err(refusal.into()),
            (written, _) => return written.map(|()| changes),
        }
        sleep(Duration::from_millis(100)).await;
    }
}

/// Those of `servers` that lead to the mesh still.
pub async fn still_leading(servers: &[SocketAddr], zones: &[Zone]) -> Vec<SocketAddr> {
    let zone = zones.first().map(Zone::as_str).unwrap_or_default();
    let seen = join_all(servers.iter().map(|server| async { (*server, look(*server, zone, zone).await) })).await;
    seen.into_iter().filter(|(_, look)| look.mesh == Answered::ByMesh).map(|(server, _)| server).collect()
}

/// Whom this process asks for names: in a pod, the cluster's DNS.
fn resolvers() -> Vec<SocketAddr> {
    nameservers(&std::fs::read_to_string("/etc/resolv.conf").unwrap_or_default())
}

fn nameservers(text: &str) -> Vec<SocketAddr> {
    let of_line = |line: &str| {
        let mut words = line.split_whitespace();
        let ip = words.next().filter(|word| *word == "nameserver").and_then(|_| words.next())?;
        Some(SocketAddr::new(ip.parse().ok()?, 53))
    };
    text.lines().filter_map(of_line).collect()
}

/// The mesh's part in the cluster's DNS, for who takes the mesh away.
#[derive(Clone, Debug)]
pub struct Leave {
    /// The cluster.
    pub cluster: Cluster,
    /// What the stanza leads to.
    pub mesh: Mesh,
    /// Who takes it out.
    pub right: Right,
    /// Who writes Events, where a controller runs.
    pub recorder: Option<Recorder>,
}

impl ClusterDns for Leave {
    fn remove(&self) -> DnsFuture<'_, Removed> {
        Box::pin(async {
            match take_out(&self.cluster, &self.mesh, &self.right).await {
                Ok(_) => Ok(Removed::Gone),
                Err(error) => not_taken_out(error),
            }
        })
    }

    fn kept<'a>(&'a self, why: &'a str) -> DnsFuture<'a, ()> {
        Box::pin(async move {
            let Some(recorder) = &self.recorder else { return Ok(()) };
            let (object, uid) = self.cluster.looked_after().await;
            let text = format!("the mesh is taken away, and its stanza could not be taken out of here: {why}");
            let (uid, reason) = (uid.map(Into::into), "StanzaKept".into());
            recorder.happened(Note { object, uid, tone: Tone::Warning, reason, text: text.into() });
            Ok(())
        })
    }

    fn asks_the_mesh(&self) -> DnsFuture<'_, bool> {
        Box::pin(async {
            let servers = match self.cluster.servers().await {
                Ok(servers) if !servers.is_empty() => servers,
                Ok(_) | Err(ClusterError::Forbidden { .. }) => resolvers(),
                Err(error) => return Err(error.to_string()),
            };
            Ok(!still_leading(&servers, &self.mesh.zones).await.is_empty())
        })
    }
}

/// What a failure means for who takes the mesh away: only what may pass by itself is worth another try.
fn not_taken_out(error: ClusterError) -> Result<Removed, String> {
    let by_hand = "so the mesh wrote nothing there; if you added its zones by hand, take them out";
    match error {
        ClusterError::Unplaced(Unplaced::OpenShift) => Ok(Removed::NeverWritten(format!(
            "OpenShift's DNS operator writes the Corefile, {by_hand} of dns.operator.openshift.io/default"
        ))),
        ClusterError::Unplaced(Unplaced::NoService) => Ok(Removed::NeverWritten(format!(
            "no Service of the cluster's DNS was found in kube-system, {by_hand} of what answers in its place"
        ))),
        ClusterError::Unplaced(Unplaced::NoCorefile(pod)) => Ok(Removed::NeverWritten(format!(
            "Pod {pod} reads no Corefile from a ConfigMap, {by_hand} of where its settings come from"
        ))),
        ClusterError::Unplaced(Unplaced::NoPods(service)) => Ok(Removed::NotYet(format!(
            "no pod runs behind Service {service}. If the mesh's zones are in its settings, take them out once it runs: \
             `maesh dns uninstall`"
        ))),
        ClusterError::Forbidden { what, message, allow, .. } => Ok(Removed::NotYet(format!(
            "{what}: {message}. {allow}, or take the mesh's zones out: `maesh dns uninstall`"
        ))),
        ClusterError::Refusal(refusal) => Ok(Removed::NotYet(format!(
            "{refusal}; if the mesh's zones are in it, take them out once it is mended: `maesh dns uninstall`"
        ))),
        error => Err(error.to_string()),
    }
}

#[cfg(test)]
mod tests {
    use super::{
        super::{CorefileRef, MapName, StanzaRefusal},
        *,
    };

    #[test]
    fn a_text_that_is_not_understood_may_be_mended_and_does_not_keep_the_mesh_for_ever() {
        let map = MapName { namespace: "kube-system".into(), name: "coredns".into() };
        let refusal = StanzaRefusal::NotThere(CorefileRef { map, key: "Corefile".into() });
        let Ok(Removed::NotYet(why)) = not_taken_out(refusal.into()) else { panic!("not waited for") };
        assert!(why.contains("kube-system/coredns, key Corefile, is not there"), "{why}");
        assert!(why.ends_with("take them out once it is mended: `maesh dns uninstall`"), "{why}");
    }

    #[test]
    fn who_is_asked_for_names() {
        let text = "# nameserver 10.0.0.1\nsearch nameserver 10.0.0.2\nnameserver 10.96.0.10\n\tnameserver  fd00::a x\n\
                    nameserver\nnameserver here\n";
        let want: Vec<SocketAddr> = ["10.96.0.10:53", "[fd00::a]:53"].map(|server| server.parse().expect("one")).into();
        assert_eq!(nameservers(text), want);
    }
}
