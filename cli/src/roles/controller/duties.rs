//! What this replica writes to the cluster while it leads.
//!
//! Every replica watches and serves; each duty asks the [`Leadership`] before it writes. A duty ends before the Lease is
//! given back: the next leader may write at that moment.

use kube::Client;
use maesh_controller::leader::{Candidate, Leadership, Terms};
use rand::RngExt as _;
use tokio::task::JoinSet;

/// Takes part in the election, and holds the duties of the leader.
pub struct Duties {
    candidate: Candidate,
    running: JoinSet<()>,
}

impl Duties {
    /// Takes part for the Lease `namespace`/`lease`; `replica` is a name that people know this process by. Must be
    /// called within a runtime.
    pub fn start(client: Client, namespace: &str, lease: &str, replica: &str) -> Self {
        // A container that restarts keeps its pod's name, and is another candidate.
        let me = format!("{replica}_{:08x}", rand::rng().random::<u32>());
        let candidate = Candidate::start(client, namespace, lease, &me, Terms::default());
        Self { candidate, running: JoinSet::new() }
    }

    /// What a duty asks before it writes.
    pub fn leadership(&self) -> Leadership {
        self.candidate.leadership()
    }

    /// Runs a duty until it ends or all of them are stopped.
    #[expect(dead_code, reason = "the duties that write follow")]
    pub fn add(&mut self, duty: impl Future<Output = ()> + Send + 'static) {
        self.running.spawn(duty);
    }

    /// Ends the duties, then lets another replica lead.
    pub async fn stop(mut self) {
        self.running.shutdown().await;
        self.candidate.stop().await;
    }
}
