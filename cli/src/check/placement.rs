//! Whether the scheduler may put a DaemonSet's pod on a node: node selector, required node affinity, tolerations.

use serde_json::Value;

use super::context::{name, text};

/// A pod of this template may be on the node.
pub(super) fn runs_on(spec: &Value, node: &Value) -> bool {
    let labels = &node["metadata"]["labels"];
    let selected = spec["nodeSelector"]
        .as_object()
        .is_none_or(|selector| selector.iter().all(|(key, value)| labels.get(key) == Some(value)));
    let required = "/affinity/nodeAffinity/requiredDuringSchedulingIgnoredDuringExecution/nodeSelectorTerms";
    let attracted = spec.pointer(required).is_none_or(|terms| list(terms).iter().any(|term| is_of(term, node)));
    let tolerations = list(&spec["tolerations"]);
    let tolerated = |taint: &Value| {
        // The DaemonSet controller itself adds tolerations for these.
        text(taint, "/key").starts_with("node.kubernetes.io/") || tolerations.iter().any(|it| tolerates(it, taint))
    };
    let keeps_out = |taint: &&Value| matches!(text(taint, "/effect"), "NoSchedule" | "NoExecute");
    selected && attracted && list(&node["spec"]["taints"]).iter().filter(keeps_out).all(tolerated)
}

fn list(value: &Value) -> &[Value] {
    value.as_array().map_or(&[], Vec::as_slice)
}

/// Whether a term of a node selector means this node; one without requirements means none.
fn is_of(term: &Value, node: &Value) -> bool {
    let (labels, fields) = (list(&term["matchExpressions"]), list(&term["matchFields"]));
    let label = |one: &Value| meets(one, node["metadata"]["labels"][text(one, "/key")].as_str());
    let field = |one: &Value| meets(one, (text(one, "/key") == "metadata.name").then(|| name(node)));
    !(labels.is_empty() && fields.is_empty()) && labels.iter().all(label) && fields.iter().all(field)
}

/// Whether a value, or that there is none, is as the requirement says.
fn meets(requirement: &Value, value: Option<&str>) -> bool {
    let values = list(&requirement["values"]);
    let listed = value.is_some_and(|value| values.iter().any(|one| one == value));
    let number = |text: Option<&str>| text.and_then(|text| text.parse::<i64>().ok());
    let (value_number, bound) = (number(value), number(values.first().and_then(Value::as_str)));
    let compared = value_number.zip(bound);
    match text(requirement, "/operator") {
        "In" => listed,
        "NotIn" => !listed,
        "Exists" => value.is_some(),
        "DoesNotExist" => value.is_none(),
        "Gt" => compared.is_some_and(|(value, bound)| value > bound),
        "Lt" => compared.is_some_and(|(value, bound)| value < bound),
        // One that is newer than this: the node is not said to lack a proxy.
        _ => false,
    }
}

fn tolerates(toleration: &Value, taint: &Value) -> bool {
    let (key, effect) = (text(toleration, "/key"), text(toleration, "/effect"));
    let exists = text(toleration, "/operator") == "Exists";
    let value = exists || text(toleration, "/value") == text(taint, "/value");
    (effect.is_empty() || effect == text(taint, "/effect"))
        && ((key.is_empty() && exists) || (key == text(taint, "/key") && value))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn tolerations() {
        let taint = json!({ "key": "gpu", "value": "yes", "effect": "NoSchedule" });
        for (toleration, want) in [
            (json!({ "operator": "Exists" }), true),
            (json!({ "key": "gpu", "operator": "Exists" }), true),
            (json!({ "key": "gpu", "value": "yes" }), true),
            (json!({ "key": "gpu", "value": "no" }), false),
            (json!({ "key": "gpu", "operator": "Exists", "effect": "NoExecute" }), false),
            (json!({ "key": "cpu", "operator": "Exists" }), false),
        ] {
            assert_eq!(tolerates(&toleration, &taint), want, "{toleration}");
        }
    }

    #[test]
    fn affinities() {
        let node = json!({ "metadata": { "name": "n1", "labels": { "os": "linux", "cores": "8" } } });
        let of =
            |key: &str, operator: &str, values: &[&str]| json!({ "key": key, "operator": operator, "values": values });
        for (terms, want) in [
            (json!([]), false),
            (json!([{}]), false),
            (json!([{ "matchExpressions": [of("os", "In", &["linux"])] }]), true),
            (json!([{ "matchExpressions": [of("os", "In", &["linux"]), of("gpu", "Exists", &[])] }]), false),
            (
                json!([{ "matchExpressions": [of("gpu", "Exists", &[])] }, { "matchExpressions": [of("os", "Exists", &[])] }]),
                true,
            ),
            (json!([{ "matchExpressions": [of("os", "NotIn", &["linux"])] }]), false),
            (json!([{ "matchExpressions": [of("gpu", "NotIn", &["yes"]), of("gpu", "DoesNotExist", &[])] }]), true),
            (json!([{ "matchExpressions": [of("cores", "Gt", &["4"]), of("cores", "Lt", &["16"])] }]), true),
            (json!([{ "matchExpressions": [of("cores", "Gt", &["8"])] }]), false),
            (json!([{ "matchFields": [of("metadata.name", "In", &["n1", "n2"])] }]), true),
            (json!([{ "matchFields": [of("metadata.name", "NotIn", &["n1"])] }]), false),
            (json!([{ "matchExpressions": [of("os", "Resembles", &["linux"])] }]), false),
        ] {
            let required = json!({ "nodeSelectorTerms": terms });
            let affinity = json!({ "nodeAffinity": { "requiredDuringSchedulingIgnoredDuringExecution": required } });
            assert_eq!(runs_on(&json!({ "affinity": affinity }), &node), want, "{terms}");
        }
    }
}
