//! The pages of docs/tasks about policies: their manifests and commands are taken from the text and run as they stand, with
//! pods that behave as the page says, and print what the page shows.
//!
//! A page says in sentences how its pods behave; [`SCENES`] says the same to this test. A page without a scene fails it.
#![allow(clippy::unwrap_used, reason = "a test ends where something is missing")]

mod pod;

use std::{
    collections::BTreeSet,
    fs::{self, Permissions},
    os::unix::fs::PermissionsExt as _,
    path::Path,
    process::{Command, Stdio},
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
};

use maesh_config::policy::STICKY_COOKIE;
use maesh_test_support::{need_program, program, repository};

use self::pod::{Act, Act::*, Pod};
use crate::support::{
    Dev, await_condition, http,
    manifest::{save, slices},
    page::{blocks, lines, page, spans, typed},
};

/// What stands behind the Services of a page.
struct Scene {
    page: &'static str,
    /// Services in namespace shop, each with its pods. A pod acts by the number of requests that its Service got before.
    services: &'static [(&'static str, &'static [&'static [Act]])],
}

const SCENES: &[Scene] = &[
    Scene { page: "circuit-breakers", services: &[("web", &[&[Fail(500)]])] },
    Scene { page: "concurrency", services: &[("web", &[&[Slow]])] },
    Scene { page: "fallback", services: &[("web", &[]), ("web-static", &[&[Answer]])] },
    Scene { page: "faults", services: &[("web", &[])] },
    Scene { page: "hedging", services: &[("web", &[&[Silent, Answer], &[Silent, Answer]])] },
    Scene {
        page: "load-balancing",
        services: &[
            ("turns", &[&[Answer], &[Answer]]),
            ("by-user", &[&[Answer], &[Answer]]),
            ("cart", &[&[Answer], &[Answer]]),
        ],
    },
    Scene {
        page: "https",
        services: &[("pay", &[&[Secure("pay.shop.svc")]]), ("legacy", &[&[Unverified("legacy.shop.svc")]])],
    },
    Scene { page: "mirror", services: &[("web", &[&[Answer]]), ("web-next", &[&[Silent]])] },
    Scene { page: "rate-limits", services: &[("web", &[&[Answer]])] },
    Scene { page: "routes", services: &[("web", &[&[Answer]]), ("api", &[&[Answer]]), ("web-next", &[&[Answer]])] },
    Scene {
        page: "retries",
        services: &[("web", &[&[Fail(503), Fail(503), Answer]]), ("pair", &[&[Answer], &[Fail(503)]])],
    },
    Scene {
        page: "timeouts",
        services: &[("web", &[&[Silent]]), ("tries", &[&[Silent, Answer]]), ("echo", &[&[Tell("x-maesh-timeout-ms")]])],
    },
];

/// Pages about something else than a policy.
const OTHERS: [&str; 11] = [
    "access-control",
    "dashboards",
    "failed-request",
    "migrate",
    "network-policies",
    "pull-requests",
    "split",
    "take-out",
    "tcp",
    "traces",
    "udp",
];

/// Times that a page is begun at most: what some show depends on the pace of its commands.
const TIMES: usize = 3;

#[test]
fn every_page_has_a_scene() {
    let names = fs::read_dir(repository().join("docs/tasks")).unwrap().map(|entry| entry.unwrap().file_name());
    let pages: BTreeSet<_> =
        names.map(|name| name.to_str().unwrap().strip_suffix(".md").expect("a page").to_owned()).collect();
    let known = SCENES.iter().map(|scene| scene.page).chain(OTHERS).map(str::to_owned).collect();
    assert_eq!(pages, known, "a new page about a policy needs a line in SCENES");
    let index = page("docs/README.md");
    for page in pages {
        assert!(index.contains(&format!("(tasks/{page}.md)")), "docs/README.md does not list tasks/{page}.md");
    }
}

#[test]
fn pages_do_what_they_show() {
    if need_program("curl", "curl").is_none() {
        return;
    }
    let mut wrong = String::new();
    for scene in SCENES {
        let text = page(&format!("docs/tasks/{}.md", scene.page));
        let tries: Vec<_> = (0..TIMES).map_while(|_| run(scene, &text)).collect();
        if tries.len() == TIMES {
            wrong += &format!("docs/tasks/{}.md: {}\n", scene.page, tries[0]);
        }
    }
    assert!(wrong.is_empty(), "{wrong}");
}

/// Runs a page. Returns where it shows something else than happens.
fn run(scene: &Scene, text: &str) -> Option<String> {
    // The folder goes last: its objects go with it.
    let folder = tempfile::tempdir().unwrap();
    let (dev, pods) = serve(scene, text, folder.path());
    let terminal = tempfile::tempdir().unwrap();
    stand_for_the_pod(terminal.path(), &dev, scene);
    let commands: Vec<_> = blocks(text, "console").into_iter().flat_map(typed).collect();
    assert!(!commands.is_empty(), "docs/tasks/{}.md shows no command", scene.page);
    let mut wrong = String::new();
    for (command, shown) in &commands {
        let printed = type_in(terminal.path(), command);
        if comparable(&printed) != comparable(shown) {
            wrong += &format!("`{command}` prints\n{printed}\nand not, as the page shows,\n{shown}\n");
        }
    }
    if !wrong.is_empty() {
        return Some(wrong);
    }
    for (service, _, requests) in &pods {
        let acts = scene.services.iter().find(|(name, _)| name == service).map_or(&[][..], |(_, acts)| acts);
        if acts.iter().any(|acts| matches!(acts, [Unverified(_)])) {
            assert_eq!(requests.load(Ordering::Relaxed), 0, "docs/tasks/{}.md: {service} gets nothing", scene.page);
            continue;
        }
        let what = format!("docs/tasks/{}.md: a pod of {service} gets a request", scene.page);
        await_condition(&what, || (requests.load(Ordering::Relaxed) > 0).then_some(()));
    }
    counted(scene, text, &dev);
    None
}

/// The pods of a Service, and how many requests they got.
type Pods = (&'static str, Vec<Pod>, Arc<AtomicUsize>);

/// Serves the manifests of a page, with the pods of its scene. Returns those of Services that have any.
fn serve(scene: &Scene, text: &str, folder: &Path) -> (Dev, Vec<Pods>) {
    let manifests = blocks(text, "yaml");
    assert!(!manifests.is_empty(), "docs/tasks/{}.md has no manifest", scene.page);
    // The time at which the faults of the page end may be past for whoever reads it later.
    let mut all = manifests.join("\n---\n").replace("2030-01-31T12:00:00Z", "2999-01-31T12:00:00Z") + "\n";
    if let Some((before, rest)) = all.split_once("    -----BEGIN CERTIFICATE-----\n") {
        let (_, after) = rest.split_once("    -----END CERTIFICATE-----\n").expect("its end");
        let certificate: String = pod::AUTHORITY.pem().lines().map(|line| format!("    {line}\n")).collect();
        all = format!("{before}{certificate}{after}");
    }
    let mut pods = Vec::new();
    for (service, acts) in scene.services.iter().filter(|(_, acts)| !acts.is_empty()) {
        let requests = Arc::<AtomicUsize>::default();
        let start = |(number, acts): (u32, &&'static [Act])| Pod::start(format!("{service}-{number}"), acts, &requests);
        let own: Vec<_> = (1..).zip(*acts).map(start).collect();
        let addresses: Vec<_> = own.iter().map(|pod| pod.address).collect();
        all += &slices("shop", service, &addresses).replace("name: main", "name: http");
        pods.push((*service, own, requests));
    }
    save(folder, "all.yaml", &all);
    let dev = Dev::start(folder);
    assert!(dev.early.is_empty(), "docs/tasks/{}.md: {:#?}", scene.page, dev.early);
    (dev, pods)
}

/// A `curl` that finds mesh names, as in a pod, and a `maesh` that finds this mesh.
fn stand_for_the_pod(folder: &Path, dev: &Dev, scene: &Scene) {
    let at = dev.served_at(&format!("{}.shop.maesh", scene.services[0].0));
    assert_eq!(at.port(), 8080, "the pages use this port");
    let curl = program("curl").unwrap();
    let script = format!("#!/bin/sh\nexec {} --noproxy '*' --resolve '*:8080:{}' \"$@\"\n", curl.display(), at.ip());
    let maesh = format!("#!/bin/sh\nexec {} \"$@\" --admin {}\n", env!("CARGO_BIN_EXE_maesh"), dev.admin());
    for (name, script) in [("curl", script), ("maesh", maesh)] {
        fs::write(folder.join(name), script).unwrap();
        fs::set_permissions(folder.join(name), Permissions::from_mode(0o755)).unwrap();
    }
}

fn type_in(folder: &Path, command: &str) -> String {
    let path = format!("{}:{}", folder.display(), std::env::var("PATH").unwrap_or_default());
    let mut shell = Command::new("sh");
    let output =
        shell.args(["-c", command]).env("PATH", path).current_dir(folder).stdin(Stdio::null()).output().unwrap();
    lines(&String::from_utf8(output.stdout).unwrap())
}

/// What is the same each time: without the time, and without the number of an endpoint, which depends on its address.
fn comparable(text: &str) -> String {
    let is_number = |word: &str| word.len() == 16 && word.bytes().all(|byte| byte.is_ascii_hexdigit());
    let comparable = |line: &str| match line.split_once(STICKY_COOKIE).and_then(|(_, rest)| rest.get(1..17)) {
        Some(number) if is_number(number) => line.replace(number, "NUMBER"),
        _ if line.starts_with("date: ") => "date: TIME".to_owned(),
        _ => line.to_owned(),
    };
    text.lines().map(comparable).collect::<Vec<_>>().join("\n")
}

/// Every metric that the page names is there, with the labels that it names, and has counted something if it counts.
fn counted(scene: &Scene, text: &str, dev: &Dev) {
    let named: Vec<_> =
        spans(text).into_iter().filter(|code| code.starts_with("maesh_") && *code != STICKY_COOKIE).collect();
    assert!(!named.is_empty(), "docs/tasks/{}.md names no metric", scene.page);
    for code in named {
        let is_gauge = !["_total", "_bucket"].iter().any(|end| code.contains(end));
        let (name, labels) = code.trim_end_matches('}').split_once('{').unwrap_or((code, ""));
        await_condition(&format!("docs/tasks/{}.md: {code} counts", scene.page), || {
            let metrics = http::get(dev.admin(), "localhost", "/metrics").unwrap().body;
            let mut counts = metrics.lines().filter(|line| line.starts_with(name));
            counts
                .any(|line| {
                    let (series, value) = line.rsplit_once(' ').unwrap();
                    labels.split(',').all(|label| series.contains(label))
                        && (is_gauge || value.parse::<f64>().unwrap() > 0.0)
                })
                .then_some(())
        });
    }
}
