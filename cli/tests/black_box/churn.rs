//! A mesh whose Services come, change and go all the time, under load: nobody who calls another one notices, and in
//! the end it says what a mesh says that was just started.
//!
//! `MAESH_CHURN_SECONDS` and `MAESH_CHURN_SEED` choose another length and another history.
#![allow(clippy::unwrap_used, reason = "a test ends where something is missing")]

use std::{
    collections::BTreeSet,
    net::SocketAddr,
    path::Path,
    time::{Duration, Instant},
};

use crate::support::{
    Dev, await_condition,
    backend::Backend,
    http::get,
    load::Load,
    manifest::{save, service, slices},
    resident,
    roles::outage,
};
use rand::{RngExt as _, SeedableRng as _, rngs::StdRng};
use serde_json::Value;

/// How long it goes on when nothing is said.
const SECONDS: u64 = 60;
/// Services that come, change and go.
const NOISE: usize = 60;
/// Changes between two releases of the Service that is called.
const RELEASE: usize = 40;
/// Pause between two changes.
const PACE: Duration = Duration::from_millis(5);

#[test]
#[ignore = "long: a minute of changes under load"]
fn nobody_notices_that_other_services_come_and_go() {
    let number =
        |name: &str, otherwise| std::env::var(name).ok().and_then(|text| text.parse().ok()).unwrap_or(otherwise);
    let (seconds, seed) = (number("MAESH_CHURN_SECONDS", SECONDS), number("MAESH_CHURN_SEED", 1));
    println!("{seconds} s, seed {seed}");
    let mut rng = StdRng::seed_from_u64(seed);
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    let (mut web, api, db) = (Backend::http("web-0"), Backend::http("api"), Backend::echo());
    save(folder, "web.yaml", &service("shop", "web", 8080, ""));
    save(folder, "web-slice.yaml", &slices("shop", "web", &[web.address]));
    save(folder, "api.yaml", &(service("shop", "api", 8080, "") + &slices("shop", "api", &[api.address])));
    let tcp = "maesh.containo.us/traffic-type: tcp";
    save(folder, "db.yaml", &(service("shop", "db", 5432, tcp) + &slices("shop", "db", &[db.address])));

    let mut dev = Dev::start(folder);
    let before = resident(dev.pid());
    let load = Load::start(&dev);
    let (end, mut changes, mut releases) = (Instant::now() + Duration::from_secs(seconds), 0, 0);
    while Instant::now() < end {
        change(&mut rng, folder, api.address);
        changes += 1;
        if changes % RELEASE == 0 {
            releases += 1;
            let next = Backend::http(&format!("web-{releases}"));
            save(folder, "web-slice.yaml", &slices("shop", "web", &[next.address]));
            dev.await_changed("web.shop.maesh");
            web.stop_hard();
            web = next;
        }
        outage(PACE);
    }
    let (asked, failed) = load.finish();
    println!(
        "{changes} changes, {releases} releases, {asked} requests, streams and queries, {} failed; {before} to {} KiB resident",
        failed.len(),
        resident(dev.pid())
    );
    assert!(failed.is_empty(), "{} of {asked} failed: {:#?}", failed.len(), &failed[..failed.len().min(20)]);
    assert!(releases > 0 && asked > 1000, "{releases} releases and {asked} requests are no load");
    as_if_just_started(&dev, folder);
}

/// What was arrived at by many steps is what one step leads to.
fn as_if_just_started(dev: &Dev, folder: &Path) {
    // Own addresses depend on the range, so they are compared by whether there is one.
    let told = |dev: &Dev| -> BTreeSet<String> {
        let text = get(dev.admin(), "localhost", "/api/services").unwrap().body;
        let all: Value = serde_json::from_str(&text).unwrap();
        let mut all = all["services"].as_array().unwrap().clone();
        let shared = dev.entry("web.shop.maesh")["address"].clone();
        for entry in &mut all {
            let address = entry["address"].take();
            entry["address"] = match address.as_str() {
                Some(plain) if plain.starts_with("10.") => plain.into(),
                Some(_) => (address == shared).into(),
                None => Value::Null,
            };
        }
        all.iter().map(Value::to_string).collect()
    };
    let fresh = Dev::start(folder);
    let want = told(&fresh);
    let mut got = BTreeSet::new();
    let same = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
        await_condition("the table is that of a mesh just started", || {
            got = told(dev);
            (got == want).then_some(())
        });
    }));
    let (more, less): (Vec<_>, Vec<_>) = (got.difference(&want).collect(), want.difference(&got).collect());
    assert!(same.is_ok(), "only after many changes: {more:#?}; only when just started: {less:#?}");
    println!("{} Services in the end", want.len());
}

/// One change of one Service, Namespace or slice that nobody calls; some of them are bad.
fn change(rng: &mut StdRng, folder: &Path, backend: SocketAddr) {
    let index = rng.random_range(0..NOISE);
    let (namespace, name) = (["one", "two"][index % 2], format!("noise-{index}"));
    let (file, slice) = (format!("{name}.yaml"), format!("{name}-slice.yaml"));
    let pick = |rng: &mut StdRng, from: &[&'static str]| from[rng.random_range(0..from.len())];
    match rng.random_range(0..10) {
        0..=4 => {
            let annotation = pick(
                rng,
                &[
                    "",
                    "maesh.containo.us/traffic-type: tcp",
                    "maesh.containo.us/traffic-type: http",
                    "maesh.containo.us/traffic-type: smoke signals",
                    "maesh.containo.us/bypass: \"true\"",
                    "maesh.containo.us/no-such-thing: \"1\"",
                    "maesh.containo.us/scheme: h2c",
                ],
            );
            // Some share the called Services' ports.
            let port = [8080, 5432, 9001, 9002][rng.random_range(0..4)];
            save(folder, &file, &service(namespace, &name, port, annotation));
        }
        5 => drop(std::fs::remove_file(folder.join(file))),
        6 => save(folder, &slice, &slices(namespace, &name, &[backend])),
        7 => drop(std::fs::remove_file(folder.join(slice))),
        8 => {
            let annotation = pick(rng, &["", "maesh.containo.us/traffic-type: tcp"]);
            let text = format!(
                "apiVersion: v1\nkind: Namespace\nmetadata: {{name: {namespace}, annotations: {{{annotation}}}}}\n"
            );
            save(folder, &format!("{namespace}.yaml"), &text);
        }
        // Neither YAML nor anything else.
        _ => save(folder, "broken.yaml", pick(rng, &["kind: [", "", "\u{0}", "kind: Service\nmetadata: 7\n"])),
    }
}
