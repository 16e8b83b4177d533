//! Two replicas and one Lease, on a real kube-apiserver.

use std::time::Instant;

use k8s_openapi::api::coordination::v1::Lease;
use kube::{Api, Client, api::Patch, api::PatchParams};
use maesh_controller::{leader::Candidate, source::kubernetes};
use maesh_testkube::ApiServer;
use tokio::time::timeout;

use crate::support::{PATIENCE, TERMS, on, runtime};

async fn leads(candidate: &Candidate, wanted: bool) {
    let mut leads = candidate.leadership().watch();
    let found = timeout(PATIENCE, leads.wait_for(|now| *now == wanted)).await;
    found.unwrap_or_else(|_| panic!("leads is not {wanted} within {PATIENCE:?}")).unwrap();
}

async fn holder(client: &Client) -> String {
    let lease = Api::<Lease>::namespaced(client.clone(), "default").get("maesh").await.unwrap();
    lease.spec.unwrap().holder_identity.unwrap_or_default()
}

#[test]
fn one_leads_and_another_follows_when_it_stops_or_dies() {
    let Some(mut server) = ApiServer::start_or_skip() else { return };
    let runtime = runtime(&server);
    let kubeconfig = server.kubeconfig().to_owned();
    let (client, first, second) = on(&runtime, async move {
        let client = kubernetes::client(Some(&kubeconfig), None).await.unwrap();
        let start = |me: &str| Candidate::start(client.clone(), "default", "maesh", me, TERMS);
        let first = start("first");
        leads(&first, true).await;
        let second = start("second");
        assert_eq!(holder(&client).await, "first");
        assert_eq!(first.leadership().write(async { 7 }).await, Ok(7));
        assert!(second.leadership().write(async { 7 }).await.is_err(), "only the leader writes");

        first.stop().await;
        let since = Instant::now();
        leads(&second, true).await;
        assert!(since.elapsed() < TERMS.lease, "given back, it is taken at once: {:?}", since.elapsed());

        // Dropped without a word, as a killed process goes.
        let third = start("third");
        let second_right = second.leadership();
        drop(second);
        assert!(!second_right.may_write());
        let since = Instant::now();
        leads(&third, true).await;
        assert!(
            since.elapsed() > TERMS.lease - TERMS.retry - TERMS.right,
            "not before its time: {:?}",
            since.elapsed()
        );
        assert!(since.elapsed() < TERMS.lease + 4 * TERMS.retry, "within the lease time: {:?}", since.elapsed());
        assert_eq!(holder(&client).await, "third");

        // Taken away by a person: it stops at once, and waits for its turn.
        let taken = serde_json::json!({"spec": {"holderIdentity": "somebody"}});
        let leases = Api::<Lease>::namespaced(client.clone(), "default");
        leases.patch("maesh", &PatchParams::default(), &Patch::Merge(taken)).await.unwrap();
        leads(&third, false).await;
        leads(&third, true).await;
        (client.clone(), third, start("fourth"))
    });
    // The API server away: nobody may write, and one may once it is back.
    server.stop_apiserver().unwrap();
    let (first, second) = on(&runtime, async move {
        leads(&first, false).await;
        assert!(!first.leadership().may_write() && !second.leadership().may_write());
        (first, second)
    });
    server.start_apiserver().unwrap();
    on(&runtime, async move {
        let (mut one, mut other) = (first.leadership().watch(), second.leadership().watch());
        let either = async {
            tokio::select! { _ = one.wait_for(|now| *now) => {}, _ = other.wait_for(|now| *now) => {} }
        };
        timeout(PATIENCE, either).await.unwrap();
        let writers = [&first, &second].map(|candidate| candidate.leadership().may_write());
        assert_eq!(writers.iter().filter(|may| **may).count(), 1, "{writers:?}, holder {}", holder(&client).await);
        first.stop().await;
        second.stop().await;
        assert_eq!(holder(&client).await, "", "given back");
    });
}
