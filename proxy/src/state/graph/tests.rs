use std::collections::BTreeMap;

use maesh_config::model::{Answer, Backend as RouteBackend, NamePort, PortEndpoints, Route, ServicePort};
use proptest::prelude::*;

use super::*;
use crate::fixtures::{self, policy};

/// What is there once all effects are carried out.
#[derive(Debug, Default, PartialEq, Eq)]
struct Outcome {
    names: BTreeSet<ServiceName>,
    published: BTreeMap<ServiceName, Arc<[PublishedPort]>>,
    backends: BTreeMap<BackendId, (Arc<BackendPolicy>, Vec<model::Endpoint>)>,
    subscribed: BTreeSet<(Kind, Arc<str>)>,
    listeners: BTreeSet<Arc<str>>,
}

impl Outcome {
    /// Carries effects out, and checks that they come in an order in which that is possible.
    fn carry_out(&mut self, effects: Vec<Effect>) {
        for effect in effects {
            match effect {
                Effect::Name(name) => {
                    self.names.insert(name.service.clone());
                }
                Effect::NameGone(name) => assert!(self.names.remove(&name), "{name} was there"),
                Effect::Open(listener) => {
                    self.listeners.insert(listener.id.0.clone());
                }
                Effect::Close(id) => assert!(self.listeners.remove(&id), "{id} was open"),
                Effect::SetBackend { id, policy, endpoints, .. } => {
                    self.backends.insert(id, (policy, endpoints));
                }
                Effect::DropBackend(id) => {
                    assert!(self.backends.remove(&id).is_some(), "{id:?} was there");
                    let in_use = self.published.values().any(|ports| backends_of(Some(ports)).contains(&id));
                    assert!(!in_use, "{id:?} is dropped while something sends to it");
                }
                Effect::Publish(name, ports) => {
                    assert!(self.names.contains(&name), "{name} can be named");
                    let missing = backends_of(Some(&ports)).into_iter().find(|id| !self.backends.contains_key(id));
                    assert_eq!(missing, None, "every backend of {name} is there before it is published");
                    self.published.insert(name, ports);
                }
                Effect::Absent(name) | Effect::Release(name) => {
                    self.published.remove(&name);
                }
                Effect::Subscribe(kind, name) => assert!(self.subscribed.insert((kind, name)), "asked for once"),
                Effect::Unsubscribe(kind, name) => assert!(self.subscribed.remove(&(kind, name)), "was asked for"),
                Effect::Mesh(_) | Effect::Workload(_) | Effect::WorkloadGone(_) | Effect::Ready => {}
            }
        }
    }
}

/// A graph and what came of it.
struct Run {
    graph: Graph,
    outcome: Outcome,
}

impl Run {
    fn new() -> Self {
        let dialable = Dialable::new(&[], false);
        Self { graph: Graph::new(Locality::default(), None, dialable), outcome: Outcome::default() }
    }

    fn see(&mut self, event: Event) {
        self.graph.handle(event);
        self.outcome.carry_out(self.graph.take_effects());
    }

    fn after(events: impl IntoIterator<Item = Event>) -> Self {
        let mut run = Self::new();
        events.into_iter().for_each(|event| run.see(event));
        run
    }
}

fn service_name(name: &str) -> ServiceName {
    ServiceName::new("shop", name)
}

fn key(name: &str) -> Arc<str> {
    service_name(name).to_string().into()
}

fn set_name(name: &str) -> Event {
    let ports = vec![NamePort { number: 80, protocol: Protocol::Http, name: None, listen: 80, scheme: None }];
    let service = service_name(name);
    Event::Set(Arc::new(Resource::Name(Name { service, answer: Answer::Node, plain: vec![], headless: false, ports })))
}

/// A Service with these ports, each of which sends to these backends.
fn set_service(name: &str, ports: &[u16], to: &[(&str, u16)]) -> Event {
    let backends = |_| Route {
        rule: None,
        backends: to
            .iter()
            .map(|(name, port)| RouteBackend { service: service_name(name), port: *port, weight: 1 })
            .collect(),
        not_understood: None,
    };
    let port = |number: &u16| ServicePort {
        number: *number,
        name: None,
        protocol: Protocol::Http,
        leaving: false,
        routes: (!to.is_empty()).then(|| backends(())).into_iter().collect(),
        called: Arc::default(),
        backend: policy(u32::from(*number)),
    };
    let ports = ports.iter().map(port).collect();
    Event::Set(Arc::new(Resource::Service(Service { name: service_name(name), ports })))
}

fn set_endpoints(name: &str, ports: &[u16], host: u8) -> Event {
    let endpoint = |number: u16| fixtures::endpoint(host, number);
    let port = |number: &u16| PortEndpoints {
        number: *number,
        protocol: Protocol::Http,
        endpoints: vec![endpoint(*number)],
        access: Vec::new(),
        open: false,
    };
    let ports = ports.iter().map(port).collect();
    Event::Set(Arc::new(Resource::Endpoints(Endpoints { service: service_name(name), ports })))
}

fn used(name: &str) -> Event {
    Event::Used(service_name(name))
}

fn absent(name: &str) -> [Event; 2] {
    [Event::Removed(Kind::Service, key(name)), Event::Removed(Kind::Endpoints, key(name))]
}

/// `web` sends to `v1`; both are here and in use.
fn web_to_v1() -> Vec<Event> {
    vec![
        set_name("web"),
        used("web"),
        set_service("web", &[80], &[("v1", 80)]),
        set_endpoints("web", &[80], 1),
        set_service("v1", &[80], &[]),
        set_endpoints("v1", &[80], 2),
    ]
}

fn id(name: &str, port: u16) -> BackendId {
    BackendId { service: service_name(name), port, transport: Transport::Tcp }
}

fn sends_to(run: &Run, name: &str) -> Vec<Destination<BackendId>> {
    let ports = run.outcome.published.get(&service_name(name)).cloned().unwrap_or_default();
    ports.iter().flat_map(|port| &port.routes).flat_map(|it| &it.backends).map(|(_, to)| to.clone()).collect()
}

#[test]
fn what_a_service_sends_to() {
    let v1 = Destination::Backend(id("v1", 80));
    let to_v2 = || set_service("web", &[80], &[("v2", 80)]);
    for (case, then, want) in [
        ("all is here", vec![], vec![v1.clone()]),
        ("the new backend is not known yet", vec![to_v2()], vec![v1.clone()]),
        ("its endpoints are not", vec![to_v2(), set_service("v2", &[80], &[])], vec![v1.clone()]),
        (
            "the new backend is here",
            vec![to_v2(), set_service("v2", &[80], &[]), set_endpoints("v2", &[80], 3)],
            vec![Destination::Backend(id("v2", 80))],
        ),
        (
            "the new backend is known absent",
            [vec![to_v2()], absent("v2").to_vec()].concat(),
            vec![Destination::Missing],
        ),
        ("the backend goes", absent("v1").to_vec(), vec![Destination::Missing]),
        ("the backend's port goes", vec![set_service("v1", &[81], &[])], vec![Destination::Missing]),
        (
            "the backend's port goes and comes back",
            vec![set_service("v1", &[81], &[]), set_service("v1", &[80, 81], &[])],
            vec![v1.clone()],
        ),
        ("the Service goes", absent("web").to_vec(), vec![]),
        ("the Service's name goes", vec![Event::Removed(Kind::Name, key("web"))], vec![]),
        ("nobody uses the Service", vec![Event::Idle(service_name("web"))], vec![]),
        ("nobody uses it, then somebody does", vec![Event::Idle(service_name("web")), used("web")], vec![]),
    ] {
        let run = Run::after(web_to_v1().into_iter().chain(then));
        assert_eq!(sends_to(&run, "web"), want, "{case}");
    }
}

#[test]
fn the_proxys_own_listeners_are_no_endpoints() {
    let mut run = Run::after(web_to_v1());
    let endpoints = |run: &Run| run.outcome.backends[&id("v1", 80)].1.len();
    assert_eq!(endpoints(&run), 1);
    run.see(Event::Listening(HashSet::from([SocketAddr::from(([10, 0, 0, 2], 80))])));
    assert_eq!(endpoints(&run), 0);
    run.see(Event::Listening(HashSet::new()));
    assert_eq!(endpoints(&run), 1, "and are again once that is closed");
}

/// What is kept over a restart comes before it is asked for.
#[test]
fn what_was_kept_is_in_force_once_it_can_be_named() {
    let mut kept = web_to_v1();
    kept.retain(|event| !matches!(event, Event::Used(_)));
    kept.rotate_left(1);
    let mut run = Run::after(kept);
    assert_eq!(sends_to(&run, "web"), vec![Destination::Backend(id("v1", 80))]);
    for name in ["web", "v1"] {
        run.see(Event::Idle(service_name(name)));
    }
    assert_eq!(run.outcome.subscribed, BTreeSet::new());
}

const NAMES: [&str; 4] = ["a", "b", "c", "d"];

/// The last word on every Service: present with some ports that send somewhere, or absent.
fn world() -> impl Strategy<Value = Vec<Vec<Event>>> {
    let ports = || prop::sample::subsequence(vec![80_u16, 81], 0..=2);
    let to = prop::collection::vec((prop::sample::select(&NAMES[..]), prop::sample::select(&[80_u16, 81][..])), 0..3);
    let one = (any::<bool>(), ports(), to, any::<bool>(), ports(), 1_u8..9);
    prop::collection::vec(one, NAMES.len()).prop_map(|all| {
        let events = NAMES.iter().zip(all).map(|(name, (there, ports, to, known, with_endpoints, host))| {
            let [no_service, no_endpoints] = absent(name);
            vec![
                set_name(name),
                if there { set_service(name, &ports, &to) } else { no_service },
                if known { set_endpoints(name, &with_endpoints, host) } else { no_endpoints },
            ]
        });
        events.collect()
    })
}

/// The events of a world in an order that a controller could send: first every name and use, so that what is subscribed
/// does not depend on chance, then earlier versions and the last ones, mixed.
fn history() -> impl Strategy<Value = (Vec<Event>, Vec<Event>, Vec<Event>)> {
    (world(), world()).prop_flat_map(|(before, last)| {
        let before: Vec<Event> = before.concat();
        let last: Vec<Event> = last.concat();
        (Just(before).prop_shuffle(), Just(last.clone()).prop_shuffle(), Just(last).prop_shuffle())
    })
}

/// Every Service is named and used first, as the data path does.
fn all_used() -> impl Iterator<Item = Event> {
    NAMES.iter().flat_map(|name| [set_name(name), used(name)])
}

proptest! {
    #[test]
    fn the_order_of_resources_does_not_matter((before, one, other) in history()) {
        let straight = Run::after(all_used().chain(one));
        let detour = Run::after(all_used().chain(before).chain(other));
        prop_assert_eq!(&straight.outcome, &detour.outcome);
    }

    #[test]
    fn nothing_is_left_of_what_is_removed((before, last, _) in history()) {
        let mut run = Run::after(before.into_iter().chain(last));
        for name in NAMES {
            absent(name).into_iter().for_each(|event| run.see(event));
            run.see(Event::Removed(Kind::Name, key(name)));
        }
        let used: Vec<_> = run.graph.used().cloned().collect();
        used.into_iter().for_each(|name| run.see(Event::Idle(name)));
        prop_assert_eq!(&run.outcome, &Outcome::default());
        prop_assert_eq!(run.graph.held(), 0);
    }
}
