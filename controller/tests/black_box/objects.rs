//! A controller that follows a real API server while objects of every kind come, change and go at random: what it says is always
//! what the objects say that are there, compiled from nothing.
//!
//! `MAESH_OBJECTS_SECONDS` and `MAESH_OBJECTS_SEED` choose another length and another history: `cargo xtask soak objects`.

mod api;
mod changes;
mod model;
mod values;

use std::{
    collections::BTreeMap,
    time::{Duration, Instant},
};

use maesh_compiler::{
    compile::{Config, ConnectedProxy},
    kinds::ObjectKind,
};
use maesh_config::{
    Kind,
    model::{AccessControl, ListenerId},
};
use maesh_controller::source::kubernetes::Options;
use maesh_test_support::until;
use maesh_testkube::ApiServer;
use rand::{RngExt as _, SeedableRng as _, rngs::StdRng};

use self::{
    api::Api,
    changes::{Changes, SMI},
    model::Said,
};
use crate::{kubernetes::Watching, support::PATIENCE};

/// How long it goes on when nothing is said.
const SECONDS: u64 = 60;
/// Most changes between two comparisons.
const BATCH: usize = 30;
/// Comparisons between two with a controller that was just started.
const RESTART: usize = 25;
/// Changes that are printed with a difference.
const PRINTED: usize = 400;

fn config() -> Config {
    Config {
        access_control: AccessControl::On,
        // What a Service leaves serves on for this long, and then what is said depends on what is there alone.
        horizon: Duration::from_millis(200),
        own_settle: Duration::from_millis(100),
        ports_per_namespace: 8,
        config_maps_on_demand: true,
        ..Config::default()
    }
}

#[test]
#[ignore = "long: a minute of changes"]
fn what_is_said_is_what_the_objects_say() {
    let number =
        |name: &str, otherwise| std::env::var(name).ok().and_then(|text| text.parse().ok()).unwrap_or(otherwise);
    let seed = number("MAESH_OBJECTS_SEED", rand::random_range(1..1_000_000));
    let seconds = number("MAESH_OBJECTS_SECONDS", SECONDS);
    println!("{seconds} s, seed {seed}");
    let Some(server) = ApiServer::start_or_skip() else { return };
    server.apply(SMI).unwrap();
    let mut run = Run {
        rng: StdRng::seed_from_u64(seed),
        changes: Changes::new(Api::new(&server)),
        mesh: Watching::with(&server, server.kubeconfig(), Options::default(), config()),
        proxies: Vec::new(),
        server: &server,
        compared: 0,
    };
    run.mesh.until("a first configuration", |mesh| mesh.kept.0.lock().complete);
    let end = Instant::now() + Duration::from_secs(seconds);
    let mut most = BTreeMap::<Kind, usize>::new();
    while Instant::now() < end {
        run.step();
        for (kind, count) in run.said().by_kind() {
            let most = most.entry(kind).or_default();
            *most = (*most).max(count);
        }
    }
    let Changes { made, refused, .. } = &run.changes;
    println!(
        "{} comparisons; changes by kind: {made:?}; {refused} were refused by the API server; most resources: {most:?}",
        run.compared
    );
    assert!(run.compared > 3, "{} comparisons show nothing", run.compared);
    for kind in [Kind::Name, Kind::Service, Kind::Endpoints, Kind::Workload, Kind::Proxy, Kind::Listener, Kind::Mesh] {
        assert!(most.contains_key(&kind), "there never was a {kind:?}");
    }
    assert!(changes::KINDS.iter().all(|kind| made.contains_key(kind)), "a kind never changed: {made:?}");
}

struct Run<'s> {
    rng: StdRng,
    changes: Changes,
    mesh: Watching,
    proxies: Vec<ConnectedProxy>,
    server: &'s ApiServer,
    compared: usize,
}

impl Run<'_> {
    /// Some changes, and a comparison.
    fn step(&mut self) {
        for _ in 0..self.rng.random_range(1..=BATCH) {
            self.changes.make(&mut self.rng);
        }
        if self.rng.random_range(0..5) == 0 {
            self.proxies = self.random_proxies();
            self.mesh.proxies.send_replace(self.proxies.clone());
        }
        self.compared += 1;
        let want = self.compare();
        if self.compared.is_multiple_of(RESTART) {
            let fresh = Watching::with(self.server, self.server.kubeconfig(), Options::default(), config());
            fresh.proxies.send_replace(self.proxies.clone());
            let mut got = Said::default();
            let same = until(PATIENCE, || {
                got = Said::by(&fresh);
                got == want
            });
            assert!(same, "a controller that was just started says something else: {}", self.explained(&got, &want));
        }
    }

    /// Waits until the controller says what the objects say that are there now.
    fn compare(&self) -> Said {
        let want = model::compiled(&self.changes.api, &config(), &self.proxies);
        let mut got = Said::default();
        let same = until(PATIENCE, || {
            got = self.said();
            got == want
        });
        assert!(same, "{}", self.explained(&got, &want));
        want
    }

    fn said(&self) -> Said {
        Said::by(&self.mesh)
    }

    fn explained(&self, got: &Said, want: &Said) -> String {
        let history = &self.changes.history;
        let last = &history[history.len().saturating_sub(PRINTED)..];
        format!(
            "comparison {}:\n{}\nwatches: {:#?}\nthe last {} of {} changes:\n{}",
            self.compared,
            got.differences(want),
            self.mesh.watches.states(),
            last.len(),
            history.len(),
            last.join("\n")
        )
    }

    /// Proxies that listen on some of what there is, or on all.
    fn random_proxies(&mut self) -> Vec<ConnectedProxy> {
        let listeners: Vec<_> = {
            let now = self.mesh.kept.0.lock();
            let listeners = now.resources.keys().filter(|key| key.kind == Kind::Listener);
            listeners.map(|key| ListenerId(key.name.clone())).collect()
        };
        let rng = &mut self.rng;
        let proxy = |number: u8, rng: &mut StdRng| {
            let all = rng.random_bool(0.7);
            let (on, off): (Vec<_>, Vec<_>) = listeners.iter().cloned().partition(|_| all || rng.random_bool(0.5));
            ConnectedProxy {
                id: format!("p{number}").into(),
                node: Some("n1".into()),
                addresses: vec![std::net::Ipv4Addr::new(10, 244, 1, 3 + number).into()],
                ready: rng.random_bool(0.8),
                listening: on.into_iter().collect(),
                failed: std::sync::Arc::new(off.into_iter().take(1).map(|id| (id, "in use".into())).collect()),
            }
        };
        (0..rng.random_range(0..3)).map(|number| proxy(number, rng)).collect()
    }
}

/// Every kind that the controller reads is changed.
#[test]
fn every_kind_is_among_those_that_change() {
    let missing: Vec<_> = ObjectKind::ALL.into_iter().filter(|kind| !changes::KINDS.contains(kind)).collect();
    assert!(missing.is_empty(), "{missing:?}");
}
