//! However the state came about, answers are those of the same resources delivered at once.

use std::{collections::BTreeMap, net::IpAddr, sync::Arc};

use hickory_proto::op::Message;
use maesh_config::{
    Kind, Resource,
    model::{Answer, Name, NamePort, Protocol, Proxy, Workload, WorkloadKind},
};
use maesh_discovery::update::{Ack, Update};
use proptest::{collection::vec, prelude::*, sample::select};

use crate::{
    Action, Snapshot, Transport, answer,
    fixture::{ip, mesh, name, proxy, removal, update, workload},
    snapshot_of,
};

/// What can be there, a few variants of each, so that histories meet the same resources again.
fn resources() -> impl Strategy<Value = Resource> {
    prop_oneof![names(), proxies(), workloads(), meshes()]
}

fn names() -> impl Strategy<Value = Resource> {
    let answers = select(vec![Answer::Node, Answer::Plain, Answer::Fixed(vec![ip("10.200.0.1")])]);
    let ports = vec(select(vec![80_u16, 81, 8080]), 0..3);
    (select(vec!["a/x", "a/y", "b/x"]), answers, ports, any::<bool>()).prop_map(|(service, answer, ports, headless)| {
        let ports = ports.into_iter().map(|number| NamePort {
            number,
            protocol: if number == 81 { Protocol::Tcp } else { Protocol::Http },
            name: Some(format!("p{number}").into()),
            listen: number,
            scheme: None,
        });
        Resource::Name(Name { ports: ports.collect(), headless, ..name(service, answer, "10.96.0.1") })
    })
}

fn proxies() -> impl Strategy<Value = Resource> {
    let listening = select(vec![vec![], vec![80], vec![80, 81], vec![80, 81, 8080]]);
    (0..4_u8, select(vec!["n1", "n2", "n3"]), listening, prop::bool::weighted(0.8)).prop_map(
        |(number, node, listening, ready)| {
            let known = proxy(&format!("p{number}"), node, &format!("10.0.0.{number} fd00::{number}"));
            Resource::Proxy(Proxy { listening, ready, ..known })
        },
    )
}

fn workloads() -> impl Strategy<Value = Resource> {
    let one =
        (select(vec!["10.1.0.1", "10.1.0.2", "fd00:1::1"]), select(vec![WorkloadKind::Pod, WorkloadKind::Resolver]));
    let range = (select(vec!["10.1.0.0/24", "10.1.0.0/16", "fd00:1::/64"]), Just(WorkloadKind::PodRange));
    (prop_oneof![one, range], select(vec!["n1", "n2", "n3"])).prop_map(|((address, kind), node)| {
        let known = workload(kind, address, node);
        Resource::Workload(Workload { node: Some(node.into()), ..known })
    })
}

fn meshes() -> impl Strategy<Value = Resource> {
    (prop::bool::weighted(0.1), any::<bool>(), prop::bool::weighted(0.3)).prop_map(|(bypass, fail_to_plain, denies)| {
        let access_control =
            if denies { maesh_config::model::AccessControl::On } else { maesh_config::model::AccessControl::DryRun };
        Resource::Mesh(maesh_config::model::Mesh { bypass, fail_to_plain, access_control, ..mesh() })
    })
}

/// One step of a history.
#[derive(Clone, Debug)]
enum Step {
    Set(Resource),
    /// Takes out one of what is there.
    Remove(prop::sample::Index),
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let set = resources().prop_map(Step::Set);
    let remove = any::<prop::sample::Index>().prop_map(Step::Remove);
    vec(prop_oneof![3 => set, 1 => remove], 0..60)
}

/// Nothing yet, and that is all.
fn empty() -> Vec<Update> {
    let mut updates = vec![update(Kind::Mesh, [Resource::Mesh(mesh())])];
    updates.extend([Kind::Proxy, Kind::Workload, Kind::Name].map(|kind| update(kind, [])));
    updates
}

/// Code, and answers in order of their text, for every name and caller.
fn answers(snapshot: &Snapshot) -> Vec<(String, u8, Vec<String>)> {
    let names = ["x.a.maesh", "y.a.maesh", "x.b.maesh", "a.maesh", "b.maesh", "_p80._tcp.x.a.maesh", "_tcp.x.a.maesh"];
    let callers = ["10.1.0.1", "10.1.0.2", "10.1.0.3", "10.1.9.9", "10.2.0.1", "fd00:1::1", "fd00:1::2"];
    let mut all = Vec::new();
    for name in names {
        for caller in callers {
            for kind in [1_u16, 28, 33] {
                all.push(asked(snapshot, name, ip(caller), kind));
            }
        }
    }
    all
}

fn asked(snapshot: &Snapshot, name: &str, caller: IpAddr, kind: u16) -> (String, u8, Vec<String>) {
    let mut query = vec![0, 0, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0];
    for label in name.split('.') {
        query.push(label.len() as u8);
        query.extend(label.bytes());
    }
    query.push(0);
    query.extend(kind.to_be_bytes());
    query.extend([0, 1]);
    let mut out = Vec::new();
    let action = answer(&query, caller, snapshot, Transport::Udp, 0, &mut out);
    assert!(matches!(action, Action::Reply(_)));
    let reply = Message::from_vec(&out).expect("hickory reads it");
    // Who comes first among equals is chance; with more than may be named, so is who is named.
    let mut texts: Vec<String> = reply.answers.iter().map(|record| record.data.to_string()).collect();
    texts.sort();
    (format!("{name} {kind} for {caller}"), out[3] & 0xf, texts)
}

proptest! {
    #[test]
    fn any_history_leads_to_the_same_answers(steps in steps(), whole in any::<bool>()) {
        let mut there: BTreeMap<(Kind, Arc<str>), Resource> = BTreeMap::new();
        let mut history = empty();
        for step in steps {
            match step {
                Step::Set(resource) => {
                    let key = resource.key();
                    there.insert((key.kind, key.name), resource.clone());
                    history.push(update(resource.kind(), [resource]));
                }
                Step::Remove(index) if !there.is_empty() => {
                    let key = index.get(&there.keys().cloned().collect::<Vec<_>>()).clone();
                    // The mesh's settings outlive their removal.
                    if key.0 != Kind::Mesh {
                        there.remove(&key);
                        history.push(removal(key.0, &key.1));
                    }
                }
                Step::Remove(_) => {}
            }
        }
        let ever_ready = history.iter().flat_map(|update| &update.upserts).any(
            |resource| matches!(&**resource, Resource::Proxy(Proxy { ready: true, .. })),
        );
        // Whether each step is published or only the last must not matter, but for who was ready last.
        let stepwise = if whole { snapshot_of(history, &[]) } else { published(history) };
        let mut at_once = empty();
        for kind in Kind::ALL {
            let upserts = there.iter().filter(|((of, _), _)| *of == kind).map(|(_, resource)| resource.clone());
            at_once.push(update(kind, upserts.collect::<Vec<_>>()));
        }
        let fresh = snapshot_of(at_once, &[]);
        if !whole && ever_ready && fresh.proxies.ready().is_empty() {
            return Ok(());
        }
        for (got, want) in answers(&stepwise).into_iter().zip(answers(&fresh)) {
            let few = fresh.proxies.ready().len() <= crate::proxies::SPREAD;
            if few {
                prop_assert_eq!(got, want);
            } else {
                prop_assert_eq!((got.0, got.1, got.2.len()), (want.0, want.1, want.2.len()));
            }
        }
    }
}

/// What a node is called here is given to another one when it is gone, but not what it was found to be.
#[test]
fn a_new_node_is_not_taken_for_a_dead_one() {
    let published =
        Arc::new(arc_swap::ArcSwap::from_pointee(Snapshot::empty(std::time::Instant::now(), Arc::default())));
    let mut state = super::State::new(published.clone());
    let apply = |state: &mut super::State, update: Update| assert_eq!(state.apply(&update), []);
    empty().into_iter().for_each(|update| apply(&mut state, update));
    let own = Answer::Fixed(vec![ip("10.200.0.1")]);
    apply(&mut state, update(Kind::Name, [Resource::Name(name("a/x", own, "10.96.0.1"))]));
    apply(&mut state, update(Kind::Proxy, [Resource::Proxy(proxy("p1", "n1", "10.0.0.1"))]));
    state.set_dead(["p1".into()].into(), false);
    apply(&mut state, removal(Kind::Proxy, "p1"));
    apply(&mut state, update(Kind::Proxy, [Resource::Proxy(proxy("p2", "n2", "10.0.0.2"))]));
    let pod = workload(WorkloadKind::Pod, "10.1.0.1", "n2");
    apply(&mut state, update(Kind::Workload, [Resource::Workload(pod)]));
    state.publish(std::time::Instant::now());
    let (_, _, answer) = asked(&published.load_full(), "x.a.maesh", ip("10.1.0.1"), 1);
    assert_eq!(answer, ["10.200.0.1"]);
}

/// The snapshot after all of `history`, each step of which was published.
fn published(history: Vec<Update>) -> Arc<Snapshot> {
    let empty = Snapshot::empty(std::time::Instant::now(), Arc::default());
    let published = Arc::new(arc_swap::ArcSwap::from_pointee(empty));
    let mut state = super::State::new(published.clone());
    for step in history {
        assert_eq!(state.apply(&step), []);
        state.publish(std::time::Instant::now());
        let Update { ack, .. } = step;
        Ack::answer(ack, vec![]);
    }
    published.load_full()
}
