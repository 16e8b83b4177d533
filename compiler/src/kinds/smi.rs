//! The objects of the Service Mesh Interface (SMI) that say where traffic goes, and whose.
//!
//! Clusters have them from several makers, in versions that differ in where a field stands and not in what it means. So
//! fields are read by shape, whatever the version says: those under `spec` and those beside it, headers as a map and as a
//! list of maps, weights as numbers and as quantities.

mod http_route_group;
mod port_route;
mod traffic_split;
mod traffic_target;

use serde_json::Value;

pub(super) use self::port_route::{TCP_ROUTE, UDP_ROUTE};
pub use self::{
    http_route_group::{HttpRouteGroup, HttpRouteMatch},
    port_route::PortRoute,
    traffic_split::{SplitBackend, TrafficSplit},
    traffic_target::{RuleKind, TargetRule, TrafficTarget},
};
use super::{
    BadField,
    read::{self, Fields},
};

/// Fields that some object of SMI has. Under `metadata` or `status` they are out of place.
const FIELDS: [&str; 12] = [
    "spec",
    "destination",
    "sources",
    "rules",
    "specs",
    "matches",
    "pathRegex",
    "methods",
    "headers",
    "ports",
    "service",
    "backends",
];

/// There are no fields but these where an object has its own: under `spec`, or beside those that every object has. One that is not
/// known may be a restriction with a misspelt name, or in the wrong place.
fn only(value: &Value, fields: &Fields<'_>, known: &[&str]) -> Result<(), BadField> {
    for part in ["metadata", "status"] {
        let Some(odd) = FIELDS.iter().find(|field| value[part].get(**field).is_some()) else { continue };
        let bad = BadField::new(format!("{part}.{odd}"), format!("stands under {part}, where it has no effect"));
        return Err(BadField { fix: "Move it to where it belongs.".into(), ..bad });
    }
    match value.get("spec") {
        Some(Value::Null) | None => fields.only_with(known, &["spec", "apiVersion", "kind", "metadata", "status"]),
        Some(_) => {
            beside_spec(value, known)?;
            fields.only(known)
        }
    }
}

/// Beside `spec` there is nothing but what every object has: a field that is indented too little ends up there.
fn beside_spec(value: &Value, known: &[&str]) -> Result<(), BadField> {
    let object = ["apiVersion", "kind", "metadata", "spec", "status"];
    let Err(mut bad) = Fields::of(value, &"")?.only(&object) else { return Ok(()) };
    if known.contains(&&*bad.path) {
        bad.problem = "stands beside spec, not in it".into();
        bad.fix = format!("Indent it, so that it is spec.{}.", bad.path).into();
    }
    Err(bad)
}

/// The fields under `spec`, or, where there is none, beside it, as the oldest versions have them.
fn spec(value: &Value) -> Result<Fields<'_>, BadField> {
    match value.get("spec") {
        Some(Value::Null) | None => Fields::of(value, &""),
        Some(_) => read::part(value, &"spec"),
    }
}
