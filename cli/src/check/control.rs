//! The controllers: that one leads, that they see the cluster, and that they may do what they have to.

use jiff::{SignedDuration, Timestamp};
use serde_json::{Value, json};

use super::{
    context::{Context, is_alive, items, role, some_of, text},
    outcome::Outcome,
};

/// A watch that works is heard at least this often: the API server ends each within a minute.
const SILENCE: SignedDuration = SignedDuration::from_secs(150);
/// Kinds without which nothing new takes effect.
const REQUIRED: [&str; 3] = ["Namespace", "Service", "EndpointSlice"];

/// One controller leads, and no more.
pub async fn leader(context: &Context) -> Outcome {
    match context.answers_of("controller", "/api/leader").await {
        Ok(told) => judge_leader(&told, context.namespace()),
        Err(unread) => unread,
    }
}

fn judge_leader(told: &[(String, Value)], namespace: &str) -> Outcome {
    let leading: Vec<_> = told.iter().filter(|(_, said)| said["leads"] == true).map(|(pod, _)| pod.as_str()).collect();
    let fix = format!(
        "see kubectl -n {namespace} get leases, and the controllers' logs: kubectl -n {namespace} logs -l app.kubernetes.io/component=controller"
    );
    match (told.len(), leading.as_slice()) {
        (0, _) => Outcome::skip("no controller says whether it leads; one with --read-only does not"),
        (_, [one]) => Outcome::pass(format!("{one} leads, and writes to the cluster")),
        (_, []) => Outcome::fail("no controller leads, so nobody writes own addresses, the stanza and Events", fix),
        (_, several) => Outcome::fail(format!("several controllers lead: {}", some_of(several.iter().copied())), fix),
    }
}

/// The controllers see every kind of object, and the newest of them.
pub async fn watches(context: &Context) -> Outcome {
    match context.answers_of("controller", "/api/watches").await {
        Ok(told) => judge_watches(&told, Timestamp::now(), context.namespace()),
        Err(unread) => unread,
    }
}

fn judge_watches(told: &[(String, Value)], now: Timestamp, namespace: &str) -> Outcome {
    let (mut needed, mut others, mut count) = (Vec::new(), Vec::new(), 0);
    for (pod, said) in told {
        for watch in said["watches"].as_array().into_iter().flatten() {
            count += 1;
            let kind = text(watch, "/kind");
            let Some(why) = wrong(watch, now) else { continue };
            let wrong = format!("{pod} does not see {kind} ({why})");
            if REQUIRED.contains(&kind) { needed.push(wrong) } else { others.push(wrong) }
        }
    }
    let fix = format!(
        "see why: kubectl -n {namespace} logs -l app.kubernetes.io/component=controller; the check `permissions` names rights that \
         are missing"
    );
    let some = |wrong: &[String]| some_of(wrong.iter().map(String::as_str));
    match (needed.as_slice(), others.as_slice(), count) {
        ([], [], 0) => Outcome::skip("no controller says how its watches are"),
        ([], [], _) => Outcome::pass(match told.len() {
            1 => "1 controller sees every kind of object".to_owned(),
            count => format!("{count} controllers see every kind of object"),
        }),
        ([], others, _) => Outcome::warn(some(others), fix),
        (needed, ..) => Outcome::fail(some(needed), fix),
    }
}

/// What is wrong with a watch.
fn wrong(watch: &Value, now: Timestamp) -> Option<String> {
    if let Some(error) = watch["error"].as_str() {
        return Some(error.to_owned());
    }
    if watch["synced"] != true {
        return Some("not everything was read once".to_owned());
    }
    let heard: Option<Timestamp> = text(watch, "/lastSuccess").parse().ok();
    let silent = now.duration_since(heard?);
    (silent > SILENCE).then(|| format!("nothing was heard for {} s", silent.as_secs()))
}

/// Rights of the controllers' ServiceAccount: group, resource, verbs, and whether only in the mesh's namespace.
const NEEDED: [(&str, &str, &[&str], bool); 8] = [
    ("", "namespaces", &["list", "watch"], false),
    ("", "nodes", &["list", "watch"], false),
    ("", "pods", &["list", "watch"], false),
    ("", "services", &["list", "watch"], false),
    ("discovery.k8s.io", "endpointslices", &["list", "watch"], false),
    ("events.k8s.io", "events", &["create", "patch"], false),
    ("coordination.k8s.io", "leases", &["create"], true),
    ("", "services", &["create", "patch", "delete"], true),
];

/// The controllers have the rights that they need.
pub async fn permissions(context: &Context) -> Outcome {
    let pods = context.mesh_pods().await;
    let pods = match &*pods {
        Ok(pods) => items(pods),
        Err(error) => return Outcome::unread(error),
    };
    let Some(pod) = pods.iter().find(|pod| role(pod) == "controller" && is_alive(pod)) else {
        return Outcome::skip("no controller runs, so nobody needs rights");
    };
    let account = match text(pod, "/spec/serviceAccountName") {
        "" => "default",
        name => name,
    };
    let mut missing = Vec::new();
    for (group, resource, verbs, own) in NEEDED {
        for verb in verbs {
            match may(context, account, (group, resource, verb), own).await {
                Ok(true) => {}
                Ok(false) if group.is_empty() => missing.push(format!("{verb} {resource}")),
                Ok(false) => missing.push(format!("{verb} {resource}.{group}")),
                Err(unread) => return unread,
            }
        }
    }
    judge_permissions(&missing, context.namespace(), account)
}

/// Asks the API server whether the ServiceAccount may do it.
async fn may(
    context: &Context,
    account: &str,
    (group, resource, verb): (&str, &str, &str),
    own: bool,
) -> Result<bool, Outcome> {
    let namespace = context.namespace();
    let mut attributes = json!({ "group": group, "resource": resource, "verb": verb });
    if own {
        attributes["namespace"] = namespace.into();
    }
    let review = json!({
        "apiVersion": "authorization.k8s.io/v1",
        "kind": "SubjectAccessReview",
        "spec": {
            "user": format!("system:serviceaccount:{namespace}:{account}"),
            "groups": ["system:serviceaccounts", format!("system:serviceaccounts:{namespace}"), "system:authenticated"],
            "resourceAttributes": attributes,
        },
    });
    let url = "/apis/authorization.k8s.io/v1/subjectaccessreviews";
    let answer = context.cluster.try_out(url, &review, "create subjectaccessreviews").await;
    answer.map(|answer| answer["status"]["allowed"] == true).map_err(|error| Outcome::unread(&error))
}

fn judge_permissions(missing: &[String], namespace: &str, account: &str) -> Outcome {
    match missing {
        [] => Outcome::pass(format!("ServiceAccount {namespace}/{account} has the rights that controllers need")),
        missing => Outcome::fail(
            format!("ServiceAccount {namespace}/{account} may not {}", some_of(missing.iter().map(String::as_str))),
            "install the chart again (helm upgrade), which has the ClusterRole and the Role; see what took them away",
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::{super::outcome::Verdict, *};

    #[test]
    fn who_leads() {
        let said = |leads: &[bool]| -> Vec<(String, Value)> {
            leads.iter().enumerate().map(|(n, leads)| (format!("controller-{n}"), json!({ "leads": leads }))).collect()
        };
        for (leads, want, says) in [
            (&[true, false][..], Verdict::Pass, "controller-0 leads"),
            (&[false, false], Verdict::Fail, "no controller leads"),
            (&[true, true], Verdict::Fail, "controller-0, controller-1"),
            (&[], Verdict::Skip, "--read-only"),
        ] {
            let outcome = judge_leader(&said(leads), "maesh");
            assert_eq!(outcome.verdict, want, "{leads:?}");
            assert!(outcome.message.contains(says), "{leads:?}: {outcome:?}");
        }
    }

    #[test]
    fn watches_that_work() {
        let now: Timestamp = "2030-01-01T00:10:00Z".parse().unwrap();
        let watch = |kind: &str, synced: bool, heard: &str, error: Value| json!({ "kind": kind, "synced": synced, "lastSuccess": heard, "error": error });
        let fresh = "2030-01-01T00:09:30Z";
        let none = || json!(null);
        for (case, watches, want, says) in [
            ("all", vec![watch("Service", true, fresh, none())], Verdict::Pass, "1 controller sees every kind"),
            (
                "never synced",
                vec![watch("Service", false, fresh, none())],
                Verdict::Fail,
                "c does not see Service (not",
            ),
            ("stale", vec![watch("Pod", true, "2030-01-01T00:00:00Z", none())], Verdict::Warn, "for 600 s"),
            ("refused", vec![watch("TrafficSplit", true, fresh, json!("forbidden"))], Verdict::Warn, "(forbidden)"),
            (
                "refused, and needed",
                vec![watch("Namespace", true, fresh, json!("forbidden"))],
                Verdict::Fail,
                "Namespace",
            ),
            (
                "not served",
                vec![json!({ "kind": "TrafficSplit", "synced": true, "error": null })],
                Verdict::Pass,
                "see",
            ),
            ("nobody to ask", vec![], Verdict::Skip, "no controller"),
        ] {
            let outcome = judge_watches(&[("c".to_owned(), json!({ "watches": watches }))], now, "maesh");
            assert_eq!(outcome.verdict, want, "{case}: {outcome:?}");
            assert!(outcome.message.contains(says), "{case}: {outcome:?}");
        }
    }

    #[test]
    fn rights_that_are_missing() {
        assert_eq!(judge_permissions(&[], "maesh", "c").verdict, Verdict::Pass);
        let outcome = judge_permissions(&["list nodes".into()], "maesh", "c");
        assert_eq!((outcome.verdict, &*outcome.message), (Verdict::Fail, "ServiceAccount maesh/c may not list nodes"));
    }
}
