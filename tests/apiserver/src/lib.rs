//! A real Kubernetes API for tests: etcd and kube-apiserver, in a network namespace of their own.
//!
//! Nothing else of Kubernetes runs: no scheduler, no controllers, and no kubelet but [`Kubelet`], which forwards ports where a
//! test starts it. Objects are what the test writes, and stay as they are (a deleted Namespace stays in `Terminating`, a Service has no EndpointSlices but the test's own).
//! The server refuses loopback and link-local addresses in EndpointSlices, so whatever talks to it lives in the same
//! namespace, where [`maesh_test_support::RANGES`] are local. [`ApiServer::start`] takes about five seconds.
//! ```no_run
//! let Some(server) = maesh_testkube::ApiServer::start_or_skip() else { return };
//! let nodes = server.kubectl().args(["get", "nodes"]).output();
//! let controller = server.namespace().command("maesh").arg("controller").env("KUBECONFIG", server.kubeconfig()).spawn();
//! ```

mod certificates;
mod kubelet;
mod process;
mod server;

pub use certificates::Certificates;
pub use kubelet::Kubelet;
pub use process::Process;
pub use server::{ADDRESS, ApiServer, Options};
