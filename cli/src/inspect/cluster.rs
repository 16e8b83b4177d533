//! The pods of a mesh in a cluster, asked through port-forwards of the API server: whoever may forward ports there may ask,
//! and nothing has to be exposed.

use std::time::Duration;

use http::Request;
use kube::{
    Client, Config,
    config::{InClusterError, KubeConfigOptions, Kubeconfig, KubeconfigError},
    core::Status,
};
use maesh_controller::api::{self, Limits};
use serde_json::Value;

use super::{
    Role,
    forward::{self, ForwardError},
};
use crate::args::ClusterArgs;

/// Longest time that the API server may take for one answer.
const PATIENCE: Duration = Duration::from_secs(10);
/// Longest time that a pod may take behind it. Where nothing listens, the API server tries for half a minute.
const POD_PATIENCE: Duration = Duration::from_secs(3);
/// Label by which the pods of the mesh are found.
const LABEL: &str = "app.kubernetes.io/name=maesh";

/// A mesh in a cluster.
pub struct Cluster {
    client: Client,
    server: String,
    context: Option<String>,
    namespace: String,
    /// The flag that says it.
    namespace_flag: &'static str,
    pods: Vec<Pod>,
}

/// A pod of the mesh.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pod {
    /// Its name.
    pub name: String,
    /// Label `app.kubernetes.io/component`.
    pub component: String,
    /// Its addresses.
    pub addresses: Vec<String>,
    /// Node it runs on.
    pub node: Option<String>,
    /// Its containers are ready.
    pub ready: bool,
    /// Port called `admin`, if it says one.
    admin_port: Option<u16>,
}

/// Why there is no way to a cluster, or no answer from it.
#[derive(Debug, thiserror::Error)]
pub enum ClusterError {
    /// No kubeconfig, and not in a pod.
    #[error(
        "no kubeconfig was found ($KUBECONFIG, ~/.kube/config), and this is no pod of a cluster; name one with \
         --kubeconfig FILE"
    )]
    Nowhere,
    /// The kubeconfig is of no use.
    #[error("kubeconfig {file}: {error}; give another with --kubeconfig, or a context in it with --context")]
    Kubeconfig { file: String, error: Box<KubeconfigError> },
    /// The client cannot be made.
    #[error("client of the Kubernetes API: {0}")]
    Client(Box<kube::Error>),
    /// The API server does not answer.
    #[error("the API server {server} was not reached: {why}; check that the cluster runs, and --context")]
    Away { server: String, why: String },
    /// It answers, but refuses.
    #[error("{what}: {why}; {next}")]
    Refused { what: String, why: String, next: String, code: u16, right: String },
}

impl ClusterError {
    /// There is no cluster to speak of.
    pub fn is_nowhere(&self) -> bool {
        matches!(self, Self::Nowhere)
    }

    /// The status that the API server answered; 0 where it did not.
    pub fn code(&self) -> u16 {
        match self {
            Self::Refused { code, .. } => *code,
            _ => 0,
        }
    }

    /// The right that is missing.
    pub fn missing_right(&self) -> Option<&str> {
        match self {
            Self::Refused { code: 403, right, .. } if !right.is_empty() => Some(right),
            _ => None,
        }
    }
}

/// Connects to the cluster of the flags, without a word to it yet.
pub async fn open(args: &ClusterArgs) -> Result<Cluster, ClusterError> {
    let options = KubeConfigOptions { context: args.context.clone(), ..Default::default() };
    let shown = args.kubeconfig.as_ref().map_or_else(|| "by default".to_owned(), |file| file.display().to_string());
    let bad = |error| ClusterError::Kubeconfig { file: shown.clone(), error: Box::new(error) };
    let read = match &args.kubeconfig {
        Some(file) => Some(Kubeconfig::read_from(file).map_err(bad)?),
        None => match Kubeconfig::read() {
            Ok(read) => Some(read),
            Err(KubeconfigError::FindPath | KubeconfigError::ReadConfig(..)) if args.context.is_none() => None,
            Err(error) => return Err(bad(error)),
        },
    };
    let (mut config, context) = match read {
        Some(read) => {
            let context = args.context.clone().or_else(|| read.current_context.clone());
            (Config::from_custom_kubeconfig(read, &options).await.map_err(bad)?, context)
        }
        None => (Config::incluster().map_err(|_: InClusterError| ClusterError::Nowhere)?, None),
    };
    config.connect_timeout = Some(PATIENCE / 2);
    let server = config.cluster_url.to_string().trim_end_matches('/').to_owned();
    let limits = Limits { answer: PATIENCE, silence: PATIENCE, ..Limits::default() };
    let client = api::client(config, limits).map_err(|error| ClusterError::Client(Box::new(error)))?;
    Ok(Cluster {
        client,
        server,
        context,
        namespace: args.namespace.clone(),
        namespace_flag: args.namespace_flag,
        pods: Vec::new(),
    })
}

/// Connects to the cluster of the flags and finds the pods of the mesh.
///
/// # Errors
/// When there is no cluster, it does not answer, or no mesh is in it.
pub async fn connect(args: &ClusterArgs) -> Result<Cluster, ClusterError> {
    let mut cluster = open(args).await?;
    cluster.find_pods().await?;
    Ok(cluster)
}

impl Cluster {
    /// How people call it.
    pub fn describe(&self) -> String {
        let context = self.context.as_ref().map_or_else(String::new, |context| format!(" (context {context})"));
        format!("cluster {}{context}, namespace {}", self.server, self.namespace)
    }

    /// The pods of a role, ready ones first, then by name.
    pub fn pods(&self, role: Role) -> Vec<Pod> {
        let mut pods: Vec<_> = self.pods.iter().filter(|pod| pod.component == role.as_str()).cloned().collect();
        pods.sort_by(|a, b| (!a.ready, &a.name).cmp(&(!b.ready, &b.name)));
        pods
    }

    /// Asks a pod's admin endpoint.
    ///
    /// # Errors
    /// When the API server or the pod does not answer.
    pub async fn ask(&self, pod: &Pod, role: Role, path: &str) -> Result<String, ClusterError> {
        let port = pod.admin_port.unwrap_or_else(|| role.admin_port());
        self.of_mesh_pod(&pod.name, port, path).await
    }

    /// `GET` of a path of a port of one of the mesh's pods, which sees it come from a loopback address.
    ///
    /// # Errors
    /// When the API server or the pod does not answer.
    pub async fn of_mesh_pod(&self, pod: &str, port: u16, path: &str) -> Result<String, ClusterError> {
        let asked = forward::get(self.client(), &self.namespace, pod, port, path).await;
        asked.map_err(|error| self.not_forwarded(pod, port, error))
    }

    /// `GET` of an object or a list.
    ///
    /// # Errors
    /// When the API server does not answer, or refuses; `right` is what is needed.
    pub async fn get(&self, url: &str, right: &str) -> Result<Value, ClusterError> {
        let text = self.text(url, url, right, "see whether the cluster has it").await?;
        serde_json::from_str(&text).map_err(|error| ClusterError::Away {
            server: self.server.clone(),
            why: format!("{url}: its answer is no JSON ({error})"),
        })
    }

    /// `GET` of a path that a pod answers everybody, as the API server's proxy passes it on.
    ///
    /// # Errors
    /// When the API server or the pod does not answer.
    pub async fn of_pod(&self, namespace: &str, pod: &str, port: u16, path: &str) -> Result<String, ClusterError> {
        let what = format!("pod {namespace}/{pod} (port {port})");
        let url = format!("/api/v1/namespaces/{namespace}/pods/{pod}:{port}/proxy{path}");
        let next = format!("look at it with kubectl -n {namespace} logs {pod}");
        let asked = tokio::time::timeout(POD_PATIENCE, self.text(&what, &url, "get pods/proxy", &next)).await;
        asked.unwrap_or_else(|_| {
            let why = format!("no answer within {} s through the API server", POD_PATIENCE.as_secs());
            Err(ClusterError::Refused { what, why, next, code: 504, right: String::new() })
        })
    }

    /// `POST` of an object that is not kept: a review, or a dry run; `right` is what is needed.
    ///
    /// # Errors
    /// When the API server does not answer, or refuses.
    pub async fn try_out(&self, url: &str, object: &Value, right: &str) -> Result<Value, ClusterError> {
        let away = |why: String| ClusterError::Away { server: self.server.clone(), why };
        let request = Request::post(url).header(http::header::CONTENT_TYPE, "application/json");
        let request = request.body(object.to_string().into_bytes()).map_err(|error| away(error.to_string()))?;
        let text = self.send(url, right, "see why", request).await?;
        serde_json::from_str(&text).map_err(|error| away(format!("{url}: its answer is no JSON ({error})")))
    }

    /// The time that the API server has.
    ///
    /// # Errors
    /// When it does not answer, or says none.
    pub async fn time(&self) -> Result<jiff::Timestamp, ClusterError> {
        let away = |why: String| ClusterError::Away { server: self.server.clone(), why };
        let request = Request::get("/version").body(kube::client::Body::empty());
        let request = request.map_err(|error| away(error.to_string()))?;
        let asked = tokio::time::timeout(PATIENCE, self.client.send(request)).await;
        let answer = asked.map_err(|_| away("no answer in time".into()))?.map_err(|error| away(root_cause(&error)))?;
        let date = answer.headers().get(http::header::DATE).and_then(|date| date.to_str().ok()).unwrap_or_default();
        let parsed = jiff::fmt::rfc2822::parse(date);
        parsed.map(|date| date.timestamp()).map_err(|_| away(format!("its Date {date:?} is no time")))
    }

    /// A client of its API server.
    pub fn client(&self) -> Client {
        self.client.clone()
    }

    /// The namespace of the mesh.
    pub fn namespace(&self) -> &str {
        &self.namespace
    }

    /// Where the API server is.
    pub fn server(&self) -> &str {
        &self.server
    }

    async fn text(&self, what: &str, url: &str, right: &str, next: &str) -> Result<String, ClusterError> {
        let away = |why: String| ClusterError::Away { server: self.server.clone(), why };
        let request = Request::get(url).body(Vec::new()).map_err(|error| away(error.to_string()))?;
        self.send(what, right, next, request).await
    }

    async fn send(
        &self,
        what: &str,
        right: &str,
        next: &str,
        request: Request<Vec<u8>>,
    ) -> Result<String, ClusterError> {
        let away = |why: String| ClusterError::Away { server: self.server.clone(), why };
        let url = request.uri().to_string();
        let asked = tokio::time::timeout(PATIENCE, self.client.request_text(request)).await;
        let Ok(answer) = asked else {
            return Err(away(format!("no answer within {} s for {url}", PATIENCE.as_secs())));
        };
        answer.map_err(|error| match error {
            kube::Error::Api(status) => refused(what, (right, namespace_of(&url)), next, &status),
            other => away(root_cause(&other)),
        })
    }

    /// Why a pod did not answer through a port-forward, and what to do.
    fn not_forwarded(&self, pod: &str, port: u16, error: ForwardError) -> ClusterError {
        let what = format!("pod {}/{pod} (port {port})", self.namespace);
        let logs = format!("look at it with kubectl -n {} logs {pod}", self.namespace);
        let why = error.to_string();
        let (next, code) = match error {
            ForwardError::Api(error) => match *error {
                kube::Error::Api(status) => {
                    let next = match status.code {
                        404 => "it was probably replaced; run the command again".to_owned(),
                        500.. => "see whether its node is ready: kubectl get nodes".to_owned(),
                        _ => logs,
                    };
                    let mut refused = refused(&what, (forward::RIGHT, Some(&self.namespace)), &next, &status);
                    if let ClusterError::Refused { why, code: 403, .. } = &mut refused
                        && why.ends_with(':')
                    {
                        // An API server that asks for a second verb does not say which.
                        *why += " you may get pods/portforward, and not create it";
                    }
                    return refused;
                }
                kube::Error::UpgradeConnection(_) => (
                    "let WebSockets through to the API server: a proxy or load balancer before it may not".to_owned(),
                    0,
                ),
                other => return ClusterError::Away { server: self.server.clone(), why: root_cause(&other) },
            },
            ForwardError::Late => (
                format!("see whether it and its node are ready: kubectl -n {} get pod {pod} -o wide", self.namespace),
                504,
            ),
            ForwardError::Port(_) | ForwardError::Exchange(_) | ForwardError::Status(..) => (logs, 502),
        };
        ClusterError::Refused { what, why, next, code, right: String::new() }
    }

    /// Finds the pods of the mesh.
    ///
    /// # Errors
    /// When the API server does not answer, or there are none.
    pub async fn find_pods(&mut self) -> Result<(), ClusterError> {
        let url = format!("/api/v1/namespaces/{}/pods?labelSelector={}", self.namespace, LABEL.replace('=', "%3D"));
        let list = self.get(&url, "list pods").await?;
        let items = list["items"].as_array().map(Vec::as_slice).unwrap_or_default();
        self.pods = items.iter().filter_map(Pod::read).collect();
        if self.pods.is_empty() {
            return Err(ClusterError::Refused {
                what: format!("no mesh in {}", self.describe()),
                why: format!("no pod there has the label {LABEL}"),
                next: format!(
                    "install it, name its namespace with {}, or ask a `maesh dev` with --admin ADDR",
                    self.namespace_flag
                ),
                code: 404,
                right: String::new(),
            });
        }
        Ok(())
    }
}

/// What the API server refuses, and what to do: `right` is missing, in a namespace or everywhere.
fn refused(what: &str, (right, namespace): (&str, Option<&str>), next: &str, status: &Status) -> ClusterError {
    let place = namespace.map_or_else(|| "all namespaces".to_owned(), |name| format!("namespace {name}"));
    ClusterError::Refused {
        what: what.to_owned(),
        why: status.message.trim().to_owned(),
        next: match status.code {
            401 => "the API server does not know you; check the credentials of the kubeconfig".to_owned(),
            403 => format!("ask for the right to {right} in {place}"),
            _ => next.to_owned(),
        },
        code: status.code,
        right: right.to_owned(),
    }
}

/// The namespace whose objects a path of the API is about.
fn namespace_of(path: &str) -> Option<&str> {
    let (_, behind) = path.split_once("/namespaces/")?;
    let (namespace, _) = behind.split_once('/')?;
    Some(namespace)
}

impl Pod {
    /// What is needed of a pod; `None` for one that has ended or has no role.
    fn read(pod: &Value) -> Option<Self> {
        let text = |pointer: &str| pod.pointer(pointer).and_then(Value::as_str).map(str::to_owned);
        if matches!(text("/status/phase").as_deref(), Some("Succeeded" | "Failed")) {
            return None;
        }
        let list =
            |pointer: &str| pod.pointer(pointer).and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default();
        let ready = |condition: &Value| condition["type"] == "Ready" && condition["status"] == "True";
        let ports =
            list("/spec/containers").iter().flat_map(|container| container["ports"].as_array().into_iter().flatten());
        let admin = ports.clone().find(|port| port["name"] == "admin").and_then(|port| port["containerPort"].as_u64());
        Some(Self {
            name: text("/metadata/name")?,
            component: text("/metadata/labels/app.kubernetes.io~1component")?,
            addresses: list("/status/podIPs").iter().filter_map(|ip| Some(ip["ip"].as_str()?.to_owned())).collect(),
            node: text("/spec/nodeName"),
            ready: list("/status/conditions").iter().any(ready) && text("/metadata/deletionTimestamp").is_none(),
            admin_port: admin.and_then(|port| u16::try_from(port).ok()),
        })
    }
}

/// An error with its causes.
fn root_cause(error: &dyn std::error::Error) -> String {
    let mut cause = error;
    while let Some(inner) = cause.source() {
        cause = inner;
    }
    cause.to_string()
}
