//! The whole stream, server and subscriber over the pipe that `maesh dev` uses.

mod converge;
mod crowd;
mod replicas;
mod tcp;
mod trouble;

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use parking_lot::Mutex;

use super::*;
use crate::update::{Identity, Rejected, Role, Update};
use maesh_config::{
    Change, Key, Kind, Resource, ServiceName,
    model::{Answer, Bind, Endpoints, Listener, ListenerId, Name, Transport},
};

const LONG: Duration = Duration::from_secs(60);

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

fn listener(port: u16, http: bool) -> Resource {
    Resource::Listener(Listener {
        id: ListenerId::new(Bind::Shared, port, Transport::Tcp),
        bind: Bind::Shared,
        port,
        transport: Transport::Tcp,
        owner: None,
        http,
        tls: false,
        hosts: Vec::new(),
        sni: Vec::new(),
    })
}

fn upserts(resources: impl IntoIterator<Item = Resource>) -> Change {
    Change { upserts: resources.into_iter().collect(), removed: Vec::new() }
}

fn removal(kind: Kind, service: &str) -> Change {
    Change { upserts: Vec::new(), removed: vec![Key::of_service(kind, &service.parse::<ServiceName>().unwrap())] }
}

/// A role that applies what it gets.
struct Applied {
    subscribed: Subscribed,
    has: BTreeMap<Key, Arc<Resource>>,
    complete: Vec<Kind>,
}

impl Applied {
    async fn next(&mut self) -> Update {
        let update = tokio::time::timeout(LONG, self.subscribed.updates.recv()).await;
        update.expect("no update in time").expect("the subscriber ended")
    }

    fn apply(&mut self, update: Update, rejected: Vec<Rejected>) {
        for it in &update.upserts {
            if rejected.iter().all(|rejected| rejected.name != it.key().name) {
                self.has.insert(it.key(), it.clone());
            }
        }
        for name in &update.removed {
            self.has.remove(&Key { kind: update.kind, name: name.clone() });
        }
        if update.complete {
            self.complete.push(update.kind);
        }
        update.ack.answer(rejected);
    }

    async fn step(&mut self) {
        let update = self.next().await;
        self.apply(update, Vec::new());
    }

    fn names(&self, kind: Kind) -> Vec<&str> {
        self.has.keys().filter(|key| key.kind == kind).map(|key| &*key.name).collect()
    }
}

fn config(server: &Server, wildcard: &[Kind], on_demand: &[Kind]) -> SubscriberConfig {
    SubscriberConfig {
        identity: Identity {
            role: Role::Proxy,
            id: "p1".into(),
            node: Some("n1".into()),
            addresses: vec!["127.0.0.1".parse().unwrap()],
            version: "1".into(),
        },
        wildcard: wildcard.to_vec(),
        on_demand: on_demand.to_vec(),
        connect: Connect::InProcess(server.in_process()),
        token: Token::None,
        state: None,
        timing: Timing::default(),
    }
}

fn role(config: SubscriberConfig) -> Applied {
    Applied { subscribed: start(config), has: BTreeMap::new(), complete: Vec::new() }
}

/// A store that has all that there is.
fn complete(resources: &[Resource]) -> Arc<Store> {
    let store = Arc::new(Store::new());
    store.apply(&upserts(resources.iter().cloned()));
    store.mark_complete();
    store
}

/// A way whose other end can be moved to another server.
fn door(server: &Server) -> (InProcess, Arc<Mutex<InProcess>>) {
    let (way, mut connections) = InProcess::new();
    let door = Arc::new(Mutex::new(server.in_process()));
    let through = door.clone();
    tokio::spawn(async move {
        while let Some(connection) = connections.recv().await {
            let to = through.lock().clone();
            let _ = to.0.send(connection).await;
        }
    });
    (way, door)
}

fn serve(store: &Arc<Store>) -> Server {
    Server::new(store.clone(), ServerOptions::default())
}

async fn seen(server: &Server, when: impl Fn(&[Subscriber]) -> bool) -> Arc<Vec<Subscriber>> {
    let mut subscribers = server.subscribers();
    let found = tokio::time::timeout(LONG, subscribers.wait_for(|all| when(all))).await;
    found.expect("not seen in time").expect("the server ended").clone()
}

#[tokio::test(start_paused = true)]
async fn everything_of_a_kind_then_its_changes_and_removals() {
    let store = Arc::new(Store::new());
    let server = serve(&store);
    let mut role = role(config(&server, &[Kind::Name], &[]));
    store.apply(&upserts([name("shop/web", 1), name("shop/api", 2), endpoints("shop/web")]));
    store.mark_complete();
    role.step().await;
    assert_eq!(role.names(Kind::Name), ["shop/api", "shop/web"]);
    assert_eq!(role.complete, [Kind::Name]);
    store.apply(&removal(Kind::Name, "shop/api"));
    role.step().await;
    store.apply(&upserts([name("shop/web", 3)]));
    role.step().await;
    assert_eq!(role.has.values().map(|it| (**it).clone()).collect::<Vec<_>>(), [name("shop/web", 3)]);
    assert_eq!(role.complete, [Kind::Name], "said once");
}

#[tokio::test(start_paused = true)]
async fn on_demand_gets_what_was_asked_for_and_hears_of_what_is_not() {
    let store = Arc::new(Store::new());
    let server = serve(&store);
    store.apply(&upserts([endpoints("shop/web"), endpoints("shop/api")]));
    store.mark_complete();
    let mut role = role(config(&server, &[Kind::Name], &[Kind::Endpoints]));
    role.step().await;
    assert_eq!(role.complete, [Kind::Name], "an empty set is complete too");
    role.subscribed.interest.subscribe(Kind::Endpoints, "shop/web".into());
    role.step().await;
    assert_eq!(role.names(Kind::Endpoints), ["shop/web"]);
    role.subscribed.interest.subscribe(Kind::Endpoints, "shop/none".into());
    let update = role.next().await;
    assert_eq!(update.removed, ["shop/none".into()]);
    assert!(update.complete && update.upserts.is_empty());
    role.apply(update, Vec::new());
    store.apply(&upserts([endpoints("shop/none")]));
    role.step().await;
    assert_eq!(role.names(Kind::Endpoints), ["shop/none", "shop/web"]);
}

#[tokio::test(start_paused = true)]
async fn a_controller_learns_what_is_in_force_and_what_is_not() {
    let store = Arc::new(Store::new());
    let server = serve(&store);
    store.apply(&upserts([listener(80, true), listener(81, true)]));
    store.mark_complete();
    let mut role = role(config(&server, &[Kind::Listener], &[]));
    let update = role.next().await;
    assert!(seen(&server, |all| !all.is_empty()).await[0].listening.is_empty(), "nothing before it is in force");
    let taken = Rejected { name: "shared/81/tcp".into(), message: "the port is taken".to_owned() };
    role.apply(update, vec![taken]);
    let all = seen(&server, |all| all.first().is_some_and(|it| it.listening.len() + it.failed.len() == 2)).await;
    assert_eq!(all[0].listening.iter().map(ToString::to_string).collect::<Vec<_>>(), ["shared/80/tcp"]);
    assert_eq!(*all[0].failed[&ListenerId("shared/81/tcp".into())], *"the port is taken");
    assert_eq!(all[0].rejected.len(), 1);
    assert_eq!(server.counters().nacks(), 1);
    role.subscribed.report.send_replace(true);
    seen(&server, |all| all.first().is_some_and(|it| it.ready)).await;
    store.apply(&upserts([listener(81, false)]));
    role.step().await;
    seen(&server, |all| {
        all.first()
            .is_some_and(|it| it.rejected.is_empty() && it.listening.contains(&ListenerId("shared/81/tcp".into())))
    })
    .await;
    drop(role);
    seen(&server, <[_]>::is_empty).await;
}
