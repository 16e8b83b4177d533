//! What the commands print: for people, or one line of JSON.

use std::{
    collections::BTreeMap,
    net::{IpAddr, SocketAddr},
};

use maesh_config::Zone;
use maesh_controller::duties::stanza::{Answered, Change, FileState, Look, Report, Stanza, StanzaState, There};
use serde::Serialize;

use crate::args::Output;
use crate::terminal;

/// Where a change was made.
pub fn file(change: &Change) -> String {
    format!("{}, key {}", change.file.map, change.file.key)
}

fn print(value: &impl Serialize, text: &str, output: Output) {
    match output {
        Output::Text => terminal::out(format_args!("{text}")),
        Output::Json => terminal::note(terminal::json(value).map_err(Into::into)),
    }
}

/// How a command ended.
#[derive(Debug, Serialize)]
pub struct Printed {
    state: &'static str,
    message: String,
    changed: Vec<String>,
}

impl Printed {
    pub fn new(state: &'static str, message: &str, changed: Vec<String>) -> Self {
        Self { state, message: message.to_owned(), changed }
    }

    pub fn print(&self, output: Output) {
        print(self, &format!("{}\n", self.message), output);
    }
}

/// One file of the cluster's DNS.
#[derive(Debug, Serialize)]
pub struct Seen {
    configmap: String,
    key: String,
    state: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    problem: Option<String>,
}

impl Seen {
    pub fn of(standing: &FileState) -> Self {
        let map = &standing.file.map;
        let (state, problem) = match &standing.state {
            Ok(StanzaState::Absent) => ("absent", None),
            Ok(StanzaState::Present) => ("present", None),
            Ok(StanzaState::Outdated) => ("outdated", None),
            Ok(StanzaState::Broken) => ("broken", None),
            Err(refusal) => ("not-understood", Some(refusal.to_string())),
        };
        Self { configmap: format!("{}/{}", map.namespace, map.name), key: standing.file.key.clone(), state, problem }
    }
}

/// One server of the cluster's DNS.
#[derive(Debug, Serialize)]
struct Server {
    name: String,
    address: SocketAddr,
    answers: bool,
    mesh: &'static str,
}

/// `maesh dns status`.
#[derive(Debug, Serialize)]
pub struct Status {
    pub good: bool,
    forward: IpAddr,
    dns_ready: bool,
    reloads: bool,
    files: Vec<Seen>,
    servers: Vec<Server>,
    next: String,
}

impl Status {
    pub fn of(there: &There, report: &Report, forward: IpAddr, ready: bool, seen: &BTreeMap<SocketAddr, Look>) -> Self {
        let files: Vec<Seen> = report.standings.iter().map(Seen::of).collect();
        let name = |address: &SocketAddr| {
            let pod = there.place.servers.iter().find(|(_, server)| server == address);
            pod.map_or_else(|| "Service".to_owned(), |(pod, _)| format!("Pod {pod}"))
        };
        let servers: Vec<Server> = seen
            .iter()
            .map(|(address, look)| Server {
                name: name(address),
                address: *address,
                answers: look.plain,
                mesh: match look.mesh {
                    Answered::ByMesh => "leads to the mesh",
                    Answered::ByOthers => "does not lead to the mesh",
                    Answered::Nobody => "no answer",
                },
            })
            .collect();
        let reachable = servers.iter().any(|server| server.answers);
        let leads = seen.values().all(|look| look.mesh == Answered::ByMesh);
        let present = files.iter().all(|file| file.state == "present");
        let problem = files.iter().find_map(|file| file.problem.clone());
        let next = match (ready, present, reachable) {
            (false, _, _) => "No pod of the mesh's dns is ready: look at it first.".to_owned(),
            (_, false, _) => problem.unwrap_or_else(|| {
                "Put it there: maesh dns install. With coredns.mode auto a controller does; what keeps it from that is an \
                 Event, and in maesh check."
                    .to_owned()
            }),
            (_, _, false) => "The cluster's DNS does not answer from here; run this in a pod to see more.".to_owned(),
            _ if leads => "Every server of the cluster's DNS leads to the mesh.".to_owned(),
            _ if report.reloads => {
                "Not every server leads to the mesh: CoreDNS may take two minutes to read it.".to_owned()
            }
            _ => "The Corefile has no `reload`: CoreDNS reads the stanza when it is restarted.".to_owned(),
        };
        let good = ready && present && (leads || !reachable);
        Self { good, forward, dns_ready: ready, reloads: report.reloads, files, servers, next }
    }

    pub fn print(&self, output: Output) {
        let mut text = String::new();
        for Seen { configmap, key, state, .. } in &self.files {
            text += &format!("ConfigMap {configmap}, key {key}: {state} (to {})\n", self.forward);
        }
        for Server { name, address, answers, mesh } in &self.servers {
            let plain = if *answers { "answers" } else { "does not answer from here" };
            text += &format!("{name} {address}: {plain}, {mesh}\n");
        }
        print(self, &(text + &self.next + "\n"), output);
    }
}

/// `maesh dns print`.
#[derive(Debug, Serialize)]
pub struct Stanzas<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    corefile: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    stub_domains: Option<String>,
    files: &'a [Seen],
}

impl<'a> Stanzas<'a> {
    pub fn new(stanza: Option<&Stanza>, files: &'a [Seen], zones: &[Zone], forward: IpAddr) -> Self {
        let stubs = files.iter().any(|file| file.key == "stubDomains");
        let list = [forward.to_string()];
        let stubs = stubs.then(|| {
            let zones: BTreeMap<_, _> = zones.iter().map(|zone| (zone.as_str(), &list)).collect();
            serde_json::json!(zones).to_string()
        });
        Self { corefile: stanza.map(Stanza::block), stub_domains: stubs, files }
    }

    pub fn print(&self, output: Output) {
        if output == Output::Text {
            for file in self.files {
                terminal::err(format_args!("# for ConfigMap {}, key {}\n", file.configmap, file.key));
            }
        }
        let stubs = self.stub_domains.iter().map(|text| format!("{text}\n"));
        let text: String = self.corefile.iter().cloned().chain(stubs).collect();
        print(self, &text, output);
    }
}
