//! What we make goes with what the chart made, also where nobody is left to remove it: it is owned by the controller's
//! Deployment, and Kubernetes collects it.

use std::time::Duration;

use k8s_openapi::{
    api::{apps::v1::Deployment, coordination::v1::Lease},
    apimachinery::pkg::apis::meta::v1::OwnerReference,
};
use kube::{
    Api, Client,
    api::{Patch, PatchParams},
};
use serde_json::json;
use tokio::time::sleep;

use crate::leader::Leadership;

/// Pause after a failure.
const RETRY: Duration = Duration::from_secs(5);

/// The controller's Deployment as an owner; `None` where there is no such Deployment. Waits for the API server.
pub async fn find(client: &Client, namespace: &str, deployment: &str) -> Option<OwnerReference> {
    let deployments = Api::<Deployment>::namespaced(client.clone(), namespace);
    loop {
        match deployments.get_metadata_opt(deployment).await {
            Ok(found) => {
                let uid = found?.metadata.uid?;
                return Some(OwnerReference {
                    api_version: "apps/v1".into(),
                    kind: "Deployment".into(),
                    name: deployment.to_owned(),
                    uid,
                    ..OwnerReference::default()
                });
            }
            Err(error) => tracing::debug!(deployment, %error, "the owner of what is made is not known yet"),
        }
        sleep(RETRY).await;
    }
}

/// Has the Lease owned, once this replica leads.
pub async fn adopt_lease(client: Client, namespace: &str, lease: &str, owner: OwnerReference, leadership: &Leadership) {
    let leases = Api::<Lease>::namespaced(client, namespace);
    let patch = json!({ "metadata": { "ownerReferences": [owner] } });
    let mut leads = leadership.watch();
    while leads.wait_for(|leads| *leads).await.is_ok() {
        match leadership.write(leases.patch_metadata(lease, &PatchParams::default(), &Patch::Merge(&patch))).await {
            Ok(Ok(_)) => return,
            Ok(Err(error)) => tracing::debug!(lease, %error, "the Lease has no owner yet"),
            Err(_) => {}
        }
        sleep(RETRY).await;
    }
}
