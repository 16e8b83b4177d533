//! What names answer by the values of the chart and by annotation, and that requests get through by each of them.

use std::net::IpAddr;

use maesh_test_support::until;
use maesh_testcluster::{MESH, chart};

use crate::shared::{Cluster, DNS, PATIENCE, Pod, VALUES, cluster};

/// What a name answers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Answer {
    /// The proxy on the caller's node.
    Proxy,
    /// One address for everybody, of a Service of the mesh's, behind which a proxy is.
    Service,
    /// The Service's own address: no proxy has a part in it.
    Plain,
}

#[test]
fn cluster_names_answer_as_the_values_and_annotations_say() {
    let Some(cluster) = cluster() else { return };
    cluster.without_mesh();
    let mut verb = "install";
    for (values, annotation, want) in [
        (&["addressing=service"][..], None, Answer::Service),
        (&["addressing=service"], Some("addressing=node"), Answer::Proxy),
        (&["addressing=auto"], None, Answer::Proxy),
        (&["addressing=auto", "coredns.tellsCaller=false"], None, Answer::Service),
        (&["addressing=auto", "coredns.tellsCaller=true"], None, Answer::Proxy),
        (&["bypass=true"], None, Answer::Plain),
        (&[], None, Answer::Proxy),
        // `node` is the chart's own value, so from here on nothing is rolled out again.
        (&["addressing=node"], Some("addressing=service"), Answer::Service),
        (&[], Some("bypass=true"), Answer::Plain),
    ] {
        chart(&cluster.kube, verb, &[&VALUES, values].concat()).unwrap();
        verb = "upgrade";
        cluster.mesh_settled();
        if let Some(annotation) = annotation {
            cluster.annotate(&format!("maesh.containo.us/{annotation}"));
        }
        for caller in cluster.pods("callers", "caller") {
            let mut seen = None;
            let right = until(PATIENCE, || {
                seen = cluster.answer(&caller);
                seen == Some(want)
            });
            assert!(right, "{values:?} {annotation:?}: {caller:?} got {seen:?} instead of {want:?}");
        }
        if let Some((name, _)) = annotation.and_then(|it| it.split_once('=')) {
            cluster.annotate(&format!("maesh.containo.us/{name}-"));
        }
    }
}

impl Cluster {
    fn annotate(&self, annotation: &str) {
        self.kube.run(&format!("--namespace=shop annotate service web --overwrite {annotation}")).unwrap();
    }

    /// What this caller is answered, if a request there gets through in that way.
    fn answer(&self, caller: &Pod) -> Option<Answer> {
        let ask = |what: &str| self.kube.ask("callers", &caller.name, &format!("{what} --server={DNS}")).ok();
        let told: Vec<IpAddr> = serde_json::from_value(ask("lookup web.shop.maesh")?["addresses"].clone()).ok()?;
        let [address] = told[..] else { return None };
        let answer = ask("get http://web.shop.maesh/ --patience=2")?;
        let source: IpAddr = answer["answer"]["source"].as_str()?.parse().ok()?;
        let proxies = self.mesh_pods("proxy");
        let is_proxy = |address: IpAddr, node: Option<&str>| {
            let at = |proxy: &Pod| proxy.address == address.to_string() && node.is_none_or(|node| node == proxy.node);
            proxies.iter().any(at)
        };
        let one_of = |namespace: &str| {
            let services = self.kube.list(&format!("services --namespace={namespace}")).unwrap_or_default();
            services.iter().any(|service| service["spec"]["clusterIP"] == address.to_string())
        };
        match () {
            () if is_proxy(address, Some(&caller.node)) && is_proxy(source, Some(&caller.node)) => Some(Answer::Proxy),
            () if one_of(MESH) && is_proxy(source, None) => Some(Answer::Service),
            () if one_of("shop") && source.to_string() == caller.address => Some(Answer::Plain),
            () => None,
        }
    }
}
