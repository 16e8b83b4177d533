//! What the controllers and the API server say.

use futures_util::future::join_all;
use serde::{Deserialize, de::DeserializeOwned};

use crate::{
    get::SubscriberRow,
    inspect::{Member, Mesh, Role},
};

/// What was seen of a mesh.
#[derive(Clone, Debug, Default)]
pub struct Seen {
    /// Who was asked, for people.
    pub asked: String,
    /// It is a `maesh dev`.
    pub dev: bool,
    /// Each controller.
    pub controllers: Vec<ControllerSeen>,
    /// The pods of dns; a `maesh dev` has none.
    pub dns: Vec<PodSeen>,
    /// The pods of the proxies, likewise.
    pub proxies: Vec<PodSeen>,
}

/// A pod of dns or of a proxy.
#[derive(Clone, Debug)]
pub struct PodSeen {
    /// Its name.
    pub name: String,
    /// Its containers are ready.
    pub ready: bool,
}

/// A controller, and what it says.
#[derive(Clone, Debug)]
pub struct ControllerSeen {
    /// What people call it.
    pub name: String,
    /// Node it runs on.
    pub node: Option<String>,
    /// Its pod is ready.
    pub ready: bool,
    /// What it says, or why it does not.
    pub said: Result<Said, String>,
}

/// What a controller says.
#[derive(Clone, Debug, Default)]
pub struct Said {
    /// `/api/status`
    pub status: Status,
    /// `/api/subscribers`
    pub subscribers: Vec<SubscriberRow>,
    /// `/api/watches`, where it watches a cluster.
    pub watches: Option<Vec<Watch>>,
    /// `/api/leader`, where it may write.
    pub leads: Option<bool>,
    /// `/api/stanza`, likewise.
    pub stanza: Option<Stanza>,
}

/// `/api/status`, as far as it is shown. What another version does not say is left out.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Status {
    pub version: String,
    pub synced: bool,
    pub revision: u64,
    pub seconds_since_change: Option<f64>,
    pub services: Option<usize>,
    pub access_control: Option<String>,
    pub bypass: Option<bool>,
    pub errors: Option<usize>,
    pub warnings: Option<usize>,
}

/// One watch of the Kubernetes API.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Watch {
    pub kind: String,
    pub synced: bool,
    pub error: Option<String>,
}

/// The stanza in the cluster's DNS.
#[derive(Clone, Debug, Default, Deserialize)]
pub struct Stanza {
    pub phase: String,
    pub message: String,
}

#[derive(Deserialize)]
struct Index {
    paths: Vec<String>,
}

#[derive(Deserialize)]
struct Subscribers {
    subscribers: Vec<SubscriberRow>,
}

#[derive(Deserialize)]
struct Watches {
    watches: Vec<Watch>,
}

#[derive(Deserialize)]
struct Leader {
    leads: bool,
}

/// Asks all controllers at once.
pub async fn collect(mesh: &Mesh) -> Seen {
    let members = mesh.members(Role::Controller);
    let controllers = join_all(members.iter().map(|member| controller(mesh, member))).await;
    let pod = |member| match member {
        Member::Dev => None,
        Member::Pod(pod) => Some(PodSeen { name: pod.name, ready: pod.ready }),
    };
    let pods = |role| mesh.members(role).into_iter().filter_map(pod).collect();
    Seen {
        asked: mesh.describe(),
        dev: matches!(mesh, Mesh::Dev(_)),
        controllers,
        dns: pods(Role::Dns),
        proxies: pods(Role::Proxy),
    }
}

async fn controller(mesh: &Mesh, member: &Member) -> ControllerSeen {
    let (node, ready) = match member {
        Member::Dev => (None, true),
        Member::Pod(pod) => (pod.node.clone(), pod.ready),
    };
    let said = said(mesh, member).await.map_err(|error| format!("{error:#}"));
    ControllerSeen { name: member.name().to_owned(), node, ready, said }
}

async fn said(mesh: &Mesh, member: &Member) -> anyhow::Result<Said> {
    let index: Index = ask(mesh, member, "").await?;
    let has = |name: &str| index.paths.iter().any(|path| path.strip_prefix("/api/") == Some(name));
    let watches =
        async { Ok(if has("watches") { Some(ask::<Watches>(mesh, member, "watches").await?.watches) } else { None }) };
    let leads =
        async { Ok(if has("leader") { Some(ask::<Leader>(mesh, member, "leader").await?.leads) } else { None }) };
    let stanza = async { Ok(if has("stanza") { Some(ask::<Stanza>(mesh, member, "stanza").await?) } else { None }) };
    let status = ask::<Status>(mesh, member, "status");
    let subscribers = ask::<Subscribers>(mesh, member, "subscribers");
    let (status, subscribers, watches, leads, stanza) = tokio::try_join!(status, subscribers, watches, leads, stanza)?;
    Ok(Said { status, subscribers: subscribers.subscribers, watches, leads, stanza })
}

async fn ask<T: DeserializeOwned>(mesh: &Mesh, member: &Member, path: &str) -> anyhow::Result<T> {
    mesh.ask(Role::Controller, member, path, &[]).await
}
