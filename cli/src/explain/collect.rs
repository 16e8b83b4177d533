//! Asks each role, in the order in which a request meets them.

use std::net::IpAddr;

use futures_util::future::join_all;
use maesh_compiler::compile::explain as controller;
use maesh_dns::{Explanation as DnsExplanation, Rule};
use maesh_proxy::explain as proxy;
use serde::de::DeserializeOwned;

use super::{failures::Failures, sent, views};
use crate::{
    args::ExplainArgs,
    inspect::{Member, Mesh, Pod, Role},
};

/// Replicas of dns that are asked at most.
const MOST_DNS: usize = 4;
/// Zone of names that say none, where no controller can be asked.
const ZONE: &str = "maesh";

/// What one of a role said, or why it did not.
#[derive(Clone, Debug)]
pub struct Part<T> {
    /// Who was asked.
    pub by: String,
    /// What came back.
    pub said: Result<T, String>,
}

impl<T> Part<T> {
    /// What was said, if anything.
    pub fn get(&self) -> Option<&T> {
        self.said.as_ref().ok()
    }
}

/// Everything that was said.
#[derive(Clone, Debug)]
pub struct Collected {
    /// Who was asked, for people.
    pub asked: String,
    /// It is a `maesh dev`.
    pub dev: bool,
    /// The name that was looked up.
    pub name: String,
    /// Only this port.
    pub port: Option<u16>,
    /// What is sent there, if that was asked.
    pub sent: Option<proxy::Sent>,
    /// The caller's address, where it is known.
    pub caller: Option<IpAddr>,
    /// What the controller knows.
    pub controller: Part<controller::Explanation>,
    /// The same of another Service, where that gets the request: by its `Host`, or a route that claims it.
    pub reached: Option<controller::Explanation>,
    /// What each dns answers.
    pub dns: Vec<Part<DnsExplanation>>,
    /// What the proxy on the way would do; `None` where there is none on the way.
    pub proxy: Option<Part<proxy::Explanation>>,
    /// What that proxy counted of requests to the Service.
    pub failures: Option<Failures>,
}

impl Collected {
    /// What the controller knows of the Service that gets the request.
    pub fn serving(&self) -> Option<&controller::Explanation> {
        self.reached.as_ref().or_else(|| self.controller.get())
    }
}

/// Asks everybody on the way.
pub async fn collect(mesh: &Mesh, args: &ExplainArgs, sent: Option<proxy::Sent>) -> Collected {
    let dev = matches!(mesh, Mesh::Dev(_));
    let from = args.from.as_deref().or_else(|| dev.then_some("127.0.0.1"));
    let mut query = vec![("name", args.name.name.as_str())];
    query.extend(from.map(|from| ("from", from)));
    let controller: Part<controller::Explanation> = ask_any(mesh, Role::Controller, views::CONTROLLER, &query).await;

    let known = controller.get();
    let name = known.and_then(|known| known.name.clone()).unwrap_or_else(|| with_zone(&args.name.name));
    let caller = known.and_then(|known| Some(known.caller.as_ref()?.address));
    let caller = caller.or_else(|| from?.parse().ok());
    let text = caller.map(|caller| caller.to_string());
    let mut query = vec![("name", name.as_str())];
    query.extend(text.as_deref().map(|from| ("from", from)));
    let dns = ask_all(mesh, Role::Dns, views::DNS, &query).await;

    let said = dns.iter().find_map(Part::get);
    let node = known.and_then(|known| known.caller.as_ref()?.node.clone());
    let proxy = match said.map(|said| way(said, node.as_deref())) {
        Some(Way::Around) => None,
        Some(Way::Through(wish)) => Some(wish),
        None => Some(Wish { node, ..Wish::default() }),
    };
    let asked_port = args.port.or(args.name.port);
    let port = asked_port.map(|port| port.to_string());
    query.extend(port.as_deref().map(|port| ("port", port)));
    let written: Vec<_> = sent.iter().flat_map(sent::write).collect();
    query.extend(written.iter().map(|(name, value)| (*name, value.as_str())));
    let mut failures = None;
    let proxy = match proxy {
        Some(wish) => {
            let member = wish.choose(mesh);
            let said = ask_one(mesh, Role::Proxy, member.clone(), views::PROXY, &query).await;
            failures = counted(mesh, member, said.get(), asked_port).await;
            Some(said)
        }
        None => None,
    };
    let reached = reached(mesh, known, proxy.as_ref().and_then(Part::get), text.as_deref()).await;
    Collected {
        asked: mesh.describe(),
        dev,
        name,
        port: asked_port,
        sent,
        caller,
        controller,
        reached,
        dns,
        proxy,
        failures,
    }
}

/// Where a caller goes with its answer.
enum Way {
    /// To the plain address, or nowhere.
    Around,
    /// To a proxy.
    Through(Wish),
}

/// Which proxy is meant.
#[derive(Default)]
struct Wish {
    id: Option<String>,
    address: Option<IpAddr>,
    node: Option<String>,
}

fn way(said: &DnsExplanation, node: Option<&str>) -> Way {
    match said.rule {
        None | Some(Rule::Plain | Rule::FailToPlain | Rule::Withheld) => Way::Around,
        Some(Rule::Fixed) => Way::Through(Wish { node: node.map(str::to_owned), ..Wish::default() }),
        Some(Rule::Local | Rule::Spread | Rule::LastKnown) => {
            let address = said.addresses.first().copied();
            let is_it = |proxy: &&maesh_dns::ProxySeen| address.is_some_and(|it| proxy.addresses.contains(&it));
            let id = said.proxies.iter().find(is_it).map(|proxy| proxy.id.clone());
            Way::Through(Wish { id, address, node: node.map(str::to_owned) })
        }
    }
}

impl Wish {
    /// The proxy that comes nearest to it.
    fn choose(&self, mesh: &Mesh) -> Option<Member> {
        let members = mesh.members(Role::Proxy);
        let address = self.address.map(|address| address.to_string());
        let pod = |fits: &dyn Fn(&Pod) -> bool| {
            members.iter().find(|member| matches!(member, Member::Pod(pod) if fits(pod))).cloned()
        };
        pod(&|pod| Some(&pod.name) == self.id.as_ref())
            .or_else(|| pod(&|pod| address.as_ref().is_some_and(|address| pod.addresses.contains(address))))
            .or_else(|| pod(&|pod| pod.ready && self.node.is_some() && pod.node == self.node))
            .or_else(|| members.first().cloned())
    }
}

/// What the controller knows of the Service that the proxy found, where it is another than the one of the name.
async fn reached(
    mesh: &Mesh,
    known: Option<&controller::Explanation>,
    said: Option<&proxy::Explanation>,
    from: Option<&str>,
) -> Option<controller::Explanation> {
    let (named, found) = (known?.service.as_deref()?, said?.service.as_deref()?);
    if named == found {
        return None;
    }
    let mut query = vec![("name", found)];
    query.extend(from.map(|from| ("from", from)));
    ask_any(mesh, Role::Controller, views::CONTROLLER, &query).await.said.ok()
}

/// What the proxy counted of requests to the Service that it found.
async fn counted(
    mesh: &Mesh,
    member: Option<Member>,
    said: Option<&proxy::Explanation>,
    port: Option<u16>,
) -> Option<Failures> {
    let service = said?.service.as_deref()?;
    // Without them the rest of the explanation stands.
    let metrics = mesh.metrics(Role::Proxy, &member?).await.ok()?;
    Failures::read(&metrics, service, port)
}

/// Asks the first of a role that answers.
async fn ask_any<T: DeserializeOwned>(mesh: &Mesh, role: Role, path: &str, query: &[(&str, &str)]) -> Part<T> {
    let mut first = None;
    for member in mesh.members(role) {
        let part = ask_one(mesh, role, Some(member), path, query).await;
        if part.said.is_ok() {
            return part;
        }
        first.get_or_insert(part);
    }
    match first {
        Some(part) => part,
        None => ask_one(mesh, role, None, path, query).await,
    }
}

async fn ask_all<T: DeserializeOwned>(mesh: &Mesh, role: Role, path: &str, query: &[(&str, &str)]) -> Vec<Part<T>> {
    let members = mesh.members(role);
    if members.is_empty() {
        return vec![ask_one(mesh, role, None, path, query).await];
    }
    let asked = members.into_iter().take(MOST_DNS).map(|member| ask_one(mesh, role, Some(member), path, query));
    join_all(asked).await
}

async fn ask_one<T: DeserializeOwned>(
    mesh: &Mesh,
    role: Role,
    member: Option<Member>,
    path: &str,
    query: &[(&str, &str)],
) -> Part<T> {
    let Some(member) = member else {
        let role = role.as_str();
        let said = Err(format!(
            "no {role} runs in {}; see kubectl get pods -A \
             -l app.kubernetes.io/name=maesh,app.kubernetes.io/component={role}",
            mesh.describe()
        ));
        return Part { by: role.to_owned(), said };
    };
    let said = mesh.ask(role, &member, path, query).await.map_err(|error| format!("{error:#}"));
    Part { by: member.name().to_owned(), said }
}

/// A name as it is asked for, where nobody says which zones there are.
fn with_zone(name: &str) -> String {
    let name = match name.split_once('/') {
        Some((namespace, service)) => format!("{service}.{namespace}"),
        None => name.trim_end_matches('.').to_owned(),
    };
    if name.bytes().filter(|byte| *byte == b'.').count() == 1 { format!("{name}.{ZONE}") } else { name }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_without_a_controller() {
        for (name, want) in [
            ("web.shop.maesh", "web.shop.maesh"),
            ("web.shop.maesh.", "web.shop.maesh"),
            ("web.shop", "web.shop.maesh"),
            ("shop/web", "web.shop.maesh"),
            ("web", "web"),
            ("10.96.0.1", "10.96.0.1"),
        ] {
            assert_eq!(with_zone(name), want, "{name}");
        }
    }
}
