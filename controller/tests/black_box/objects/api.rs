//! The API server, asked in JSON.

use http::Request;
use kube::Client;
use maesh_compiler::kinds::Registration;
use maesh_controller::source::kubernetes;
use maesh_testkube::ApiServer;
use serde_json::Value;
use tokio::runtime::Runtime;

use crate::support::{on, runtime};

/// Who writes the objects.
const MANAGER: &str = "soak";

/// A client of the administrator.
pub(crate) struct Api {
    client: Client,
    runtime: Runtime,
}

impl Api {
    pub(crate) fn new(server: &ApiServer) -> Self {
        let (runtime, kubeconfig) = (runtime(server), server.kubeconfig().to_owned());
        let client = on(&runtime, async move { kubernetes::client(Some(&kubeconfig), None).await.unwrap() });
        Self { client, runtime }
    }

    /// What the server says of a request, or the status with which it refuses.
    pub(crate) fn ask(&self, method: &str, path: &str, body: Option<&Value>, content: &str) -> Result<Value, u16> {
        let body = body.map(Value::to_string).unwrap_or_default();
        let request =
            Request::builder().method(method).uri(path).header("content-type", content).body(body.into_bytes());
        let (client, request) = (self.client.clone(), request.expect("a request"));
        on(&self.runtime, async move {
            match client.request::<Value>(request).await {
                Ok(value) => Ok(value),
                Err(kube::Error::Api(status)) => Err(status.code),
                Err(error) => panic!("the API server does not answer: {error}"),
            }
        })
    }

    /// Creates an object or makes it this one.
    pub(crate) fn apply(&self, path: &str, object: &Value) -> Result<(), u16> {
        let path = format!("{path}?fieldManager={MANAGER}&force=true");
        self.ask("PATCH", &path, Some(object), "application/apply-patch+yaml").map(drop)
    }

    /// Changes a part of an object.
    pub(crate) fn merge(&self, path: &str, patch: &Value) -> Result<(), u16> {
        self.ask("PATCH", path, Some(patch), "application/merge-patch+json").map(drop)
    }

    pub(crate) fn delete(&self, path: &str) -> Result<(), u16> {
        self.ask("DELETE", path, None, "application/json").map(drop)
    }

    pub(crate) fn get(&self, path: &str) -> Result<Value, u16> {
        self.ask("GET", path, None, "application/json")
    }

    /// The versions of a kind that are served now, in the order of its registration.
    pub(crate) fn versions(&self, of: &Registration) -> Vec<&'static str> {
        let is_served = |version: &&&str| self.get(&group(of, version)).is_ok_and(|found| has(&found, of.plural));
        of.versions.iter().filter(is_served).copied().collect()
    }
}

fn has(resources: &Value, plural: &str) -> bool {
    resources["resources"].as_array().is_some_and(|all| all.iter().any(|one| one["name"] == plural))
}

/// The path of a group in a version.
fn group(of: &Registration, version: &str) -> String {
    match of.group {
        "" => format!("/api/{version}"),
        group => format!("/apis/{group}/{version}"),
    }
}

/// The path of all objects of a kind.
pub(crate) fn all(of: &Registration, version: &str) -> String {
    format!("{}/{}", group(of, version), of.plural)
}

/// The path of an object.
pub(crate) fn one(of: &Registration, version: &str, namespace: &str, name: &str) -> String {
    match of.namespaced {
        true => format!("{}/namespaces/{namespace}/{}/{name}", group(of, version), of.plural),
        false => format!("{}/{name}", all(of, version)),
    }
}
