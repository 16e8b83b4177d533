//! Our subscriber with the delta server of go-control-plane, which never heard of a mesh.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::{net::SocketAddr, path::Path, process::Command, sync::Arc, time::Duration};

use maesh_compat::Program;
use maesh_config::{
    Kind, Resource,
    model::{Answer, Endpoints, Name},
    wire,
};
use maesh_discovery::{
    Connect, Subscribed, SubscriberConfig, Timing, Token,
    update::{Identity, Role, Update},
};
use maesh_test_support::need_tool;

const PATIENCE: Duration = Duration::from_secs(30);

/// What a request said, as the server heard it.
#[derive(Debug, serde::Deserialize)]
struct Heard {
    node: String,
    #[serde(rename = "type")]
    type_url: String,
    subscribe: Option<Vec<String>>,
    unsubscribe: Option<Vec<String>>,
    has: Option<std::collections::BTreeMap<String, String>>,
    nonce: String,
    error: String,
}

struct Server(Program);

impl Server {
    fn start(program: &Path) -> Self {
        let types = [Kind::Name, Kind::Endpoints].map(Kind::type_url);
        Self(Program::start(Command::new(program).args(types)).unwrap())
    }

    fn serve(&mut self, address: &str) -> SocketAddr {
        self.0.tell(&format!("serve {address}")).unwrap();
        self.0.wait(|line| line.strip_prefix("listening ")?.parse().ok()).unwrap()
    }

    fn put(&mut self, resource: &Resource) {
        let key = resource.key();
        let bytes: String = wire::encode(resource).iter().map(|byte| format!("{byte:02x}")).collect();
        self.0.tell(&format!("put {} {} {bytes}", key.kind.type_url(), key.name)).unwrap();
    }

    /// The next request of a kind that `which` accepts.
    fn hear(&mut self, kind: Kind, which: impl Fn(&Heard) -> bool) -> Heard {
        let read = |line: &str| {
            let heard: Heard = serde_json::from_str(line.strip_prefix("request ")?).ok()?;
            (heard.type_url == kind.type_url() && which(&heard)).then_some(heard)
        };
        self.0.wait(read).unwrap()
    }
}

fn name(service: &str, plain: u8) -> Resource {
    Resource::Name(Name {
        service: service.parse().unwrap(),
        answer: Answer::Node,
        plain: vec![[10, 0, 0, plain].into()],
        headless: false,
        ports: Vec::new(),
    })
}

fn endpoints(service: &str) -> Resource {
    Resource::Endpoints(Endpoints { service: service.parse().unwrap(), ports: Vec::new() })
}

fn subscribe(address: SocketAddr, state: &Path) -> Subscribed {
    maesh_discovery::start(SubscriberConfig {
        identity: Identity {
            role: Role::Proxy,
            id: "p1".into(),
            node: Some("n1".into()),
            addresses: Vec::new(),
            version: "1".into(),
        },
        wildcard: vec![Kind::Name],
        on_demand: vec![Kind::Endpoints],
        connect: Connect::Tcp { controllers: vec![address.to_string()], tls: None },
        token: Token::None,
        state: Some(state.to_owned()),
        timing: Timing::default(),
    })
}

async fn next(subscribed: &mut Subscribed) -> Update {
    tokio::time::timeout(PATIENCE, subscribed.updates.recv()).await.expect("an update in time").expect("an update")
}

/// The next update in short, put in force.
async fn said(subscribed: &mut Subscribed) -> (Vec<Resource>, Vec<Arc<str>>) {
    let update = next(subscribed).await;
    let upserts = update.upserts.iter().map(|it| (**it).clone()).collect();
    update.ack.answer(Vec::new());
    (upserts, update.removed)
}

#[tokio::test(flavor = "multi_thread")]
async fn our_subscriber_understands_go_control_plane() {
    let Some(program) = need_tool("go-control-plane") else { return };
    let folder = tempfile::tempdir().unwrap();
    let mut server = Server::start(&program);
    server.put(&name("shop/web", 1));
    let address = server.serve("127.0.0.1:0");
    let mut role = subscribe(address, &folder.path().join("state"));

    // Everything of a kind, acknowledged.
    assert_eq!(said(&mut role).await, (vec![name("shop/web", 1)], vec![]));
    let first = server.hear(Kind::Name, |it| it.nonce.is_empty());
    assert_eq!((first.node.as_str(), first.subscribe), ("p1", Some(vec!["*".to_owned()])));
    assert_eq!(server.hear(Kind::Name, |it| !it.nonce.is_empty()).error, "");

    // A change, a removal.
    server.put(&name("shop/web", 2));
    assert_eq!(said(&mut role).await, (vec![name("shop/web", 2)], vec![]));
    server.put(&name("shop/api", 3));
    assert_eq!(said(&mut role).await, (vec![name("shop/api", 3)], vec![]));
    server.0.tell(&format!("delete {} shop/api", Kind::Name.type_url())).unwrap();
    assert_eq!(said(&mut role).await, (vec![], vec!["shop/api".into()]));

    // On demand: what was asked for and nothing else.
    server.put(&endpoints("shop/web"));
    role.interest.subscribe(Kind::Endpoints, "shop/web".into());
    assert_eq!(said(&mut role).await, (vec![endpoints("shop/web")], vec![]));
    server.put(&endpoints("shop/api"));
    role.interest.subscribe(Kind::Endpoints, "shop/later".into());
    server.hear(Kind::Endpoints, |it| it.subscribe.as_deref() == Some(&["shop/later".to_owned()]));
    server.put(&endpoints("shop/later"));
    // The server may repeat what it knows of, but says nothing of shop/api.
    while said(&mut role).await.0 != [endpoints("shop/later")] {}
    role.interest.unsubscribe(Kind::Endpoints, "shop/later".into());
    server.hear(Kind::Endpoints, |it| it.unsubscribe.as_deref() == Some(&["shop/later".to_owned()]));

    // Bytes that are nothing are refused by name, and the rest goes on.
    server.0.tell(&format!("put {} shop/bad ff", Kind::Name.type_url())).unwrap();
    let update = next(&mut role).await;
    assert!(update.upserts.is_empty() && update.removed.is_empty());
    drop(update);
    let refused = server.hear(Kind::Name, |it| !it.error.is_empty());
    assert!(refused.error.starts_with("shop/bad: it is not readable"), "{}", refused.error);
    server.put(&name("shop/db", 4));
    assert_eq!(said(&mut role).await, (vec![name("shop/db", 4)], vec![]));

    // The server restarts with one thing changed and one gone: only these are told.
    drop(server);
    let mut server = Server::start(&program);
    for resource in [name("shop/web", 2), name("shop/new", 5), endpoints("shop/web")] {
        server.put(&resource);
    }
    server.serve(&address.to_string());
    assert_eq!(said(&mut role).await, (vec![name("shop/new", 5)], vec!["shop/db".into()]));
    let resumed = server.hear(Kind::Name, |it| it.nonce.is_empty());
    assert_eq!(resumed.has.unwrap().keys().collect::<Vec<_>>(), ["shop/db", "shop/web"]);
    assert_eq!(server.hear(Kind::Name, |it| !it.nonce.is_empty()).error, "");

    // The subscriber restarts: what it kept comes first, without a word from the server.
    drop(server);
    let Subscribed { updates, task, .. } = role;
    drop(updates);
    task.await.unwrap();
    let mut role = subscribe(address, &folder.path().join("state"));
    let mut kept = Vec::new();
    while kept.len() < 3 {
        kept.extend(said(&mut role).await.0);
    }
    kept.sort_by_key(Resource::key);
    assert_eq!(kept, [name("shop/new", 5), name("shop/web", 2), endpoints("shop/web")]);
}
