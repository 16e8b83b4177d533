//! What this replica writes to the cluster while it leads.
//!
//! Every replica watches and serves; each duty asks the [`Leadership`] before it writes. A duty ends before the Lease is
//! given back: the next leader may write at that moment.

use kube::Client;
use maesh_controller::{
    duties::{
        addresses,
        events::{self, Recorder},
        owner,
        stanza::{self, Cluster, Guard, Leave, Memory, Phase, Right, Status, Times},
        uninstall::{self, ByHand, ClusterDns, Uninstall},
    },
    leader::{Candidate, Leadership, LeaseTimes},
    serve::Controller,
};
use rand::RngExt as _;
use tokio::{sync::watch, task::JoinSet};

use crate::args::{ControllerArgs, CorednsMode};

/// Takes part in the election, and holds the duties of the leader.
pub struct Duties {
    candidate: Candidate,
    stanza: watch::Sender<Status>,
    running: JoinSet<()>,
}

impl Duties {
    /// Takes part for the Lease `namespace`/`lease`; `replica` is a name that people know this process by. Must be
    /// called within a runtime.
    pub fn start(client: Client, namespace: &str, lease: &str, replica: &str) -> Self {
        // A container that restarts keeps its pod's name, and is another candidate.
        let me = format!("{replica}_{:08x}", rand::rng().random::<u32>());
        let candidate = Candidate::start(client, namespace, lease, &me, LeaseTimes::default());
        Self { candidate, stanza: watch::Sender::default(), running: JoinSet::new() }
    }

    /// What a duty asks before it writes.
    pub fn leadership(&self) -> Leadership {
        self.candidate.leadership()
    }

    /// Takes up everything that the leader does. Returns who is told what Events are to say.
    pub fn with_all(mut self, args: &ControllerArgs, client: &Client, controller: &Controller) -> (Self, Recorder) {
        let recorder = self.record_events(args, client);
        let leaving = self.leave_when_told(args, client.clone(), controller, &recorder);
        self.keep_own_addresses(args, client.clone(), controller, leaving, recorder.clone());
        (self, recorder)
    }

    /// Events on the objects that something is wrong with.
    fn record_events(&mut self, args: &ControllerArgs, client: &Client) -> Recorder {
        let (recorder, notes) = events::recorder();
        let options = events::Options { namespace: args.mesh.namespace.clone(), replica: args.id.clone() };
        self.add(events::keep(client.clone(), options, self.leadership(), notes));
        recorder
    }

    /// Own addresses, until an uninstallation removes them.
    fn keep_own_addresses(
        &mut self,
        args: &ControllerArgs,
        client: Client,
        controller: &Controller,
        leaving: watch::Receiver<bool>,
        recorder: Recorder,
    ) {
        let (wants, leadership, deployment) = (controller.wants(), self.leadership(), args.leave.deployment.clone());
        let mut options = addresses::Options {
            namespace: args.mesh.namespace.clone(),
            selector: args.own.proxy_label.iter().cloned().collect(),
            horizon: args.horizon,
            writes_per_second: args.own.own_writes,
            budget: args.own.own_budget,
            owner: None,
            recorder: Some(recorder),
        };
        self.add(async move {
            options.owner = owner::find(&client, &options.namespace, &deployment).await;
            addresses::keep(client, options, wants, leadership, leaving).await;
        });
    }

    /// Every replica obeys the marker of an uninstallation, and the leader does what it asks for.
    /// Returns whether there is one.
    fn leave_when_told(
        &mut self,
        args: &ControllerArgs,
        client: Client,
        controller: &Controller,
        recorder: &Recorder,
    ) -> watch::Receiver<bool> {
        let namespace = args.mesh.namespace.clone();
        let (leave, lease, leadership) = (args.leave.clone(), args.lease.clone(), self.leadership());
        let options = leave.options(&namespace, args.horizon);
        let (sender, wanted) = watch::channel(false);
        let leaving = wanted.clone();
        let (bypassing, always) = (wanted.clone(), args.mesh.bypass);
        controller.follow_bypass(bypassing, always);
        let dns = self.keep_stanza(args, &client, wanted.clone(), recorder.clone());
        self.add({
            let (client, options) = (client.clone(), options.clone());
            async move { uninstall::follow(client, &options, sender).await }
        });
        self.add(async move {
            let owner = owner::find(&client, &namespace, &leave.deployment).await;
            let adopted = async {
                if let Some(owner) = owner.clone() {
                    owner::adopt_lease(client.clone(), &namespace, &lease, owner, &leadership).await;
                }
            };
            let client = client.clone();
            let uninstall =
                Uninstall { client, options, dns, leadership: Some(leadership.clone()), owner: owner.clone() };
            tokio::join!(adopted, uninstall.whenever(wanted));
        });
        leaving
    }

    /// The leader keeps the stanza in the cluster's DNS until the mesh goes. Returns who takes it out then.
    fn keep_stanza(
        &mut self,
        args: &ControllerArgs,
        client: &Client,
        leaving: watch::Receiver<bool>,
        recorder: Recorder,
    ) -> Box<dyn ClusterDns> {
        if args.coredns_mode == CorednsMode::Manual {
            let message = "--coredns-mode is manual: the stanza is yours to keep".to_owned();
            self.stanza.send_replace(Status { phase: Phase::Idle, message });
            return Box::new(ByHand);
        }
        let cluster = Cluster::new(client.clone());
        let mesh = stanza::Mesh {
            namespace: args.mesh.namespace.clone(),
            service: args.dns_service.dns_service.clone(),
            zones: args.mesh.zones.clone(),
        };
        let times = Times { deadline: args.leave.dns_deadline, ..Times::default() };
        let (leadership, status) = (self.leadership(), self.stanza.clone());
        let right = Right::Leader(leadership.clone());
        let leave = Leave { cluster: cluster.clone(), mesh: mesh.clone(), right, recorder: Some(recorder.clone()) };
        let memory = Memory::new(client.clone(), &args.mesh.namespace, &args.lease);
        self.add(stanza::guard(Guard { cluster, mesh, leadership, leaving, times, status, recorder, memory }));
        Box::new(leave)
    }

    /// How the stanza does, as long as this replica leads.
    pub fn stanza(&self) -> watch::Receiver<Status> {
        self.stanza.subscribe()
    }

    /// Runs a duty until it ends or all of them are stopped.
    pub fn add(&mut self, duty: impl Future<Output = ()> + Send + 'static) {
        self.running.spawn(duty);
    }

    /// Ends the duties, then lets another replica lead.
    pub async fn stop(mut self) {
        self.running.shutdown().await;
        self.candidate.stop().await;
    }
}
