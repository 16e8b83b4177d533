//! Whatever happens to either side, the subscriber ends with what was compiled.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::Path,
};

use proptest::{collection::vec, prelude::*};
use tokio::task::JoinHandle;

use super::*;
use crate::update::Interest;

/// One thing that happens.
#[derive(Clone, Debug)]
enum Step {
    /// A Name gets this content; every fourth content is one that the role rejects.
    Name(u8, u8),
    NoName(u8),
    Endpoints(u8),
    NoEndpoints(u8),
    Want(u8),
    Release(u8),
    /// Every stream ends; the server's state stays.
    Disconnect,
    /// The controller begins anew, and is complete after a while.
    RestartServer(u16),
    /// The role ends and begins anew, with what is on disk.
    RestartSubscriber,
    /// The same without a chance to write anything.
    KillSubscriber,
    /// So many milliseconds pass.
    Pass(u16),
}

fn step() -> impl Strategy<Value = Step> {
    let which = || 0_u8..6;
    prop_oneof![
        4 => (which(), 0_u8..12).prop_map(|(i, content)| Step::Name(i, content)),
        2 => which().prop_map(Step::NoName),
        3 => which().prop_map(Step::Endpoints),
        2 => which().prop_map(Step::NoEndpoints),
        3 => which().prop_map(Step::Want),
        2 => which().prop_map(Step::Release),
        1 => Just(Step::Disconnect),
        1 => (0_u16..300).prop_map(Step::RestartServer),
        1 => Just(Step::RestartSubscriber),
        1 => Just(Step::KillSubscriber),
        3 => (0_u16..2000).prop_map(Step::Pass),
    ]
}

fn poison(resource: &Resource) -> bool {
    matches!(resource, Resource::Name(name) if name.headless)
}

fn named(i: u8) -> String {
    format!("ns/s{i}")
}

fn content(i: u8, content: u8) -> Resource {
    let Resource::Name(mut it) = name(&named(i), content) else { panic!("not a name") };
    it.headless = content.is_multiple_of(4);
    Resource::Name(it)
}

/// What a role has in force, and whether all names were there at once.
#[derive(Debug, Default)]
struct InForce {
    resources: BTreeMap<Key, Resource>,
    complete: bool,
}

struct Life {
    in_force: Arc<Mutex<InForce>>,
    interest: Interest,
    runner: JoinHandle<()>,
    role: JoinHandle<()>,
    /// Kept, because dropping it says something.
    _report: update::Report,
}

impl Life {
    fn begin(way: &InProcess, path: &Path, wanted: &BTreeSet<u8>) -> Self {
        let identity =
            Identity { role: Role::Proxy, id: "p".into(), node: None, addresses: vec![], version: "".into() };
        let Subscribed { mut updates, interest, report, task, .. } = start(SubscriberConfig {
            identity,
            wildcard: vec![Kind::Name],
            on_demand: vec![Kind::Endpoints],
            connect: Connect::InProcess(way.clone()),
            token: Token::None,
            state: Some(path.to_owned()),
            timing: Timing::default(),
        });
        let in_force = Arc::new(Mutex::new(InForce::default()));
        for i in wanted {
            interest.subscribe(Kind::Endpoints, named(*i).into());
        }
        let shared = in_force.clone();
        let role = tokio::spawn(async move {
            while let Some(update) = updates.recv().await {
                let mut in_force = shared.lock();
                let mut rejected = Vec::new();
                for it in &update.upserts {
                    if poison(it) {
                        rejected.push(Rejected { name: it.key().name, message: "poison".to_owned() });
                    } else {
                        in_force.resources.insert(it.key(), (**it).clone());
                    }
                }
                for name in &update.removed {
                    in_force.resources.remove(&Key { kind: update.kind, name: name.clone() });
                }
                in_force.complete |= update.complete && update.kind == Kind::Name;
                update.ack.answer(rejected);
            }
        });
        Self { in_force, interest, runner: task, role, _report: report }
    }

    async fn end(self) {
        self.role.abort();
        let _ = self.role.await;
        self.runner.await.unwrap();
    }

    async fn kill(self) {
        self.runner.abort();
        let _ = self.runner.await;
        self.role.await.unwrap();
    }
}

struct World {
    compiled: BTreeMap<Key, Resource>,
    wanted: BTreeSet<u8>,
    store: Arc<Store>,
    server: Server,
    /// Where connections go now.
    door: Arc<Mutex<InProcess>>,
}

impl World {
    fn change(&mut self, resource: Resource) {
        self.store.apply(&upserts([resource.clone()]));
        self.compiled.insert(resource.key(), resource);
    }

    fn remove(&mut self, kind: Kind, i: u8) {
        let change = removal(kind, &named(i));
        self.store.apply(&change);
        self.compiled.remove(&change.removed[0]);
    }

    fn serve_anew(&mut self) {
        self.server.shutdown();
        self.server = serve(&self.store);
        *self.door.lock() = self.server.in_process();
    }

    fn restart(&mut self, complete_after: Duration) {
        let store = Arc::new(Store::new());
        // Half before anybody can connect, half after.
        let mut compiled = self.compiled.values().cloned().collect::<Vec<_>>();
        let rest = compiled.split_off(compiled.len() / 2);
        store.apply(&upserts(compiled));
        self.store = store.clone();
        self.serve_anew();
        store.apply(&upserts(rest));
        tokio::spawn(async move {
            tokio::time::sleep(complete_after).await;
            store.mark_complete();
        });
    }

    /// What is wrong with what is in force; `None` when it is as compiled.
    fn wrong(&self, in_force: &InForce) -> Option<String> {
        if !in_force.complete {
            return Some("not complete".to_owned());
        }
        let wanted: BTreeSet<Key> =
            self.wanted.iter().map(|i| Key { kind: Kind::Endpoints, name: named(*i).into() }).collect();
        for (key, resource) in &self.compiled {
            let asked = key.kind == Kind::Name || wanted.contains(key);
            if asked && !poison(resource) && in_force.resources.get(key) != Some(resource) {
                return Some(format!("{key:?} is {:?}", in_force.resources.get(key)));
            }
        }
        // What is let go of may linger in a role that does not care; of the others nothing may.
        let lingering =
            |key: &&Key| !self.compiled.contains_key(key) && (key.kind == Kind::Name || wanted.contains(key));
        in_force.resources.keys().find(lingering).map(|key| format!("{key:?} is still there"))
    }
}

async fn run(steps: Vec<Step>) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("state");
    let store = complete(&[]);
    let server = serve(&store);
    let (way, door) = door(&server);
    let mut world = World { compiled: BTreeMap::new(), wanted: BTreeSet::new(), store, server, door };
    let mut life = Life::begin(&way, &path, &world.wanted);
    for step in steps {
        match step {
            Step::Name(i, v) => world.change(content(i, v)),
            Step::NoName(i) => world.remove(Kind::Name, i),
            Step::Endpoints(i) => world.change(endpoints(&named(i))),
            Step::NoEndpoints(i) => world.remove(Kind::Endpoints, i),
            Step::Want(i) => {
                if world.wanted.insert(i) {
                    life.interest.subscribe(Kind::Endpoints, named(i).into());
                }
            }
            Step::Release(i) => {
                if world.wanted.remove(&i) {
                    life.interest.unsubscribe(Kind::Endpoints, named(i).into());
                    let key = Key { kind: Kind::Endpoints, name: named(i).into() };
                    life.in_force.lock().resources.remove(&key);
                }
            }
            Step::Disconnect => world.serve_anew(),
            Step::RestartServer(complete_after) => world.restart(Duration::from_millis(complete_after.into())),
            Step::RestartSubscriber => {
                life.end().await;
                life = Life::begin(&way, &path, &world.wanted);
            }
            Step::KillSubscriber => {
                life.kill().await;
                life = Life::begin(&way, &path, &world.wanted);
            }
            Step::Pass(ms) => tokio::time::sleep(Duration::from_millis(ms.into())).await,
        }
    }
    let mut wrong = None;
    for _ in 0..600 {
        wrong = world.wrong(&life.in_force.lock());
        if wrong.is_none() {
            break;
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    assert_eq!(wrong, None, "a minute after the last step");
    life.end().await;
    world.server.shutdown();
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 96, ..ProptestConfig::default() })]

    #[test]
    fn the_subscriber_ends_with_what_was_compiled(steps in vec(step(), 0..40)) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().start_paused(true).build().unwrap();
        runtime.block_on(run(steps));
    }
}
