//! Taking the stanza out, whoever does it: the leader when the mesh goes, or a person.

use std::{net::SocketAddr, time::Duration};

use tokio::time::sleep;

use super::{Answered, Change, Cluster, ClusterError, Mesh, Place, Right, looks};
use crate::own::uninstall::{Answer, ClusterDns};

/// How often a write is tried again when somebody else wrote at the same moment.
const TRIES: usize = 5;

/// Takes out the stanza wherever it is; says what was changed. Others that write at the same moment are waited for.
///
/// # Errors
/// If what is there is not understood, or the API server refuses.
pub async fn take_out(cluster: &Cluster, mesh: &Mesh, right: &Right) -> Result<Vec<Change>, ClusterError> {
    let mut tries = 0;
    loop {
        // Where the mesh is gone already, its address is not needed.
        let forward = cluster.forward(mesh).await.ok();
        let there = cluster.read(cluster.place().await?).await?;
        let changes = there.removals(&mesh.zones, forward)?;
        match cluster.write(&there, &changes, right).await {
            Err(ClusterError::Conflict(_)) if tries < TRIES => tries += 1,
            written => return written.map(|()| changes),
        }
        sleep(Duration::from_millis(100)).await;
    }
}

/// The servers that lead to the mesh still.
///
/// # Errors
/// If the API server does not say.
pub async fn still_leading(cluster: &Cluster, mesh: &Mesh, place: Place) -> Result<Vec<SocketAddr>, ClusterError> {
    let there = cluster.read(place).await?;
    let report = there.report(&mesh.zones, std::net::Ipv4Addr::UNSPECIFIED.into());
    let domain = report.map_or_else(|_| "cluster.local".to_owned(), |report| report.cluster_domain);
    let seen = looks(&there.place, &domain, &mesh.zones).await;
    Ok(seen.into_iter().filter(|(_, look)| look.mesh == Answered::ByMesh).map(|(server, _)| server).collect())
}

/// The mesh's part in the cluster's DNS, for who takes the mesh away.
#[derive(Clone, Debug)]
pub struct Leave {
    /// The cluster.
    pub cluster: Cluster,
    /// What the stanza leads to.
    pub mesh: Mesh,
}

impl ClusterDns for Leave {
    fn remove(&self) -> Answer<'_, ()> {
        // Who calls it asks who leads.
        Box::pin(async {
            let out = take_out(&self.cluster, &self.mesh, &Right::Person).await;
            out.map(drop).map_err(|error| error.to_string())
        })
    }

    fn asks_the_mesh(&self) -> Answer<'_, bool> {
        Box::pin(async {
            let place = self.cluster.place().await.map_err(|error| error.to_string())?;
            let still = still_leading(&self.cluster, &self.mesh, place).await;
            still.map(|still| !still.is_empty()).map_err(|error| error.to_string())
        })
    }
}
