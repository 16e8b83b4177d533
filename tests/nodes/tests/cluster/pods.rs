//! The cluster itself: what tests of the mesh on it rely on.

use std::collections::BTreeSet;

use maesh_test_support::until;
use maesh_testcluster::exec;

use crate::shared::{PATIENCE, our_cluster};

#[test]
fn cluster_pods_reach_a_service_on_every_node_by_its_name() {
    let Some(cluster) = our_cluster() else { return };
    for name in ["caller", "caller-glibc"] {
        let callers = cluster.pods("callers", name);
        assert_eq!(callers.iter().map(|pod| pod.node.as_str()).collect::<Vec<_>>(), ["n1", "n2", "n3"]);
        for caller in &callers {
            let mut nodes = BTreeSet::new();
            let mut last = String::new();
            // kube-proxy chooses at random.
            let all = until(PATIENCE, || {
                match cluster.kube.ask("callers", &caller.name, "get http://web.shop/ --libc") {
                    Ok(answer) => {
                        assert_eq!(answer["answer"]["source"], caller.address.as_str(), "{answer}");
                        nodes.insert(answer["answer"]["node"].as_str().unwrap().to_owned());
                    }
                    Err(error) => last = format!("{error:#}"),
                }
                nodes.len() == 3
            });
            assert!(all, "{caller:?}: {nodes:?} {last}");
        }
    }
    let refused = exec("n4", &["true".to_owned()]).unwrap_err().to_string();
    assert!(refused.contains("there is no node n4"), "{refused}");
}
