//! How much is compiled for one change, counted in units, and what is left of what is gone.

use super::*;

/// How many Services there are, in two namespaces by turns.
const SERVICES: usize = 200;

/// Compiles, and says which units ran.
fn runs(compiler: &mut Compiler) -> Vec<String> {
    let now = Instant::now();
    let mut ran = Vec::new();
    while let Some(unit) = compiler.graph.pop() {
        compiler.run(&unit, now);
        ran.push(unit_name(&unit));
    }
    compiler.out.take();
    ran
}

pub(super) fn unit_name(unit: &Unit) -> String {
    let text = format!("{unit:?}");
    text.split_once('(').map_or(&*text, |(kind, _)| kind).to_owned()
}

fn apply(compiler: &mut Compiler, yaml: &str) -> Vec<String> {
    objects(yaml).into_iter().for_each(|object| compiler.take(Event::Apply(object)));
    runs(compiler)
}

fn namespace_of(i: usize) -> &'static str {
    ["shop", "bank"][i % 2]
}

fn address_of(i: usize) -> String {
    format!("10.1.{}.{}", i / 250, i % 250 + 1)
}

fn service_of(i: usize, port: usize) -> String {
    let namespace = namespace_of(i);
    format!(
        "kind: Service\nmetadata: {{namespace: {namespace}, name: s{i}}}\nspec: {{clusterIP: 10.0.0.1, ports: [{{port: {port}}}]}}\n---\n"
    )
}

fn slice_of(i: usize, ready: bool) -> String {
    let (namespace, address) = (namespace_of(i), address_of(i));
    format!(
        "kind: EndpointSlice\nmetadata: {{namespace: {namespace}, name: s{i}-x, labels: {{kubernetes.io/service-name: s{i}}}}}\n\
         endpoints: [{{addresses: [{address}], conditions: {{ready: {ready}}}}}]\nports: [{{port: 80}}]\n---\n"
    )
}

fn namespace(name: &str, traffic_type: &str) -> String {
    format!(
        "kind: Namespace\nmetadata: {{name: {name}, annotations: {{maesh.containo.us/traffic-type: {traffic_type}}}}}\n---\n"
    )
}

fn proxy_pod(address: &str) -> String {
    format!("kind: Pod\nmetadata: {{namespace: maesh, name: p}}\nstatus: {{podIP: {address}, phase: Running}}\n---\n")
}

#[test]
fn one_change_runs_what_depends_on_it() {
    let mut compiler = Compiler::new(Config::default());
    compiler.complete_proxies();
    compiler.proxies(vec![proxy(&["shared/80/tcp"])]);
    let all: String = (0..SERVICES).map(|i| service_of(i, 80) + &slice_of(i, true)).collect();
    apply(&mut compiler, &all);

    assert_eq!(apply(&mut compiler, &slice_of(7, false)), ["Endpoints", "Slice"], "a slice");
    assert_eq!(apply(&mut compiler, &slice_of(7, false)), [""; 0], "the same slice");
    let pod = "kind: Pod\nmetadata: {namespace: bank, name: x}\nstatus: {podIP: 10.1.0.8, phase: Running}\n---\n";
    assert_eq!(
        apply(&mut compiler, pod),
        ["Endpoints", "Workload", "Slice"],
        "a pod: whose endpoint may its address be?"
    );
    assert_eq!(
        apply(&mut compiler, &service_of(7, 81)),
        ["Draft", "Limit", "Plan", "SharedPorts", "Listeners", "Endpoints", "Listener", "Listener", "Name", "Slice"],
        "another port of a Service"
    );
    let of_namespace = apply(&mut compiler, &namespace("shop", "http"));
    let drafts = of_namespace.iter().filter(|unit| *unit == "Draft").count();
    assert_eq!((drafts, of_namespace.len()), (SERVICES / 2, SERVICES + 1), "the plans are as before: {of_namespace:?}");
    assert_eq!(apply(&mut compiler, &namespace("none", "http")), ["Namespace"], "a namespace without Services");

    // The mesh's own addresses are facts in classes: a few Services may share a class.
    let of_proxy = apply(&mut compiler, &proxy_pod(&address_of(9)));
    assert!(of_proxy.contains(&"Endpoints".to_owned()), "its Service is compiled: {of_proxy:?}");
    assert!(of_proxy.len() < 20, "no look at all Services: {of_proxy:?}");
}

#[test]
fn what_is_gone_leaves_no_edges() {
    for config in [Config::default(), dev()] {
        let mut compiler = Compiler::new(config);
        compiler.complete_proxies();
        runs(&mut compiler);
        let empty = compiler.graph.size();
        for round in 0..3 {
            let text: String = (0..SERVICES).map(|i| service_of(i + round, 80) + &slice_of(i, true)).collect();
            let text = text + &namespace("shop", "tcp") + &proxy_pod(&address_of(1));
            let objects = objects(&text);
            let ids: Vec<_> = objects.iter().map(Object::id).collect();
            objects.into_iter().for_each(|object| compiler.take(Event::Apply(object)));
            runs(&mut compiler);
            let (_, units, edges) = compiler.graph.size();
            assert!(units > SERVICES && edges < SERVICES * 12, "{units} units, {edges} edges");
            ids.into_iter().for_each(|id| compiler.take(Event::Delete(id)));
            runs(&mut compiler);
            assert_eq!(compiler.graph.size(), empty, "round {round}");
        }
    }
}
