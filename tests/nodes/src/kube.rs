//! A cluster as its administrator sees it: ours, or one that a person named on the command line.

use std::env;
use std::io::Write as _;
use std::process::{Command, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use maesh_test_support::{tool, until};
use serde_json::Value;

use crate::command::checked;
use crate::{network, place};

/// The variable in which `cargo xtask test --on-context NAME` hands down a context. It removes any other, so that only
/// a person's word on the command line ever leads to a cluster that is not ours.
pub const ON_CONTEXT: &str = "MAESH_TEST_ON_CONTEXT";

/// A cluster that tests work on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Kube {
    /// The context of the person's kubeconfig; ours when there is none.
    context: Option<String>,
}

impl Kube {
    /// The cluster that [`crate::up()`] makes.
    pub fn ours() -> Self {
        Self { context: None }
    }

    /// The cluster that a person named, if one did.
    pub fn named() -> Option<Self> {
        env::var(ON_CONTEXT).ok().filter(|name| !name.is_empty()).map(|name| Self { context: Some(name) })
    }

    /// Whether it is the cluster that [`crate::up()`] makes, whose nodes and daemons can be reached.
    pub fn is_ours(&self) -> bool {
        self.context.is_none()
    }

    /// A program that talks to the cluster, told where it is; `context` is the program's flag for a context.
    pub(crate) fn client(&self, program: &str, context: &str) -> Result<Command> {
        let file = tool(program)?;
        let Some(name) = &self.context else {
            let mut command = network::inside(network::LAB, file);
            command.env("KUBECONFIG", place::kubeconfig());
            return Ok(command);
        };
        let mut command = Command::new(file);
        command.arg(format!("{context}={name}"));
        Ok(command)
    }

    /// `kubectl` as an administrator.
    ///
    /// # Errors
    /// When kubectl has not been built.
    pub fn kubectl(&self) -> Result<Command> {
        self.client("kubectl", "--context")
    }

    /// Runs kubectl with `arguments`, split at spaces; returns what it prints.
    ///
    /// # Errors
    /// What kubectl says.
    pub fn run(&self, arguments: &str) -> Result<String> {
        checked(self.kubectl()?.args(arguments.split_whitespace()))
    }

    /// What `kubectl get` with `arguments`, split at spaces, finds.
    ///
    /// # Errors
    /// What kubectl says.
    pub fn get(&self, arguments: &str) -> Result<Value> {
        let text = self.run(&format!("get {arguments} --output=json"))?;
        serde_json::from_str(&text).with_context(|| format!("kubectl get {arguments}"))
    }

    /// The objects that `kubectl get` with `arguments` lists.
    ///
    /// # Errors
    /// What kubectl says.
    pub fn list(&self, arguments: &str) -> Result<Vec<Value>> {
        match self.get(arguments)? {
            Value::Object(mut list) => match list.remove("items") {
                Some(Value::Array(items)) => Ok(items),
                _ => bail!("kubectl get {arguments} gave no list"),
            },
            _ => bail!("kubectl get {arguments} gave no list"),
        }
    }

    /// Applies `manifests` (YAML) on the server.
    ///
    /// # Errors
    /// What kubectl says.
    pub fn apply(&self, manifests: &str) -> Result<()> {
        let mut command = self.kubectl()?;
        command.args(["apply", "--server-side", "--force-conflicts", "--filename=-"]);
        command.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::piped());
        let mut child = command.spawn().context("starting kubectl")?;
        if let Some(mut input) = child.stdin.take() {
            input.write_all(manifests.as_bytes()).context("handing manifests to kubectl")?;
        }
        let output = child.wait_with_output().context("waiting for kubectl")?;
        if !output.status.success() {
            bail!("kubectl apply: {}\n{manifests}", String::from_utf8_lossy(&output.stderr).trim());
        }
        Ok(())
    }

    /// Waits until a workload such as `deployment/web` is rolled out and no pod of its namespace is ending any more.
    ///
    /// # Errors
    /// When that takes longer than `limit`; it says what the namespace looks like then.
    pub fn settled(&self, namespace: &str, workload: &str, limit: Duration) -> Result<()> {
        let status =
            self.run(&format!("--namespace={namespace} rollout status {workload} --timeout={}s", limit.as_secs()));
        let ending = || self.list(&format!("pods --namespace={namespace}")).map(|pods| pods.iter().any(is_ending));
        if status.is_ok() && until(limit, || ending().is_ok_and(|ending| !ending)) {
            return Ok(());
        }
        let state = self.run(&format!("--namespace={namespace} get pods,events")).unwrap_or_default();
        let logs = self
            .run(&format!("--namespace={namespace} logs {workload} --all-containers --tail=30"))
            .unwrap_or_else(|error| error.to_string());
        bail!("{workload} in {namespace} does not settle: {status:?}\n{state}\n{logs}");
    }

    /// Runs the program of the pods of the test cluster in `pod` and reads the JSON that it prints.
    ///
    /// # Errors
    /// When the program fails.
    pub fn ask(&self, namespace: &str, pod: &str, arguments: &str) -> Result<Value> {
        let text = self.run(&format!("--namespace={namespace} exec {pod} -- /program {arguments}"))?;
        serde_json::from_str(&text).with_context(|| format!("{pod}: {arguments}: {text}"))
    }
}

/// Whether a pod is to go, or has not started.
fn is_ending(pod: &Value) -> bool {
    !pod["metadata"]["deletionTimestamp"].is_null()
}
