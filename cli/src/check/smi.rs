//! The kinds of the Service Mesh Interface: which of them the cluster has, and which the mesh needs.

use maesh_compiler::kinds::ObjectKind;
use maesh_config::model::AccessControl;
use serde_json::Value;

use super::{
    context::{Context, some_of, text},
    outcome::Outcome,
};

/// Kinds of SMI that are served, and what becomes of them.
pub async fn smi(context: &Context) -> Outcome {
    match &*context.get("/apis", "get /apis").await {
        Ok(groups) => {
            let control = match (context.has_flag("--acl").await, context.has_flag("--acl-dry-run").await) {
                (_, true) => AccessControl::DryRun,
                (true, false) => AccessControl::On,
                (false, false) => AccessControl::Off,
            };
            judge_smi(groups, control)
        }
        Err(error) => Outcome::unread(error),
    }
}

/// What access control cannot do without.
const GROUPS_OF_ACCESS: [&str; 2] = ["access.smi-spec.io", "specs.smi-spec.io"];

/// Kinds of SMI that are read.
const READ_OF_SMI: [ObjectKind; 5] = [
    ObjectKind::TrafficSplit,
    ObjectKind::TrafficTarget,
    ObjectKind::HttpRouteGroup,
    ObjectKind::TcpRoute,
    ObjectKind::UdpRoute,
];

fn judge_smi(groups: &Value, control: AccessControl) -> Outcome {
    let all = groups["groups"].as_array().map(Vec::as_slice).unwrap_or_default();
    let is_absent = |group: &&str| all.iter().all(|served| text(served, "/name") != *group);
    let absent: Vec<_> = GROUPS_OF_ACCESS.into_iter().filter(is_absent).collect();
    let install = "install the kinds of SMI (docs/tasks/access-control.md)";
    match control {
        AccessControl::On if !absent.is_empty() => {
            let lacks = format!("access control is on, and the cluster does not serve {}", some_of(absent));
            return Outcome::fail(
                format!("{lacks}, so callers are denied that TrafficTargets should admit"),
                format!("{install}, or stop denying (acl.dryRun in the chart)"),
            );
        }
        AccessControl::DryRun if !absent.is_empty() => {
            let lacks =
                format!("a dry run of access control is on, and the cluster does not serve {}", some_of(absent));
            return Outcome::warn(lacks, format!("{install} before you turn access control on"));
        }
        _ => {}
    }
    let smi: Vec<_> = all.iter().filter(|group| text(group, "/name").ends_with(".smi-spec.io")).collect();
    if smi.is_empty() {
        return Outcome::pass("the cluster has no kinds of SMI");
    }
    let unread: Vec<_> = smi.iter().flat_map(|group| unread_versions(group)).collect();
    if unread.is_empty() {
        return Outcome::pass("the cluster has kinds of SMI, and the mesh reads them");
    }
    Outcome::warn(
        format!("{} are served, and this version of the mesh does not read them", some_of(unread)),
        "expect their objects to have no effect",
    )
}

/// What a group serves, if the mesh reads none of it.
fn unread_versions(group: &Value) -> Vec<&str> {
    let of_group = |kind: &ObjectKind| kind.group() == text(group, "/name");
    let known: Vec<&str> = READ_OF_SMI
        .iter()
        .filter(|kind| of_group(kind))
        .flat_map(|kind| kind.registration().versions.iter().copied())
        .collect();
    let served = group["versions"].as_array().into_iter().flatten();
    if served.clone().any(|version| known.contains(&text(version, "/version"))) {
        return Vec::new();
    }
    served.map(|version| text(version, "/groupVersion")).collect()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::{super::outcome::Verdict, *};

    #[test]
    fn kinds_of_smi() {
        let groups = |names: &[&str]| {
            let group = |name: &&str| {
                let (name, version) = name.split_once('/').unwrap_or((name, "v1alpha4"));
                json!({ "name": name, "versions": [{ "version": version, "groupVersion": format!("{name}/{version}") }] })
            };
            json!({ "groups": names.iter().map(group).collect::<Vec<_>>() })
        };
        let access = |names: &[&str], control| judge_smi(&groups(names), control);
        let (one, both) = (&["access.smi-spec.io"][..], &["access.smi-spec.io", "specs.smi-spec.io"][..]);
        for (case, names, control, verdict, says) in [
            ("on, and none", &["apps"][..], AccessControl::On, Verdict::Fail, "access.smi-spec.io, specs.smi-spec.io"),
            ("on, and one", one, AccessControl::On, Verdict::Fail, "does not serve specs.smi-spec.io,"),
            ("on, and all", both, AccessControl::On, Verdict::Pass, "the mesh reads them"),
            ("a dry run", &["apps"], AccessControl::DryRun, Verdict::Warn, "a dry run"),
        ] {
            let outcome = access(names, control);
            assert_eq!(outcome.verdict, verdict, "{case}: {outcome:?}");
            assert!(outcome.message.contains(says), "{case}: {outcome:?}");
        }
        let off = |names: &[&str]| access(names, AccessControl::Off);
        assert_eq!(off(&["apps"]).verdict, Verdict::Pass);
        assert_eq!(off(&["apps", "specs.smi-spec.io", "split.smi-spec.io"]).verdict, Verdict::Pass);
        let served = off(&["split.smi-spec.io", "metrics.smi-spec.io"]);
        assert_eq!(served.verdict, Verdict::Warn);
        assert!(served.message.starts_with("metrics.smi-spec.io/v1alpha4 "), "{served:?}");
        let newer = off(&["split.smi-spec.io/v9"]);
        assert!(newer.message.starts_with("split.smi-spec.io/v9 are served"), "{newer:?}");
    }
}
