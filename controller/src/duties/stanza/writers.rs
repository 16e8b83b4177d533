//! Who writes the stanza again when a person takes it out: controllers that keep it by themselves, and have the right to.

use std::collections::BTreeSet;

use k8s_openapi::api::{
    authorization::v1::{ResourceAttributes, SubjectAccessReview, SubjectAccessReviewSpec},
    core::v1::Pod,
};
use kube::{
    Api,
    api::{ListParams, PostParams},
};

use super::{Cluster, ClusterError, MapName, Mesh, cluster::answer};

/// The pods of controllers.
const CONTROLLERS: &str = "app.kubernetes.io/name=maesh,app.kubernetes.io/component=controller";

impl Cluster {
    /// The pods of the mesh's controllers that keep the stanza by themselves, and may write one of `maps`.
    ///
    /// # Errors
    /// If the API server does not say which pods there are.
    pub async fn writers(&self, mesh: &Mesh, maps: &BTreeSet<MapName>) -> Result<Vec<String>, ClusterError> {
        let pods = self.list::<Pod>(&mesh.namespace, &ListParams::default().labels(CONTROLLERS), "pods").await?;
        let mut writers = Vec::new();
        for pod in pods.iter().filter(|pod| keeps_the_stanza(pod)) {
            if self.may_write(mesh, pod, maps).await {
                writers.extend(pod.metadata.name.clone());
            }
        }
        Ok(writers)
    }

    /// Whether a pod's account may write one of `maps`; where nobody says, it may.
    async fn may_write(&self, mesh: &Mesh, pod: &Pod, maps: &BTreeSet<MapName>) -> bool {
        let account = pod.spec.as_ref().and_then(|spec| spec.service_account_name.as_deref()).unwrap_or("default");
        for map in maps {
            let review = SubjectAccessReview { spec: question(&mesh.namespace, account, map), ..Default::default() };
            let reviews = Api::<SubjectAccessReview>::all(self.client());
            let asked = answer("asking for rights", "", reviews.create(&PostParams::default(), &review)).await;
            if asked.map_or(true, |review| review.status.is_none_or(|status| status.allowed)) {
                return true;
            }
        }
        false
    }
}

/// Whether a pod of a controller, which has not ended, is told to keep the stanza.
fn keeps_the_stanza(pod: &Pod) -> bool {
    let phase = pod.status.as_ref().and_then(|status| status.phase.as_deref());
    let containers = pod.spec.iter().flat_map(|spec| &spec.containers);
    let is_told = containers.into_iter().any(|container| {
        let arguments = container.args.as_deref().unwrap_or_default();
        let by_flag = arguments.iter().any(|argument| argument == "--coredns-mode=auto")
            || arguments.windows(2).any(|pair| pair[0] == "--coredns-mode" && pair[1] == "auto");
        let mut variables = container.env.iter().flatten();
        by_flag || variables.any(|it| it.name == "MAESH_COREDNS_MODE" && it.value.as_deref() == Some("auto"))
    });
    is_told && !matches!(phase, Some("Succeeded" | "Failed"))
}

fn question(namespace: &str, account: &str, map: &MapName) -> SubjectAccessReviewSpec {
    let groups = ["system:authenticated".to_owned(), "system:serviceaccounts".to_owned()];
    let own = format!("system:serviceaccounts:{namespace}");
    SubjectAccessReviewSpec {
        user: Some(format!("system:serviceaccount:{namespace}:{account}")),
        groups: Some(groups.into_iter().chain([own]).collect()),
        resource_attributes: Some(ResourceAttributes {
            namespace: Some(map.namespace.clone()),
            name: Some(map.name.clone()),
            verb: Some("patch".into()),
            resource: Some("configmaps".into()),
            ..ResourceAttributes::default()
        }),
        ..SubjectAccessReviewSpec::default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn which_controllers_keep_the_stanza() {
        for (case, spec, phase, want) in [
            ("by a flag", r#"{"args": ["controller", "--coredns-mode=auto"]}"#, "Running", true),
            ("by two words", r#"{"args": ["--coredns-mode", "auto"]}"#, "Pending", true),
            ("by a variable", r#"{"env": [{"name": "MAESH_COREDNS_MODE", "value": "auto"}]}"#, "Running", true),
            ("manual", r#"{"args": ["--coredns-mode=manual"]}"#, "Running", false),
            ("ended", r#"{"args": ["--coredns-mode=auto"]}"#, "Failed", false),
            ("the default", "{}", "Running", false),
        ] {
            let mut container: serde_json::Value = serde_json::from_str(spec).expect(case);
            container["name"] = "controller".into();
            let pod = serde_json::json!({ "spec": { "containers": [container] }, "status": { "phase": phase } });
            assert_eq!(keeps_the_stanza(&serde_json::from_value(pod).expect(case)), want, "{case}");
        }
    }
}
