//! A replica's part in own addresses, on a real kube-apiserver.

#![allow(dead_code, reason = "each test uses its part")]

use std::time::Duration;

use kube::Client;
use maesh_compiler::own_address::{AddressRequest, AddressRequests};
use maesh_config::{ServiceName, model::Transport};
use maesh_controller::{
    duties::addresses::{self, Options},
    leader::Candidate,
};
use tokio::{sync::watch, task::JoinHandle};

use crate::support::TERMS;

pub(crate) const HORIZON: Duration = Duration::from_secs(3);

pub(crate) fn want(namespace: &str, name: &str, ports: &[u16]) -> AddressRequest {
    let service = ServiceName::new(namespace, name);
    AddressRequest { service, ports: ports.iter().map(|port| (*port, Transport::Tcp)).collect() }
}

pub(crate) fn owning(own: Vec<AddressRequest>) -> AddressRequests {
    AddressRequests { own, ..AddressRequests::default() }
}

/// One replica.
pub(crate) struct Replica {
    pub(crate) client: Client,
    pub(crate) candidate: Candidate,
    pub(crate) wants: watch::Sender<Option<AddressRequests>>,
    pub(crate) leaving: watch::Sender<bool>,
    keeping: JoinHandle<()>,
}

impl Replica {
    pub(crate) fn start(
        client: &Client,
        me: &str,
        wants: Option<Vec<AddressRequest>>,
        writes: u32,
        budget: u32,
    ) -> Self {
        let wants = wants.map(owning);
        let candidate = Candidate::start(client.clone(), "default", "maesh", me, TERMS);
        let (wants, wanted) = watch::channel(wants);
        let selector = [("app.kubernetes.io/component".to_owned(), "proxy".to_owned())].into();
        let leaving = watch::channel(false);
        let options = Options {
            namespace: "default".into(),
            selector,
            horizon: HORIZON,
            writes_per_second: writes,
            budget,
            owner: None,
            recorder: None,
        };
        let keeping = tokio::spawn(addresses::keep(client.clone(), options, wanted, candidate.leadership(), leaving.1));
        Self { client: client.clone(), candidate, wants, leaving: leaving.0, keeping }
    }

    /// Waits until it leads.
    pub(crate) async fn leads(&self) {
        let mut leads = self.candidate.leadership().watch();
        leads.wait_for(|now| *now).await.unwrap();
    }

    pub(crate) async fn stop(self) {
        self.keeping.abort();
        let _ = self.keeping.await;
        self.candidate.stop().await;
    }
}
