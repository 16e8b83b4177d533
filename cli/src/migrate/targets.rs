//! What becomes of the objects of SMI that stay: the mesh reads them in every version, and reads some of them otherwise than
//! Traefik Mesh did.

use maesh_compiler::{
    diagnostic::ObjectRef,
    kinds::{HttpRouteGroup, Meta, RuleKind, TrafficTarget},
};

use super::outcome::{Finding, Verdict};

const READ: &str = "it is read in every version";

fn object(kind: &str, meta: &Meta) -> ObjectRef {
    ObjectRef::new(kind, &meta.namespace, &meta.name)
}

/// What becomes of a TCPRoute or UDPRoute.
pub fn of_route(kind: &str, meta: &Meta) -> Finding {
    Finding::new(object(kind, meta), "", Verdict::Kept, READ)
}

/// What becomes of an HTTPRouteGroup.
pub fn of_group(group: &HttpRouteGroup) -> Finding {
    let object = object("HTTPRouteGroup", &group.meta);
    match differs(group) {
        Some(why) => Finding::new(object, "", Verdict::NotKept, why).next(
            "correct the match if that is not meant; it has an effect where a TrafficSplit or TrafficTarget names it",
        ),
        None => Finding::new(object, "", Verdict::Kept, READ),
    }
}

/// In what a group is read otherwise.
pub fn differs(group: &HttpRouteGroup) -> Option<String> {
    use maesh_config::rule::Matcher;
    if group.matches.is_empty() {
        return Some(
            "Traefik Mesh took a group without matches for every request; here no request is one of it".to_owned(),
        );
    }
    group.matches.iter().find_map(|one| {
        let Some(rule) = &one.rule else {
            return (group.matches.len() > 1).then(|| {
                format!("match {} asks for nothing: Traefik Mesh ignored it, here every request is one of it", one.name)
            });
        };
        rule.conditions().into_iter().find_map(|condition| match condition {
            Matcher::PathRegexp(it) if it.as_str().starts_with("^(?:^") => Some(format!(
                "pathRegex of match {} begins with ^, with which Traefik Mesh never matched; here it matches",
                one.name
            )),
            Matcher::HostRegexp(_) => Some(format!(
                "match {} asks for the header host, which Traefik Mesh never found; here it is the host of the request",
                one.name
            )),
            _ => None,
        })
    })
}

/// What becomes of a TrafficTarget.
pub fn of_target(target: &TrafficTarget) -> Finding {
    let object = object("TrafficTarget", &target.meta);
    if target.rules.is_empty() && !target.admits_everything() {
        let why = "without rules Traefik Mesh admitted every request; in this version of the kind it admits none here";
        return Finding::new(object, "rules", Verdict::NotKept, why)
            .next("name an HTTPRouteGroup or TCPRoute in rules");
    }
    let is_tcp = target.rules.iter().any(|rule| rule.kind == RuleKind::Tcp);
    let why = match is_tcp {
        true => format!("{READ}. On TCP its sources count, which Traefik Mesh did not check"),
        false => READ.to_owned(),
    };
    Finding::new(object, "", Verdict::Kept, why).next("see who would be denied before it counts: acl.dryRun")
}
