//! Tells an uninstallation from hooks that somebody applied as ordinary objects.
//!
//! `helm template | kubectl apply` renders and applies every hook of the chart, the marker of an uninstallation included.
//! Helm itself makes the objects of a hook only when the hook's event comes. So the chart has one more ConfigMap, for the
//! event `post-delete`: Helm makes it when the mesh is gone already, and deletes it at once. If it exists while the marker
//! asks for an uninstallation that has not ended, all hooks were applied, and nothing must be taken away.

use k8s_openapi::api::core::v1::ConfigMap;
use kube::{
    Api, Client,
    api::{Patch, PatchParams},
    core::ObjectMeta,
};
use serde_json::json;
use tokio::time::{sleep, timeout};

use super::{ANSWER, DONE, PROGRESS, RETRY};

/// How the marker's progress begins once the marker was refused. It stays refused until it is deleted and made anew, so
/// that somebody who deletes the applied hooks one after another starts nothing.
pub const REFUSED: &str = "refused: ";

/// Name of the ConfigMap that exists only where the hooks were applied, beside the marker of this name.
pub fn applied_name(marker: &str) -> String {
    format!("{marker}-applied")
}

/// What is wrong with the marker of this name, and how to repair it.
pub fn refusal(namespace: &str, marker: &str) -> String {
    let applied = applied_name(marker);
    format!(
        "ConfigMap {namespace}/{applied} says that the chart's hooks were applied as ordinary objects (helm template | \
         kubectl apply without --no-hooks); no uninstallation is under way, nothing is taken away. Delete them: kubectl \
         --namespace={namespace} delete job,configmap,serviceaccount,role,rolebinding \
         --selector=app.kubernetes.io/component=uninstall"
    )
}

/// Whether the marker was made by applying the chart's hooks, and not by an uninstallation.
///
/// # Errors
/// When the API server does not say.
pub async fn are_applied(configs: &Api<ConfigMap>, marker: &str) -> Result<bool, kube::Error> {
    Ok(configs.get_metadata_opt(&applied_name(marker)).await?.is_some())
}

/// The progress that a marker tells.
fn progress(marker: &ObjectMeta) -> &str {
    marker.annotations.as_ref().and_then(|annotations| annotations.get(PROGRESS)).map_or("", String::as_str)
}

/// Whether `marker` asks for an uninstallation. Waits for the API server's word; `None` when `given_up` says so.
///
/// A marker that is refused says so from then on. Every replica writes the same text there, so no leader is needed.
pub(super) async fn asks(
    client: &Client,
    namespace: &str,
    marker: &ObjectMeta,
    given_up: impl Fn() -> bool,
) -> Option<bool> {
    let name = marker.name.as_deref().unwrap_or_default();
    match progress(marker) {
        // The mesh is gone, and Helm makes the other ConfigMap for a moment.
        DONE => return Some(true),
        said if said.starts_with(REFUSED) => return Some(false),
        _ => {}
    }
    let configs = Api::<ConfigMap>::namespaced(client.clone(), namespace);
    let applied = loop {
        match timeout(ANSWER, are_applied(&configs, name)).await {
            Ok(Ok(applied)) => break applied,
            // The rights of an older chart. An uninstallation that is wanted must not wait for them.
            Ok(Err(kube::Error::Api(status))) if status.code == 403 => {
                tracing::warn!(
                    config_map = applied_name(name),
                    "uninstallation: the right to get this ConfigMap is missing, so it is not known whether the hooks \
                     were applied by hand; going on. Upgrade the chart"
                );
                break false;
            }
            Ok(Err(error)) => tracing::debug!(%error, "uninstallation: asking whether the hooks were applied"),
            Err(_) => tracing::debug!("uninstallation: the API server is silent; asking again"),
        }
        if given_up() {
            return None;
        }
        sleep(RETRY).await;
    };
    if applied {
        let why = refusal(namespace, name);
        tracing::warn!(marker = name, "uninstallation: refused: {why}");
        let patch =
            json!({ "metadata": { "uid": marker.uid, "annotations": { PROGRESS: format!("{REFUSED}{why}") } } });
        let (parameters, patch) = (PatchParams::default(), Patch::Merge(&patch));
        if let Ok(Err(error)) = timeout(ANSWER, configs.patch_metadata(name, &parameters, &patch)).await {
            tracing::debug!(%error, "uninstallation: the marker does not say that it was refused");
        }
    }
    Some(!applied)
}
