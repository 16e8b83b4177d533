//! The lists of `maesh get` that the other views do not have, as the admin endpoint of a controller answers them: in parts, so
//! that a large cluster is not one answer.

use std::{collections::BTreeMap, sync::Arc};

use maesh_compiler::compile::{TableEntry, TablePort};
use maesh_config::{ServiceName, Zone};
use maesh_controller::serve::{Asker, ListPart, Selection, State};
use serde::{Deserialize, Serialize};
use serde_json::json;

use crate::{
    admin::{Parameters, Query},
    explain::views::{patiently, text, to_json},
};

/// Path of the list of Services, below `/api/`.
pub const SERVICES: &str = "get/services";
/// Path of the list of routes.
pub const ROUTES: &str = "get/routes";

/// A Service in the list.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ServiceRow {
    /// The Service, `namespace/name`.
    pub service: String,
    /// Its mesh name.
    pub name: String,
    /// The address of its name; `None` where that is the one of the caller's node, or there is none yet.
    pub address: Option<String>,
    /// Its meshed ports.
    pub ports: Vec<PortRow>,
    /// Its name answers the plain address on purpose.
    pub bypass: bool,
}

/// A port of a Service in the list.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct PortRow {
    /// Its name.
    pub name: Option<String>,
    /// Its number.
    pub port: u16,
    /// Where the address listens for it.
    pub listen: u16,
    /// `http`, `tcp` or `udp`.
    pub protocol: String,
    /// Endpoints that accept new work; `None` where nothing is known of them yet.
    pub ready_endpoints: Option<u32>,
    /// All endpoints.
    pub endpoints: Option<u32>,
}

/// Both lists.
pub fn all(state: Arc<State>, asker: Asker, zone: Zone) -> BTreeMap<&'static str, Query> {
    [(SERVICES, services(state, zone)), (ROUTES, routes(asker))].into()
}

/// `?namespace=NAMESPACE&name=NAME&after=NAMESPACE/SERVICE`
fn services(state: Arc<State>, zone: Zone) -> Query {
    Query::new(move |parameters, _| {
        let (state, zone) = (state.clone(), zone.clone());
        Box::pin(async move {
            let selection = selection(&parameters)?;
            let made = tokio::task::spawn_blocking(move || {
                let ListPart { items, next } = state.services(&selection);
                let rows: Vec<_> = items.iter().map(|entry| row(entry, &state, &zone)).collect();
                match next {
                    Some(next) => json!({ "services": rows, "next": next }),
                    None => json!({ "services": rows }),
                }
            });
            made.await.map_err(|error| error.to_string())
        })
    })
}

/// `?namespace=NAMESPACE&name=NAME&after=NAMESPACE/SERVICE`
fn routes(asker: Asker) -> Query {
    Query::new(move |parameters, by| {
        let asker = asker.clone();
        Box::pin(async move {
            let selection = selection(&parameters)?;
            to_json(&patiently(|| asker.routes(&selection, by)).await.map_err(|why| why.to_string())?)
        })
    })
}

fn selection(parameters: &Parameters) -> Result<Selection, String> {
    let parse = |text: String| text.parse().map_err(|_| format!("after is {text:?}, which is no NAMESPACE/SERVICE"));
    let after: Option<ServiceName> = text(parameters, "after").map(parse).transpose()?;
    Ok(Selection { namespace: text(parameters, "namespace"), name: text(parameters, "name"), after })
}

fn row(entry: &TableEntry, state: &State, zone: &Zone) -> ServiceRow {
    let port = |port: &TablePort| {
        let counts = state.endpoints(&entry.service, port.port, port.protocol);
        PortRow {
            name: port.name.as_deref().map(str::to_owned),
            port: port.port,
            listen: port.listen,
            protocol: port.protocol.to_string(),
            ready_endpoints: counts.map(|counts| counts.ready),
            endpoints: counts.map(|counts| counts.all),
        }
    };
    ServiceRow {
        service: entry.service.to_string(),
        name: entry.service.in_zone(zone),
        address: entry.address.map(|address| address.to_string()),
        ports: entry.ports.iter().map(port).collect(),
        bypass: entry.bypass,
    }
}
