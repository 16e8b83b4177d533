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

/// The fields under `spec`, or, where there is none, beside it, as the oldest versions have them.
fn spec(value: &Value) -> Result<Fields<'_>, BadField> {
    match value.get("spec") {
        Some(Value::Null) | None => Fields::of(value, &""),
        Some(_) => read::part(value, &"spec"),
    }
}
