//! What the tests share: runtimes and clients in the network of a real API server, waiting, and a sink that keeps what a
//! controller publishes.

use std::{collections::BTreeMap, fmt::Debug, sync::Arc, time::Duration};

use kube::Client;
use maesh_config::{Change, Key, Resource};
use maesh_controller::{leader::LeaseTimes, serve::Sink, source::kubernetes};
use maesh_testkube::ApiServer;
use parking_lot::Mutex;
use tokio::{
    runtime::Runtime,
    time::{Instant, sleep},
};

/// Longer than anything takes on a busy machine.
pub(crate) const PATIENCE: Duration = Duration::from_secs(180);

/// Times of an election that a test can wait for.
pub(crate) const TERMS: LeaseTimes =
    LeaseTimes { lease: Duration::from_secs(3), right: Duration::from_secs(2), retry: Duration::from_millis(300) };

/// A runtime whose threads belong to the server's network namespace; the test's own do not.
pub(crate) fn runtime(server: &ApiServer) -> Runtime {
    let build = || tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    server.namespace().run(build).unwrap()
}

/// Runs `work` on the runtime's own threads.
pub(crate) fn on<T: Send + 'static>(runtime: &Runtime, work: impl Future<Output = T> + Send + 'static) -> T {
    runtime.block_on(runtime.spawn(work)).unwrap()
}

/// Runs `work` in the server's network, with a client of its administrator.
pub(crate) fn with_client<W>(server: &ApiServer, work: impl FnOnce(Client) -> W + Send + 'static) -> W::Output
where
    W: Future<Output: Send> + Send + 'static,
{
    let kubeconfig = server.kubeconfig().to_owned();
    on(&runtime(server), async move { work(kubernetes::client(Some(&kubeconfig), None).await.unwrap()).await })
}

/// Runs kubectl as the administrator, with `arguments` split at spaces; returns what it prints.
#[track_caller]
pub(crate) fn kubectl(server: &ApiServer, arguments: &str) -> String {
    let output = server.kubectl().args(arguments.split(' ')).output().unwrap();
    assert!(output.status.success(), "kubectl {arguments}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

/// Asks until the answer is as wanted, for a bounded time; returns that answer.
pub(crate) async fn eventually<A>(
    what: &str,
    mut ask: impl FnMut() -> A,
    wanted: impl Fn(&A::Output) -> bool,
) -> A::Output
where
    A: Future<Output: Debug>,
{
    let end = Instant::now() + PATIENCE;
    loop {
        let answer = ask().await;
        if wanted(&answer) {
            return answer;
        }
        assert!(Instant::now() < end, "{what}: {answer:?}");
        drop(answer);
        sleep(Duration::from_millis(50)).await;
    }
}

/// Everything in force.
#[derive(Debug, Default)]
pub(crate) struct Now {
    /// The resources.
    pub(crate) resources: BTreeMap<Key, Resource>,
    /// Whether it was complete once.
    pub(crate) complete: bool,
    /// Fewest resources that there were at any time after that.
    pub(crate) fewest: usize,
}

/// A sink that keeps everything.
#[derive(Clone, Debug, Default)]
pub(crate) struct Kept(pub(crate) Arc<Mutex<Now>>);

impl Sink for Kept {
    fn apply(&mut self, change: &Change) -> u64 {
        let mut now = self.0.lock();
        for key in &change.removed {
            now.resources.remove(key);
        }
        now.resources.extend(change.upserts.iter().map(|resource| (resource.key(), resource.clone())));
        if now.complete {
            now.fewest = now.fewest.min(now.resources.len());
        }
        1
    }

    fn configured(&mut self) {}

    fn complete(&mut self) {
        let mut now = self.0.lock();
        now.complete = true;
        now.fewest = now.resources.len();
    }
}
