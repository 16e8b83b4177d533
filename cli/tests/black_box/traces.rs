//! Traces, as an OpenTelemetry collector receives them: its own program, with the OTLP receiver and a file as its output.
#![allow(clippy::unwrap_used, reason = "a test ends where something is missing")]

use std::{
    collections::BTreeMap,
    fs,
    io::{BufRead as _, BufReader, Write as _},
    net::{SocketAddr, TcpListener, TcpStream},
    path::PathBuf,
    process::{Child, Command, Stdio},
};

use maesh_test_support::need_tool;
use serde_json::{Value, json};

use crate::support::{
    Dev, PATIENCE, await_condition,
    backend::Backend,
    http,
    manifest::{save, service, slices},
    page::{blocks, page},
    served_at,
};

const TRACE: &str = "0af7651916cd43dd8448eb211c80319c";
const PARENT: &str = "b7ad6b7169203331";

/// A port of loopback that nobody has at this moment.
fn free() -> SocketAddr {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap()
}

/// A collector that runs.
struct Collector {
    child: Child,
    grpc: SocketAddr,
    http: SocketAddr,
    file: PathBuf,
    _folder: tempfile::TempDir,
}

impl Drop for Collector {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// One span as the collector wrote it down.
#[derive(Clone, Debug)]
struct Span {
    value: Value,
    attributes: BTreeMap<String, String>,
}

impl Span {
    fn text(&self, field: &str) -> &str {
        self.value[field].as_str().unwrap_or_default()
    }

    fn is_server(&self) -> bool {
        self.value["kind"] == 2
    }

    fn attribute(&self, name: &str) -> &str {
        self.attributes.get(name).map_or("", String::as_str)
    }
}

fn attributes(list: &Value) -> BTreeMap<String, String> {
    let one = |attribute: &Value| {
        let value = attribute["value"].as_object().unwrap().values().next().unwrap();
        let value = value.as_str().map_or_else(|| value.to_string(), str::to_owned);
        (attribute["key"].as_str().unwrap().to_owned(), value)
    };
    list.as_array().into_iter().flatten().map(one).collect()
}

impl Collector {
    /// Starts one; `None` where the program is missing.
    fn start() -> Option<Self> {
        let program = need_tool("otelcol")?;
        let folder = tempfile::tempdir().unwrap();
        let (grpc, http, file) = (free(), free(), folder.path().join("spans.json"));
        let config = format!(
            "receivers:\n  otlp:\n    protocols:\n      grpc: {{endpoint: '{grpc}'}}\n      http: {{endpoint: '{http}'}}\n\
             exporters:\n  file: {{path: '{}', flush_interval: 100ms}}\n\
             service:\n  telemetry: {{metrics: {{level: none}}}}\n  \
             pipelines: {{traces: {{receivers: [otlp], exporters: [file]}}}}\n",
            file.display()
        );
        let settings = folder.path().join("config.yaml");
        fs::write(&settings, config).unwrap();
        let mut command = Command::new(program);
        command.arg("--config").arg(format!("file:{}", settings.display())).stderr(Stdio::null()).stdout(Stdio::null());
        let child = command.spawn().unwrap();
        for at in [grpc, http] {
            await_condition("the collector listens", || TcpStream::connect(at).ok());
        }
        Some(Self { child, grpc, http, file, _folder: folder })
    }

    /// The spans of the trace, once there are so many.
    fn spans(&self, trace: &str, count: usize) -> Vec<Span> {
        await_condition(&format!("{count} spans of {trace} arrive"), || {
            let text = fs::read_to_string(&self.file).unwrap_or_default();
            let batches = text.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
            let resources: Vec<Value> =
                batches.flat_map(|batch| batch["resourceSpans"].as_array().unwrap().clone()).collect();
            let mut spans = Vec::new();
            for resource in &resources {
                let of = attributes(&resource["resource"]["attributes"]);
                assert_eq!(of.get("service.name").map(String::as_str), Some("maesh-proxy"), "{of:?}");
                for scope in resource["scopeSpans"].as_array().unwrap() {
                    spans.extend(scope["spans"].as_array().unwrap().iter().cloned());
                }
            }
            let read = |value: Value| Span { attributes: attributes(&value["attributes"]), value };
            let found: Vec<Span> =
                spans.into_iter().map(read).filter(|span| trace.is_empty() || span.text("traceId") == trace).collect();
            (found.len() >= count).then_some(found)
        })
    }
}

/// An endpoint that answers its first requests with 503 and then with 200, and says which fields it was sent.
fn flaky(failures: usize) -> (SocketAddr, std::sync::mpsc::Receiver<Vec<String>>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let at = listener.local_addr().unwrap();
    let (seen, heads) = std::sync::mpsc::channel();
    std::thread::spawn(move || {
        for (number, stream) in listener.incoming().map_while(Result::ok).enumerate() {
            let mut reader = BufReader::new(stream);
            let mut head = Vec::new();
            loop {
                let mut line = String::new();
                if reader.read_line(&mut line).unwrap_or(0) == 0 || line == "\r\n" {
                    break;
                }
                head.push(line.trim_end().to_owned());
            }
            let status = if number < failures { 503 } else { 200 };
            let answer = format!("HTTP/1.1 {status} So\r\nContent-Length: 2\r\nConnection: close\r\n\r\nok");
            let _ = reader.get_mut().write_all(answer.as_bytes());
            if seen.send(head).is_err() {
                return;
            }
        }
    });
    (at, heads)
}

fn folder(annotations: &str, endpoint: SocketAddr) -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    let manifest = service("shop", "web", 8080, annotations) + &slices("shop", "web", &[endpoint]);
    save(folder.path(), "web.yaml", &manifest);
    folder
}

fn ask(dev: &Dev, fields: &str) -> http::Answer {
    let at = served_at(dev.entry("web.shop.maesh"));
    let request = format!("GET /cart?secret=1 HTTP/1.1\r\nHost: web.shop.maesh\r\nUser-Agent: test\r\n{fields}\r\n");
    http::Client::connect(at).unwrap().send(request.as_bytes()).unwrap()
}

fn field<'a>(head: &'a [String], name: &str) -> Option<&'a str> {
    let found = |line: &'a String| line.split_once(": ").filter(|(own, _)| own.eq_ignore_ascii_case(name));
    head.iter().find_map(found).map(|(_, value)| value)
}

/// A request that was tried twice makes three spans, and each endpoint is told the span of its own attempt.
fn a_retried_request(protocol: &str) {
    let Some(collector) = Collector::start() else { return };
    let (endpoint, heads) = flaky(1);
    let folder = folder("maesh.containo.us/retry-attempts: '2', maesh.containo.us/retry-on: 5xx", endpoint);
    let url = match protocol {
        "grpc" => format!("http://{}", collector.grpc),
        _ => format!("http://{}/", collector.http),
    };
    let flags = ["--trace-endpoint", &url, "--trace-protocol", protocol, "--trace-sample", "0%"];
    let dev = Dev::start_with(folder.path(), &flags);
    let fields = format!("traceparent: 00-{TRACE}-{PARENT}-01\r\ntracestate: vendor=1\r\n");
    assert_eq!(ask(&dev, &fields).status, 200);
    let spans = collector.spans(TRACE, 3);
    assert_eq!(spans.len(), 3, "{spans:#?}");
    let server = spans.iter().find(|span| span.is_server()).unwrap();
    assert_eq!((server.text("parentSpanId"), server.text("name")), (PARENT, "GET"), "{server:#?}");
    for (name, want) in [
        ("http.request.method", "GET"),
        ("http.response.status_code", "200"),
        ("url.scheme", "http"),
        ("url.path", "/cart"),
        ("server.address", "web.shop.maesh"),
        ("server.port", "8080"),
        ("client.address", "127.0.0.1"),
        ("network.protocol.version", "1.1"),
        ("user_agent.original", "test"),
        ("maesh.service", "shop/web"),
        ("error.type", ""),
    ] {
        assert_eq!(server.attribute(name), want, "{name}: {server:#?}");
    }
    assert!(server.value["status"].as_object().is_none_or(|status| status.is_empty()), "{server:#?}");
    for (status, resent, error) in [("503", "", "503"), ("200", "1", "")] {
        let of_status = |span: &&Span| !span.is_server() && span.attribute("http.response.status_code") == status;
        let client = spans.iter().find(of_status).unwrap();
        assert_eq!(client.text("parentSpanId"), server.text("spanId"), "{client:#?}");
        assert_eq!(client.attribute("http.request.resend_count"), resent, "{client:#?}");
        assert_eq!(client.attribute("error.type"), error, "{client:#?}");
        assert_eq!(client.attribute("url.full"), format!("http://{endpoint}/cart"), "{client:#?}");
        let head = heads.recv_timeout(PATIENCE).unwrap();
        let told = format!("00-{TRACE}-{}-01", client.text("spanId"));
        assert_eq!(field(&head, "traceparent"), Some(&*told), "{head:?}");
        assert_eq!(field(&head, "tracestate"), Some("vendor=1"), "{head:?}");
    }
    let metrics = await_condition("the spans are counted", || {
        let metrics = http::get(dev.admin(), "localhost", "/metrics").unwrap().body;
        metrics.contains("maesh_proxy_spans_total{outcome=\"exported\"} 3").then_some(metrics)
    });
    let exemplar = format!("# {{trace_id=\"{TRACE}\"}} ");
    let of_trace = metrics.lines().filter(|line| line.contains(&exemplar)).collect::<Vec<_>>();
    let [bucket] = of_trace[..] else { panic!("{of_trace:#?}") };
    assert!(bucket.starts_with("maesh_http_traced_request_duration_seconds_bucket{le="), "{bucket}");
}

#[test]
fn a_retried_request_over_grpc() {
    a_retried_request("grpc");
}

#[test]
fn a_retried_request_over_http() {
    a_retried_request("http");
}

/// What the page shows of a span: without times, with the numbers of spans in the place of their ids, and without ports.
fn as_on_the_page(spans: &[Value]) -> Vec<Value> {
    let id = |span: &Value, field: &str| span[field].as_str().unwrap_or_default().to_owned();
    let ids: Vec<String> = spans.iter().map(|span| id(span, "spanId")).collect();
    let shown = |span: &Value| {
        let mut attributes = span["attributes"].clone();
        let url = attributes["url.full"].as_str().map(|url| url.rsplit_once(':').unwrap().0.to_owned());
        if let Some(url) = url {
            attributes["url.full"] = url.into();
        }
        let parent = ids.iter().position(|own| *own == id(span, "parentSpanId"));
        json!({"parent": parent, "kind": span["kind"], "name": span["name"], "status": span["status"], "attributes": attributes})
    };
    spans.iter().map(shown).collect()
}

#[test]
fn the_page_shows_what_a_collector_writes() {
    let Some(collector) = Collector::start() else { return };
    let (endpoint, _heads) = flaky(1);
    let folder = folder("maesh.containo.us/retry-attempts: '3', maesh.containo.us/retry-on: gateway-error", endpoint);
    let flags = ["--trace-endpoint", &format!("http://{}", collector.grpc), "--trace-sample", "100%"];
    let dev = Dev::start_with(folder.path(), &flags);
    assert_eq!(ask(&dev, "").status, 200);
    let mut spans: Vec<Value> = collector
        .spans("", 3)
        .into_iter()
        .map(|span| {
            let shown = ["url", "status", "resend", "error", "maesh"];
            let attributes: BTreeMap<_, _> =
                span.attributes.into_iter().filter(|(name, _)| shown.iter().any(|part| name.contains(part))).collect();
            let mut value = span.value;
            value["attributes"] = json!(attributes);
            value
        })
        .collect();
    spans.sort_by_key(|span| span["startTimeUnixNano"].as_str().unwrap().to_owned());
    let text = page("docs/tasks/traces.md");
    let block = blocks(&text, "console").into_iter().find(|block| block.starts_with("$ jq ")).expect("a block of jq");
    let (_, printed) = block.split_once("spans.json\n").expect("what it prints");
    let on_page: Vec<Value> =
        serde_json::Deserializer::from_str(printed).into_iter().collect::<Result<_, _>>().expect("JSON");
    assert_eq!(as_on_the_page(&on_page), as_on_the_page(&spans));
}

#[test]
fn b3_is_continued_and_new_traces_are_sampled_in_the_fields_that_were_asked_for() {
    let Some(collector) = Collector::start() else { return };
    let (endpoint, heads) = flaky(0);
    let folder = folder("", endpoint);
    let url = format!("http://{}", collector.grpc);
    let flags = ["--trace-endpoint", &url, "--trace-sample", "100%", "--trace-propagation", "tracecontext,b3multi"];
    let mut dev = Dev::start_with(folder.path(), &flags);
    // Not recorded, by the word of the caller: passed on as it came.
    ask(&dev, &format!("traceparent: 00-{TRACE}-{PARENT}-00\r\n"));
    let head = heads.recv_timeout(PATIENCE).unwrap();
    assert_eq!(field(&head, "traceparent"), Some(&*format!("00-{TRACE}-{PARENT}-00")), "{head:?}");
    ask(&dev, &format!("b3: {TRACE}-{PARENT}-1\r\n"));
    let head = heads.recv_timeout(PATIENCE).unwrap();
    let spans = collector.spans(TRACE, 2);
    let client = spans.iter().find(|span| !span.is_server()).unwrap();
    let told = format!("{TRACE}-{}-1-{}", client.text("spanId"), client.text("parentSpanId"));
    assert_eq!((field(&head, "b3"), field(&head, "traceparent")), (Some(&*told), None), "{head:?}");
    // A new one.
    ask(&dev, "");
    let head = heads.recv_timeout(PATIENCE).unwrap();
    let trace = field(&head, "x-b3-traceid").unwrap().to_owned();
    let told = format!("00-{trace}-{}-01", field(&head, "x-b3-spanid").unwrap());
    assert_eq!(field(&head, "traceparent"), Some(&*told), "{head:?}");
    // What has not been sent yet is sent when the process ends.
    assert!(dev.terminate().success());
    let spans = collector.spans(&trace, 2);
    assert!(spans.iter().any(|span| span.is_server() && span.text("parentSpanId").is_empty()), "{spans:#?}");
    let all = collector.spans("", 4);
    assert_eq!(all.len(), 4, "the one that was not recorded has none: {all:#?}");
}

/// Neither a receiver that is away nor one that takes connections and says nothing is felt by a request.
#[test]
fn a_receiver_that_is_away_or_silent_does_not_hurt() {
    let silent = TcpListener::bind("127.0.0.1:0").unwrap();
    let web = Backend::http("web");
    let folder = folder("", web.address);
    for (case, at, protocol) in [
        ("away", free(), "grpc"),
        ("away", free(), "http"),
        ("silent", silent.local_addr().unwrap(), "grpc"),
        ("silent", silent.local_addr().unwrap(), "http"),
    ] {
        let url = format!("http://{at}");
        let flags = ["--trace-endpoint", &url, "--trace-protocol", protocol, "--trace-sample", "100%"];
        let mut dev = Dev::start_with(folder.path(), &flags);
        let mut client = http::Client::connect(served_at(dev.entry("web.shop.maesh"))).unwrap();
        for _ in 0..3_000 {
            assert_eq!(client.get("web.shop.maesh", "/").unwrap().status, 200, "{case}, {protocol}");
        }
        let metrics = http::get(dev.admin(), "localhost", "/metrics").unwrap().body;
        let dropped =
            metrics.lines().find_map(|line| line.strip_prefix("maesh_proxy_spans_total{outcome=\"queue_full\"} "));
        assert!(dropped.is_some_and(|count| count.parse::<u64>().unwrap() > 0), "{case}, {protocol}: {metrics}");
        drop(client);
        assert!(dev.terminate().success(), "{case}, {protocol}");
    }
}

#[test]
fn without_the_flag_fields_pass_untouched() {
    let (endpoint, heads) = flaky(0);
    let folder = folder("", endpoint);
    let dev = Dev::start(folder.path());
    ask(&dev, &format!("traceparent: 00-{TRACE}-{PARENT}-01\r\n"));
    let head = heads.recv_timeout(PATIENCE).unwrap();
    assert_eq!(field(&head, "traceparent"), Some(&*format!("00-{TRACE}-{PARENT}-01")), "{head:?}");
    ask(&dev, "");
    let head = heads.recv_timeout(PATIENCE).unwrap();
    assert_eq!(field(&head, "traceparent"), None, "{head:?}");
}
