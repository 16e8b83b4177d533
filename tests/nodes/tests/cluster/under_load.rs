//! Requests from pods on every node while something happens, and the count of those that failed.

use std::time::Duration;

use maesh_test_support::until;
use maesh_testcluster::ECHO_IMAGE;
use maesh_testcluster::load::{Counts, Request, now, requests};

use crate::shared::{Cluster, PATIENCE};

/// What every node's pods do: 67 requests a second, 201 on three nodes, and some long streams.
pub(crate) const PLANS: [&str; 8] = [
    "http1 14 web.shop.maesh:80 plain=web.shop:80",
    "http1 5 web.shop.maesh:80 plain=web.shop:80 dns=fresh",
    "http1-kept 14 web.shop.maesh:80 plain=web.shop:80",
    "h2c 6 web.shop.maesh:80 plain=web.shop:80",
    "h2c-kept 14 web.shop.maesh:80 plain=web.shop:80",
    "tcp 14 db.shop.maesh:9000 plain=db.shop:9000",
    "websocket 2 web.shop.maesh:80 plain=web.shop:80",
    "stream 2 db.shop.maesh:9000 plain=db.shop:9000",
];

/// Longest time that a request takes in the load, after which its outcome is known.
const LONGEST: Duration = Duration::from_secs(16);

/// Lets a time pass, in which a load is measured.
#[allow(clippy::disallowed_methods, reason = "a load is measured over a time")]
pub(crate) fn pass(seconds: u64) {
    std::thread::sleep(Duration::from_secs(seconds));
}

/// A load that runs, and what happened meanwhile.
pub(crate) struct Load<'a> {
    cluster: &'a Cluster,
    name: &'static str,
    began: u64,
    phases: Vec<(String, u64, u64)>,
}

/// What came of a load.
pub(crate) struct Report {
    pub(crate) requests: Vec<Request>,
    pub(crate) phases: Vec<(String, Counts)>,
    /// When each phase was.
    pub(crate) spans: Vec<(String, u64, u64)>,
    seconds: u64,
}

impl<'a> Load<'a> {
    /// Starts `plans` in a pod on every node; returns once each has had an answer.
    pub(crate) fn start(cluster: &'a Cluster, name: &'static str, plans: &[&str]) -> Self {
        let arguments: Vec<&str> = ["load", "--log=/log/requests"].iter().chain(plans).copied().collect();
        let manifest = include_str!("../../manifests/load.yaml").replace("NAME", name).replace("IMAGE", ECHO_IMAGE);
        let arguments = serde_json::to_string(&arguments).unwrap();
        cluster.kube.apply(&manifest.replace("ARGUMENTS", &arguments)).unwrap();
        cluster.kube.settled("callers", &format!("daemonset/{name}"), PATIENCE).unwrap();
        let load = Self { cluster, name, began: now(), phases: Vec::new() };
        let answered = until(PATIENCE, || load.read(load.began).iter().any(|request| request.failure.is_none()));
        assert!(answered, "the load {name} has no answer");
        Self { began: now(), ..load }
    }

    /// Does `work` under load; failures meanwhile are counted under `name`.
    pub(crate) fn phase(&mut self, name: &str, work: impl FnOnce()) {
        let from = now();
        work();
        self.phases.push((name.to_owned(), from, now()));
        println!("{name}: {:.1} s", (now() - from) as f64 / 1e3);
    }

    /// Lets the load run for a while.
    pub(crate) fn go_on(&self, time: Duration) {
        pass(time.as_secs());
    }

    /// Waits until the outcome of every request is known, ends the load and counts.
    pub(crate) fn end(self) -> Report {
        let end = now();
        self.go_on(LONGEST);
        let requests = self.read(self.began);
        self.cluster.kube.run(&format!("--namespace=callers delete daemonset {} --wait=false", self.name)).unwrap();
        let mut phases: Vec<(String, Counts)> =
            self.phases.iter().map(|(name, from, to)| (name.clone(), Counts::of(&requests, *from..*to))).collect();
        phases.push(("all".to_owned(), Counts::of(&requests, self.began..end)));
        for (name, counts) in &phases {
            println!("  {name}: {counts}");
        }
        Report { requests, phases, spans: self.phases, seconds: (end - self.began) / 1000 }
    }

    fn read(&self, since: u64) -> Vec<Request> {
        requests(&self.cluster.kube, "callers", self.name, since).unwrap()
    }
}

impl Report {
    /// Nothing failed in any phase, and at least `rate` requests a second were made in the whole.
    #[track_caller]
    pub(crate) fn assert_none_failed(&self, rate: u64) {
        let (_, all) = self.phases.last().expect("all of it");
        // Requests that were never made cannot fail.
        assert!(all.requests as u64 >= rate * self.seconds * 95 / 100, "{} in {} s", all.requests, self.seconds);
        assert_eq!(all.failed, 0, "{all}");
    }
}
