//! The metrics of a mesh that has carried something: the page of the reference that lists them,
//! `docs/reference/metrics.md`, and what Prometheus's own checks say of them.
#![allow(clippy::unwrap_used, reason = "a test ends where something is missing")]

use std::{
    collections::{BTreeMap, BTreeSet},
    io::{Read as _, Write as _},
    net::{SocketAddr, TcpListener, TcpStream},
    path::Path,
    process::{Command, Output, Stdio},
};

use crate::support::{
    Dev, PATIENCE, await_condition,
    backend::Backend,
    echo, http,
    local::{Part, Roles},
    manifest::{save, service, slices},
    resolver::ask,
    served_at,
};
use hickory_proto::rr::RecordType;
use maesh_test_support::{
    generated::{NOTE, is_current},
    need_tool,
};
use prometheus_client::encoding::prometheus_protobuf::prometheus_data_model::{Histogram, MetricFamily};
use prost::Message as _;

/// A family of metrics.
#[derive(Default)]
struct Family {
    kind: String,
    help: String,
    labels: BTreeSet<String>,
}

/// Reads what `/metrics` says.
fn families(text: &str) -> BTreeMap<String, Family> {
    let mut families = BTreeMap::<String, Family>::new();
    let mut of_sample = String::new();
    for line in text.lines() {
        if let Some((name, help)) = line.strip_prefix("# HELP ").and_then(|rest| rest.split_once(' ')) {
            families.entry(name.to_owned()).or_default().help = help.trim_end_matches('.').to_owned();
            of_sample = name.to_owned();
        } else if let Some((name, kind)) = line.strip_prefix("# TYPE ").and_then(|rest| rest.split_once(' ')) {
            families.entry(name.to_owned()).or_default().kind = kind.to_owned();
            of_sample = name.to_owned();
        } else if let Some((_, labels)) = line.split_once('{') {
            let labels = labels.split_once('}').map_or("", |(labels, _)| labels);
            let names = labels.split("\",").filter_map(|label| label.split_once('=')).map(|(name, _)| name.to_owned());
            families.get_mut(&of_sample).unwrap().labels.extend(names.filter(|name| name != "le"));
        }
    }
    families
}

/// Which role has a metric, by its name.
fn role_of(name: &str) -> &'static str {
    match name {
        name if name.starts_with("maesh_dns_") => "dns",
        name if name.starts_with("maesh_controller_") => "controller",
        "maesh_build" => "every role",
        _ => "proxy",
    }
}

/// Metrics of policies, which have labels once the policy has acted.
const POLICIES: [&str; 12] = [
    "proxy_retries_total",
    "proxy_retry_budget_exhausted_total",
    "proxy_hedges_total",
    "proxy_hedges_won_total",
    "proxy_mirrored_total",
    "proxy_faults_total",
    "proxy_ejections_total",
    "proxy_concurrency_refused_total",
    "proxy_breaker_transitions_total",
    "proxy_breaker_state",
    "proxy_requests_waiting",
    "proxy_endpoints",
];

/// Services whose policies act at the first requests.
struct Policies {
    _hangs: Backend,
}

impl Policies {
    fn new(folder: &Path, web: SocketAddr) -> Self {
        let hangs = Backend::http_slow("hangs");
        let gone = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        for (name, annotations, endpoints) in [
            (
                "gone",
                "retry-attempts: '3', retry-on: connect-failure, retry-budget: 0%, eject: '1', eject-max: 100%, \
                 circuit-breaker-expression: NetworkErrorRatio() > 0.9",
                vec![gone],
            ),
            (
                "slow",
                "hedge-after: 1ms, balance: round-robin, mirror: web, timeout-request: 5s",
                vec![hangs.address, web],
            ),
            ("small", "concurrency: '1,1', timeout-request: 500ms", vec![hangs.address]),
            ("faulty", "fault-abort: '503', fault-until: 2999-01-01T00:00:00Z", vec![web]),
            ("untrusted", "scheme: https", vec![web]),
        ] {
            let annotations = annotations.split(", ").map(|one| format!("maesh.containo.us/{one}"));
            let annotations: Vec<String> = annotations.collect();
            let manifest = service("shop", name, 8080, &annotations.join(", ")) + &slices("shop", name, &endpoints);
            save(folder, &format!("{name}.yaml"), &manifest.replace("10.96.0.77", "None"));
        }
        Self { _hangs: hangs }
    }

    /// Makes requests until each policy had a reason to act.
    fn use_them(&self, at: SocketAddr) {
        for name in ["gone", "slow", "faulty", "untrusted"] {
            http::get(at, &format!("{name}.shop.maesh"), "/").unwrap();
        }
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| http::get(at, "small.shop.maesh", "/").unwrap());
            }
        });
    }
}

/// How a new version does, of which callers only know the name of the old one.
#[test]
fn attempts_are_counted_by_the_backend_that_got_them() {
    let folder = tempfile::tempdir().unwrap();
    let (web, next) = (Backend::http("web"), Backend::http("next"));
    let routes = "maesh.containo.us/routes: 'PathPrefix(`/next`) => web-next'";
    save(folder.path(), "web.yaml", &(service("shop", "web", 8080, routes) + &slices("shop", "web", &[web.address])));
    let of_next = service("shop", "web-next", 8080, "").replace("10.96.0.77", "10.96.0.78");
    save(folder.path(), "next.yaml", &(of_next + &slices("shop", "web-next", &[next.address])));
    let dev = Dev::start(folder.path());
    let at = served_at(dev.entry("web.shop.maesh"));
    let ask = |path| http::get(at, "web.shop.maesh", path).unwrap().status;
    assert_eq!([ask("/"), ask("/next"), ask("/next/status/503"), ask("/next/status/404")], [200, 200, 503, 404]);
    drop(next);
    assert_eq!(ask("/next"), 502);
    let text = http::get(dev.admin(), "localhost", "/metrics").unwrap().body;
    let count = |service: &str, outcome: &str| {
        let of = |line: &&str| {
            let labels = [format!("service=\"{service}\""), format!("outcome=\"{outcome}\"")];
            line.starts_with("maesh_proxy_backend_attempts_total{") && labels.iter().all(|label| line.contains(label))
        };
        text.lines().find(of).map_or(0, |line| line.rsplit(' ').next().unwrap().parse::<u64>().unwrap())
    };
    let of = |service: &str| ["2xx", "4xx", "5xx"].map(|outcome| count(service, outcome));
    assert_eq!((of("web"), count("web", "failed")), ([1, 0, 0], 0));
    assert_eq!(of("web-next"), [1, 1, 1]);
    // One for each try.
    assert!(count("web-next", "failed") >= 2, "{text}");
}

#[test]
fn reference_page_is_current() {
    let folder = tempfile::tempdir().unwrap();
    let (web, db) = (Backend::http("web"), Backend::echo());
    save(folder.path(), "web.yaml", &(service("shop", "web", 8080, "") + &slices("shop", "web", &[web.address])));
    let tcp = service("shop", "db", 5432, "maesh.containo.us/traffic-type: tcp");
    save(folder.path(), "db.yaml", &(tcp + &slices("shop", "db", &[db.address])));
    let nobody = service("shop", "nobody", 5433, "maesh.containo.us/traffic-type: tcp");
    save(folder.path(), "nobody.yaml", &nobody);
    let datagrams = "apiVersion: v1\nkind: Service\nmetadata: {name: log, namespace: shop}\n\
                     spec: {clusterIP: 10.96.0.78, ports: [{name: main, port: 5514, protocol: UDP}]}\n";
    let slice = slices("shop", "log", &[db.address]).replace("- name: main\n", "- name: main\n  protocol: UDP\n");
    save(folder.path(), "log.yaml", &(datagrams.to_owned() + &slice));
    save(folder.path(), "lost.yaml", &datagrams.replace("name: log,", "name: lost,"));
    // Nobody receives the traces; they are counted all the same.
    let flags = ["--trace-endpoint", "http://127.0.0.1:9", "--trace-sample", "100%", "--acl-dry-run"];
    let dev = Dev::start_with(folder.path(), &flags);
    // Labels are known once something was counted.
    let at = served_at(dev.entry("web.shop.maesh"));
    assert_eq!(http::get(at, "web.shop.maesh", "/").unwrap().status, 200);
    assert_eq!(http::get(at, "unknown.shop.maesh", "/").unwrap().status, 404);
    assert_eq!(echo(served_at(dev.entry("db.shop.maesh")), b"hello"), b"hello");
    let policies = Policies::new(folder.path(), web.address);
    await_condition("every Service is there", || {
        ["gone", "slow", "small", "faulty", "untrusted"]
            .iter()
            .all(|name| http::get(at, &format!("{name}.shop.maesh"), "/").unwrap().status != 404)
            .then_some(())
    });
    await_condition("every policy has acted", || {
        policies.use_them(at);
        let text = http::get(dev.admin(), "localhost", "/metrics").unwrap().body;
        POLICIES.iter().all(|name| text.contains(&format!("\nmaesh_{name}{{"))).then_some(())
    });
    // It may be reset before this side has seen that it is there.
    let _refused = TcpStream::connect(served_at(dev.entry("nobody.shop.maesh")));
    for name in ["log.shop.maesh", "lost.shop.maesh"] {
        let caller = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
        caller.send_to(b"hello", served_at(dev.entry(name))).unwrap();
    }
    let wanted = [
        "http_requests_total{",
        "http_traced_request_duration_seconds_bucket{",
        "http_refused_total{",
        "proxy_access_dry_run_denials_total{",
        "proxy_tls_failures_total{",
        "tcp_connections_total{",
        "tcp_refused_total{",
        "udp_flows_total{",
        "udp_dropped_datagrams_total{",
    ];
    let text = await_condition("everything is counted", || {
        let text = http::get(dev.admin(), "localhost", "/metrics").unwrap().body;
        wanted.iter().all(|name| text.contains(name)).then_some(text)
    });
    let families = families(&text);

    let mut page = format!(
        "{NOTE}\n# Metrics\n\nEvery role serves its metrics at `/metrics` of its admin port, in the OpenMetrics text format, or \
         as messages with native histograms where a scrape asks for them: \
         controller 5381, dns 5382, proxy 5383. `maesh dev` serves all of them at 5380. Which metric answers which \
         question is in [Troubleshooting](../operations.md#metrics).\n"
    );
    for (role, note) in [
        ("every role", ""),
        (
            "proxy",
            "Labels `namespace`, `service` and `port` are those of the Service that was called. Those of ejections, circuit \
             breakers, `concurrency`, endpoints and requests in flight are of the Service that the request was sent to, which is \
             another one where a route, split or fallback leads there. A series appears with the first event that it counts.",
        ),
        ("dns", ""),
        ("controller", ""),
    ] {
        page += &format!("\n## {role}\n\n");
        if !note.is_empty() {
            page += &format!("{note}\n\n");
        }
        page += "| metric | type | labels | meaning |\n|---|---|---|---|\n";
        for (name, Family { kind, help, labels }) in families.iter().filter(|(name, _)| role_of(name) == role) {
            assert!(name.starts_with("maesh_"), "{name} lacks the mesh's prefix");
            let suffix = match kind.as_str() {
                "counter" => "_total",
                "info" => "_info",
                _ => "",
            };
            let labels: Vec<String> = labels.iter().map(|label| format!("`{label}`")).collect();
            page += &format!("| `{name}{suffix}` | {kind} | {} | {help} |\n", labels.join(", "));
        }
    }
    is_current("docs/reference/metrics.md", &page, "cargo xtask docs");
}

/// The older text format, which `promtool check metrics` reads. In it a counter's name ends in `_total` everywhere, and what
/// only informs is a gauge whose name ends in `_info`.
fn older_format(text: &str) -> String {
    let of_kind = |kind: &str| -> BTreeSet<&str> {
        text.lines().filter_map(|line| line.strip_prefix("# TYPE ")?.strip_suffix(kind)).collect()
    };
    let (counters, infos) = (of_kind(" counter"), of_kind(" info"));
    let lines = text.lines().filter(|line| *line != "# EOF").map(|line| {
        let words: Vec<&str> = line.splitn(4, ' ').collect();
        match words[..] {
            ["#", what, name, rest] if counters.contains(name) => format!("# {what} {name}_total {rest}\n"),
            ["#", "TYPE", name, _] if infos.contains(name) => format!("# TYPE {name}_info gauge\n"),
            ["#", what, name, rest] if infos.contains(name) => format!("# {what} {name}_info {rest}\n"),
            _ => format!("{line}\n"),
        }
    });
    lines.collect()
}

#[test]
fn prometheus_finds_nothing_wrong_with_the_metrics_of_any_role() {
    let Some(promtool) = need_tool("promtool") else { return };
    let check = |text: &str| -> Output {
        let mut check = Command::new(&promtool);
        let check =
            check.args(["check", "metrics"]).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut check = check.spawn().unwrap();
        check.stdin.take().unwrap().write_all(text.as_bytes()).unwrap();
        check.wait_with_output().unwrap()
    };
    let folder = tempfile::tempdir().unwrap();
    let web = Backend::http("web");
    save(folder.path(), "web.yaml", &(service("shop", "web", 8080, "") + &slices("shop", "web", &[web.address])));
    let roles = Roles::start(folder.path());
    let proxy = roles.address(Part::Proxy1);
    await_condition("a request is served", || {
        http::get((proxy, 8080).into(), "web.shop.maesh", "/").is_ok_and(|answer| answer.status == 200).then_some(())
    });
    ask(roles.place(1, 1), roles.dns(), "web.shop.maesh", RecordType::A, PATIENCE).unwrap();
    for (part, counted) in [
        (Part::Controller, "maesh_controller_pushes_total"),
        (Part::Dns, "maesh_dns_queries_total{"),
        (Part::Proxy1, "maesh_http_requests_total{"),
    ] {
        let text = await_condition("something is counted", || {
            let text = http::get(roles.admin(part), "localhost", "/metrics").ok()?.body;
            text.contains(counted).then_some(text)
        });
        assert!(text.ends_with("# EOF\n"), "{part:?}: OpenMetrics ends with that line");
        let checked = check(&older_format(&text));
        let said = String::from_utf8_lossy(&checked.stderr);
        assert!(checked.status.success() && said.is_empty(), "{part:?}: {said}\n{text}");
        let without_help: Vec<&str> = text.lines().filter(|line| !line.starts_with("# HELP")).collect();
        assert!(!check(&older_format(&without_help.join("\n"))).status.success(), "a metric without help passes");
    }
}

/// What Prometheus sends where it scrapes native histograms.
const NATIVE: &str = "application/vnd.google.protobuf;proto=io.prometheus.client.MetricFamily;encoding=delimited;q=0.6,\
     application/openmetrics-text;version=1.0.0;escaping=allow-utf-8;q=0.5,*/*;q=0.1";

/// The metrics as messages.
fn messages(admin: SocketAddr) -> Vec<MetricFamily> {
    let mut stream = TcpStream::connect(admin).unwrap();
    write!(stream, "GET /metrics HTTP/1.1\r\nHost: localhost\r\nAccept: {NATIVE}\r\n\r\n").unwrap();
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).unwrap();
    let end = answer.windows(4).position(|four| four == b"\r\n\r\n").unwrap();
    let head = String::from_utf8_lossy(&answer[..end]).to_ascii_lowercase();
    assert!(head.contains("content-type: application/vnd.google.protobuf;"), "{head}");
    let mut rest = &answer[end + 4..];
    let mut families = Vec::new();
    while !rest.is_empty() {
        families.push(MetricFamily::decode_length_delimited(&mut rest).unwrap());
    }
    families
}

#[test]
fn durations_have_native_buckets_for_who_asks() {
    let folder = tempfile::tempdir().unwrap();
    let web = Backend::http("web");
    save(folder.path(), "web.yaml", &(service("shop", "web", 8080, "") + &slices("shop", "web", &[web.address])));
    let dev = Dev::start(folder.path());
    let mut client = http::Client::connect(served_at(dev.entry("web.shop.maesh"))).unwrap();
    for _ in 0..20 {
        assert_eq!(client.get("web.shop.maesh", "/").unwrap().status, 200);
    }
    let histogram: Histogram = await_condition("all requests are counted", || {
        let families = messages(dev.admin());
        let durations = families.into_iter().find(|family| family.name == "maesh_http_request_duration_seconds")?;
        let histogram = durations.metric.into_iter().find_map(|metric| metric.histogram)?;
        (histogram.sample_count == 20).then_some(histogram)
    });
    assert_eq!((histogram.schema, histogram.bucket.len()), (2, 16), "{histogram:?}");
    let (mut in_bucket, mut counted) = (0, histogram.zero_count.cast_signed());
    for delta in &histogram.positive_delta {
        in_bucket += delta;
        counted += in_bucket;
    }
    assert_eq!(counted, 20, "{histogram:?}");
    let buckets: u32 = histogram.positive_span.iter().map(|span| span.length).sum();
    assert_eq!(buckets as usize, histogram.positive_delta.len(), "{histogram:?}");
}
