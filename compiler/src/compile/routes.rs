//! Where requests to Services go by what they are, as a list.
//!
//! Read from what the compiler keeps. It changes nothing.

use maesh_config::{
    ServiceName,
    model::{Backend, Route},
};
use serde::{Deserialize, Serialize};

use super::Compiler;
use crate::plan::service::{Port, RouteOrigin};

/// Size of one list, in bytes of its rules and so much for each backend, after which no further Service is added. The rules
/// of one Service can have a MiB.
const LARGEST: usize = 1 << 20;
const BACKEND_SIZE: usize = 64;

/// The routes of some Services.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct RouteList {
    /// In order of the Services and their ports, those of one port in order of precedence.
    pub routes: Vec<RouteSeen>,
    /// The last Service that was looked at, where there are more.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub next: Option<String>,
}

/// One route of one port.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct RouteSeen {
    /// The Service that is called, `namespace/name`.
    pub service: String,
    /// Number of its port.
    pub port: u16,
    /// `http`, `tcp` or `udp`.
    pub protocol: String,
    /// Where the route is written.
    pub origin: OriginSeen,
    /// What a request or connection has to be; `None` for any.
    pub rule: Option<String>,
    /// Where it sends to.
    pub backends: Vec<RouteBackend>,
}

/// Where a route is written.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct OriginSeen {
    /// `annotation`, or the kind of an object such as `TrafficSplit`.
    pub kind: String,
    /// The annotation's key, or the object as `namespace/name`.
    pub name: String,
}

/// A port of a Service that a route sends to.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct RouteBackend {
    /// The Service, `namespace/name`.
    pub service: String,
    /// Number of its port.
    pub port: u16,
    /// Its share, relative to its siblings; 0 is never chosen.
    pub weight: u32,
}

impl Compiler {
    /// The routes of these Services, up to a size: `next` is then the last one whose routes are in the list.
    pub fn routes(&self, services: &[ServiceName]) -> RouteList {
        let mut list = RouteList { routes: Vec::new(), next: None };
        let mut size = 0;
        for (name, left) in services.iter().zip((0..services.len()).rev()) {
            let of_service = self.routes_of(name);
            size += of_service.iter().map(size_of).sum::<usize>();
            list.routes.extend(of_service);
            if size >= LARGEST && left > 0 {
                list.next = Some(name.to_string());
                break;
            }
        }
        list
    }

    fn routes_of(&self, name: &ServiceName) -> Vec<RouteSeen> {
        let ports = self.plans.get(name).into_iter().flat_map(|plan| &plan.ports);
        ports.flat_map(|port| port.routes.iter().zip(&port.origins).map(|it| seen(name, port, it))).collect()
    }
}

fn seen(name: &ServiceName, port: &Port, (route, origin): (&Route, &RouteOrigin)) -> RouteSeen {
    let backend = |backend: &Backend| RouteBackend {
        service: backend.service.to_string(),
        port: backend.port,
        weight: backend.weight,
    };
    RouteSeen {
        service: name.to_string(),
        port: port.number,
        protocol: port.protocol.to_string(),
        origin: match origin {
            RouteOrigin::Annotation(key) => OriginSeen { kind: "annotation".to_owned(), name: key.to_string() },
            RouteOrigin::TrafficSplit(split) => {
                OriginSeen { kind: "TrafficSplit".to_owned(), name: format!("{}/{split}", name.namespace) }
            }
        },
        rule: route.rule.as_ref().map(ToString::to_string),
        backends: route.backends.iter().map(backend).collect(),
    }
}

fn size_of(route: &RouteSeen) -> usize {
    route.rule.as_ref().map_or(0, String::len) + BACKEND_SIZE * route.backends.len().max(1)
}
