//! Who may reach the endpoints of Services, and why.
//!
//! Worked out by the functions that compile, from what the compiler keeps. It changes nothing.

use std::collections::BTreeMap;

use maesh_config::{ServiceName, model::PortEndpoints};
use serde::{Deserialize, Serialize};

use super::Compiler;
use crate::{
    facts::View,
    plan::{access, endpoints},
};

/// What access control says of some Services.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct AccessMatrix {
    /// `off`, `dry-run` or `on`.
    pub access_control: String,
    /// For each port, the ServiceAccounts that its endpoints run as.
    pub rows: Vec<AccessRow>,
    /// The last Service that was looked at, where there are more.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub next: Option<String>,
}

/// Endpoints of one port that run as one ServiceAccount.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct AccessRow {
    /// The Service, `namespace/name`.
    pub service: String,
    /// Number of its port.
    pub port: u16,
    /// `http`, `tcp` or `udp`.
    pub protocol: String,
    /// The ServiceAccount, `namespace/name`; `None` for endpoints that belong to no pod of the Service's namespace. Nobody
    /// reaches these.
    pub account: Option<String>,
    /// How many endpoints they are, whether they are ready or not.
    pub endpoints: usize,
    /// Who is admitted. Empty for nobody.
    pub grants: Vec<GrantSeen>,
}

/// What one TrafficTarget admits.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct GrantSeen {
    /// The TrafficTarget, `namespace/name`.
    pub target: String,
    /// The callers' ServiceAccounts, `namespace/name`.
    pub sources: Vec<String>,
    /// What a request has to be: one of these. Empty for everything.
    pub rules: Vec<String>,
}

impl Compiler {
    /// Says who may reach the endpoints of these Services, whether access control is on or not.
    pub fn access(&self, services: &[ServiceName]) -> AccessMatrix {
        let rows = services.iter().flat_map(|name| self.access_of(name)).collect();
        AccessMatrix { access_control: self.config.access_control.to_string(), rows, next: None }
    }

    fn access_of(&self, name: &ServiceName) -> Vec<AccessRow> {
        let Some(plan) = self.plans.get(name) else { return Vec::new() };
        let view = View::new(&self.index);
        let mut endpoints = endpoints::of(plan, &self.plans.forbidden, &view);
        // What is wrong with it was said when it was compiled.
        let _ = access::apply(&mut endpoints, &view);
        endpoints.ports.iter().flat_map(|port| rows(name, port)).collect()
    }
}

/// The rows of one port.
fn rows(service: &ServiceName, port: &PortEndpoints) -> Vec<AccessRow> {
    let mut counts: BTreeMap<Option<u16>, usize> = BTreeMap::new();
    port.endpoints.iter().for_each(|endpoint| *counts.entry(endpoint.account).or_default() += 1);
    let row = |(place, endpoints): (Option<u16>, usize)| {
        let access = place.and_then(|place| port.access.get(usize::from(place)));
        let grants = access.into_iter().flat_map(|access| {
            access.grants.iter().map(|grant| GrantSeen {
                target: format!("{}/{}", access.account.namespace, grant.target),
                sources: grant.sources.iter().map(ToString::to_string).collect(),
                rules: grant.rules.iter().map(ToString::to_string).collect(),
            })
        });
        AccessRow {
            service: service.to_string(),
            port: port.number,
            protocol: port.protocol.to_string(),
            account: access.map(|access| access.account.to_string()),
            endpoints,
            grants: grants.collect(),
        }
    };
    counts.into_iter().map(row).collect()
}
