//! The users' objects, as the controllers see them.

use std::collections::{BTreeMap, BTreeSet};

use maesh_config::ServiceName;
use serde_json::Value;

use super::{
    context::{Context, counted, name, some_of, text},
    outcome::Outcome,
};

/// Nothing is wrong with what is written in objects.
pub async fn objects(context: &Context) -> Outcome {
    match context.answers_of("controller", "/api/diagnostics").await {
        Ok(told) => match told.first() {
            Some((_, said)) => judge_objects(said["diagnostics"].as_array().map_or(&[], Vec::as_slice)),
            None => Outcome::skip("no controller could be asked"),
        },
        Err(unread) => unread,
    }
}

fn judge_objects(found: &[Value]) -> Outcome {
    let object = |found: &Value| {
        let of = |field: &str| text(found, &format!("/diagnostic/object/{field}"));
        match of("namespace") {
            "" => format!("{} {}", of("kind"), of("name")),
            namespace => format!("{} {namespace}/{}", of("kind"), of("name")),
        }
    };
    let objects: BTreeSet<_> = found.iter().map(object).collect();
    let Some(first) = found.first() else {
        return Outcome::pass("nothing is wrong with what is written in objects");
    };
    Outcome::warn(
        format!(
            "{} in {}: {}. The first one: {}",
            counted(found.len(), "finding"),
            counted(objects.len(), "object"),
            some_of(objects.iter().map(String::as_str)),
            text(first, "/diagnostic/message")
        ),
        "kubectl get events -A --field-selector reportingComponent=maesh.containo.us/controller has all of them; \
         `maesh analyze` finds them before they are applied",
    )
}

/// Services of the mesh have endpoints that are ready.
pub async fn endpoints(context: &Context) -> Outcome {
    let told = match context.answers_of("controller", "/api/services").await {
        Ok(told) => told,
        Err(unread) => return unread,
    };
    let Some((_, said)) = told.first() else { return Outcome::skip("no controller could be asked") };
    let services = said["services"].as_array().into_iter().flatten().filter(|service| service["bypass"] != true);
    let services: BTreeSet<ServiceName> = services.filter_map(|service| service_of(text(service, "/name"))).collect();
    let mut ready: BTreeMap<ServiceName, bool> = services.into_iter().map(|service| (service, false)).collect();
    let url = "/apis/discovery.k8s.io/v1/endpointslices";
    match context.each(url, "list endpointslices", |slice| note_endpoints(&mut ready, slice)).await {
        Ok(()) => judge_endpoints(&ready),
        Err(error) => Outcome::unread(&error),
    }
}

/// The Service of a mesh name: neither its name nor its namespace has a dot.
fn service_of(mesh_name: &str) -> Option<ServiceName> {
    let mut labels = mesh_name.split('.');
    let service = labels.next()?;
    Some(ServiceName::new(labels.next()?, service))
}

/// Notes that the Service of an EndpointSlice has endpoints that are ready, if it has. Without a word, one is.
fn note_endpoints(ready: &mut BTreeMap<ServiceName, bool>, slice: &Value) {
    let service = text(slice, "/metadata/labels/kubernetes.io~1service-name");
    let Some(ready) = ready.get_mut(&ServiceName::new(text(slice, "/metadata/namespace"), service)) else { return };
    let mut endpoints = slice["endpoints"].as_array().into_iter().flatten();
    *ready |= endpoints.any(|endpoint| endpoint.pointer("/conditions/ready") != Some(&Value::Bool(false)));
}

fn judge_endpoints(ready: &BTreeMap<ServiceName, bool>) -> Outcome {
    let without: Vec<String> = ready.iter().filter(|(_, ready)| !**ready).map(|(name, _)| name.to_string()).collect();
    match without.first() {
        None => Outcome::pass(format!("all {} Services of the mesh have endpoints that are ready", ready.len())),
        Some(first) => Outcome::warn(
            format!(
                "{} of {} Services of the mesh have no endpoint that is ready: {}",
                without.len(),
                ready.len(),
                some_of(without.iter().map(String::as_str))
            ),
            format!(
                "see their pods: kubectl get pods -A; kubectl -n {} describe service {}; requests are answered 503 no_endpoints",
                first.split('/').next().unwrap_or_default(),
                first.split('/').nth(1).unwrap_or_default()
            ),
        ),
    }
}

/// The nodes can run what the image is built for.
pub async fn platform(context: &Context) -> Outcome {
    match &*context.get("/api/v1/nodes", "list nodes").await {
        Ok(nodes) => judge_platform(super::context::items(nodes)),
        Err(error) => Outcome::unread(error),
    }
}

/// What the image is built for.
const PLATFORM: &str = "linux/amd64";

fn judge_platform(nodes: &[Value]) -> Outcome {
    let platform = |node: &Value| {
        let of = |field: &str| text(node, &format!("/status/nodeInfo/{field}"));
        format!("{}/{}", of("operatingSystem"), of("architecture"))
    };
    // A node that has not started yet says nothing.
    let known: Vec<_> = nodes.iter().map(|node| (name(node), platform(node))).filter(|(_, it)| it != "/").collect();
    let others: Vec<_> =
        known.iter().filter(|(_, it)| it != PLATFORM).map(|(node, it)| format!("{node} ({it})")).collect();
    let all = some_of(others.iter().map(String::as_str));
    match (known.len(), others.len()) {
        (0, _) => Outcome::skip("no node says what it runs on"),
        (1, 0) => Outcome::pass(format!("the only node runs on {PLATFORM}, which the image is built for")),
        (known, 0) => Outcome::pass(format!("all {known} nodes run on {PLATFORM}, which the image is built for")),
        (known, others) if known == others => Outcome::fail(
            format!("no node runs on {PLATFORM}, which the image is built for: {all}"),
            "add nodes of that platform, or build the image for yours",
        ),
        _ => Outcome::warn(
            format!("nodes run no proxy, because the image is built for {PLATFORM}: {all}"),
            "set proxy.nodeSelector, controller.nodeSelector and dns.nodeSelector to kubernetes.io/os=linux and \
             kubernetes.io/arch=amd64; pods on the other nodes use proxies elsewhere",
        ),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::{super::outcome::Verdict, *};

    #[test]
    fn findings_in_objects() {
        assert_eq!(judge_objects(&[]).verdict, Verdict::Pass);
        let found = |kind: &str, message: &str| {
            json!({ "severity": "warning", "diagnostic": {
                "object": { "kind": kind, "namespace": "shop", "name": "web" }, "message": message } })
        };
        let outcome =
            judge_objects(&[found("Service", "one"), found("Service", "two"), found("TrafficSplit", "three")]);
        assert_eq!(outcome.verdict, Verdict::Warn);
        let want = "3 findings in 2 objects: Service shop/web, TrafficSplit shop/web. The first one: one";
        assert_eq!(outcome.message, want);
    }

    #[test]
    fn services_without_endpoints() {
        let slice = |service: &str, conditions: &[Value]| {
            let endpoints: Vec<_> = conditions.iter().map(|ready| json!({ "conditions": ready })).collect();
            json!({ "metadata": { "namespace": "shop", "labels": { "kubernetes.io/service-name": service } },
                "endpoints": endpoints })
        };
        let (yes, no) = (json!({ "ready": true }), json!({ "ready": false }));
        for (case, slices, want) in [
            ("none", vec![], Verdict::Warn),
            ("of another Service", vec![slice("api", std::slice::from_ref(&yes))], Verdict::Warn),
            ("not ready", vec![slice("web", std::slice::from_ref(&no))], Verdict::Warn),
            (
                "ready in one of two",
                vec![slice("web", std::slice::from_ref(&no)), slice("web", &[no.clone(), yes])],
                Verdict::Pass,
            ),
            ("without a word", vec![slice("web", &[json!({})])], Verdict::Pass),
        ] {
            let mut ready = BTreeMap::from([(service_of("web.shop.maesh").unwrap(), false)]);
            slices.iter().for_each(|slice| note_endpoints(&mut ready, slice));
            assert_eq!(judge_endpoints(&ready).verdict, want, "{case}");
        }
    }

    #[test]
    fn platforms_of_nodes() {
        let node = |os: &str, arch: &str| json!({ "metadata": { "name": "n" }, "status": { "nodeInfo": { "operatingSystem": os, "architecture": arch } } });
        for (case, nodes, want) in [
            ("all", vec![node("linux", "amd64")], Verdict::Pass),
            ("one other", vec![node("linux", "amd64"), node("linux", "arm64")], Verdict::Warn),
            ("one that starts", vec![node("linux", "amd64"), json!({})], Verdict::Pass),
            ("none", vec![node("windows", "amd64"), node("linux", "arm64")], Verdict::Fail),
            ("unknown", vec![json!({})], Verdict::Skip),
        ] {
            assert_eq!(judge_platform(&nodes).verdict, want, "{case}");
        }
    }
}
