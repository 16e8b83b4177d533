//! Connections to the API server that die without a word: nothing waits for them for ever.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use k8s_openapi::api::core::v1::Service;
use kube::{
    Api,
    api::{ListParams, WatchParams},
};
use maesh_controller::{
    api::Limits,
    leader::{Candidate, LeaseTimes},
};
use parking_lot::Mutex;
use serde_json::{Value, json};

use super::{
    peer::{Asked, Peer, Reply},
    within,
};

const LIMITS: Limits = Limits {
    answer: Duration::from_millis(300),
    silence: Duration::from_millis(300),
    slack: Duration::from_millis(300),
};

#[tokio::test]
async fn a_request_ends_wherever_the_server_falls_silent() {
    for (case, reply, watch) in [
        ("no answer to a list", (|| Reply::Nothing) as fn() -> Reply, false),
        ("a list without its body", || Reply::Head, false),
        ("no answer to a watch", || Reply::Nothing, true),
        ("a watch that never ends", || Reply::Head, true),
    ] {
        let peer = Peer::start(move |_| reply()).await;
        let services = Api::<Service>::all(peer.client(LIMITS));
        let failed = within(case, async {
            if !watch {
                return services.list(&ListParams::default()).await.is_err();
            }
            match services.watch(&WatchParams::default().timeout(1), "1").await {
                Err(_) => true,
                // Its events end, with an error or without one.
                Ok(events) => !futures_util::StreamExt::any(events, async |event| event.is_ok()).await,
            }
        });
        assert!(failed.await, "{case}: the request succeeded");
    }
}

/// A Lease as the API server keeps it, and who is silenced.
#[derive(Default)]
pub(crate) struct Leases {
    lease: Mutex<Option<Value>>,
    version: Mutex<u64>,
}

impl Leases {
    pub(crate) fn answer(&self, asked: &Asked) -> Reply {
        let mut lease = self.lease.lock();
        match (asked.method.as_str(), lease.as_ref()) {
            ("GET", Some(lease)) => return Reply::Json(200, lease.clone()),
            ("GET", None) => return Reply::refusal(404, "NotFound", "no such Lease"),
            ("PUT", Some(there)) => {
                if there["metadata"]["resourceVersion"] != asked.body["metadata"]["resourceVersion"] {
                    return Reply::refusal(409, "Conflict", "somebody was faster");
                }
            }
            ("POST", None) => {}
            _ => return Reply::refusal(409, "AlreadyExists", "it is there"),
        }
        let mut version = self.version.lock();
        *version += 1;
        let mut new = asked.body.clone();
        new["metadata"]["resourceVersion"] = json!(version.to_string());
        *lease = Some(new.clone());
        Reply::Json(200, new)
    }
}

#[tokio::test]
async fn a_follower_whose_connection_went_silent_takes_over() {
    let terms =
        LeaseTimes { lease: Duration::from_secs(3), right: Duration::from_secs(2), retry: Duration::from_millis(100) };
    let leases = Arc::new(Leases::default());
    let of_leader = leases.clone();
    let for_leader = Peer::start(move |asked| of_leader.answer(&asked)).await;
    // The first connection of the follower dies without a word once it was used.
    let (silent, asks) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicBool::new(false)));
    let (is_silent, has_asked) = (silent.clone(), asks.clone());
    let for_follower = Peer::start(move |asked| {
        if asked.connection == 0 && is_silent.load(Ordering::Acquire) {
            has_asked.store(true, Ordering::Release);
            return Reply::Nothing;
        }
        leases.answer(&asked)
    })
    .await;
    let leader = Candidate::start(for_leader.client(Limits::default()), "maesh", "maesh", "leader", terms);
    let leads = |candidate: &Candidate| candidate.leadership().watch();
    within("the first leads", leads(&leader).wait_for(|leads| *leads)).await.unwrap();
    let follower = Candidate::start(for_follower.client(Limits::default()), "maesh", "maesh", "follower", terms);
    tokio::time::sleep(3 * terms.retry).await;
    silent.store(true, Ordering::Release);
    let asked = async {
        while !asks.load(Ordering::Acquire) {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    within("the follower asks", asked).await;
    leader.stop().await;
    within("the follower leads", leads(&follower).wait_for(|leads| *leads)).await.unwrap();
    follower.stop().await;
}
