//! One request to a port of a pod, through a port-forward of the API server.
//!
//! The API server checks the right to it, and the request arrives in the pod from a loopback address: the admin endpoints
//! answer what they say of the mesh only there. The stream is forwarded for one request, and ends with it.

use std::{future::Future, pin::pin, time::Duration};

use futures_util::{FutureExt as _, future::FusedFuture as _};
use http::StatusCode;
use k8s_openapi::api::core::v1::Pod;
use kube::{Api, Client, api::Portforwarder};
use tokio::io::{AsyncRead, AsyncWrite};

use crate::fetch;

/// What is needed for it. Which of the verbs an API server asks for depends on its version.
pub(super) const RIGHT: &str = "get and create pods/portforward";
/// Longest time that the whole exchange may take. Where a node is gone, the API server tries for half a minute.
const PATIENCE: Duration = Duration::from_secs(5);
/// How long a message of the node may come after the end of the stream: on a busy node it takes over half a second.
const GRACE: Duration = Duration::from_secs(2);
/// The name of the pod as it sees itself.
const HOST: &str = "localhost";

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
pub(super) enum ForwardError {
    /// The API server does not forward.
    #[error(transparent)]
    Api(Box<kube::Error>),
    /// It forwards, and nothing in the pod takes the connection.
    #[error("{0}")]
    Port(String),
    /// The exchange was broken off.
    #[error("{0:#}")]
    Exchange(anyhow::Error),
    /// The pod refuses.
    #[error("{}", said(*.0, .1))]
    Status(StatusCode, String),
    /// Nothing came in time.
    #[error("no answer within {} s through the API server", PATIENCE.as_secs())]
    Late,
}

/// A stream that is forwarded, until this is dropped.
struct Forwarded(Portforwarder);

impl Drop for Forwarded {
    fn drop(&mut self) {
        // Its task would otherwise wait until the API server closes the connection.
        self.0.abort();
    }
}

/// `GET` of a path of a pod's port.
pub(super) async fn get(
    client: Client,
    namespace: &str,
    pod: &str,
    port: u16,
    path: &str,
) -> Result<String, ForwardError> {
    let asked = async {
        let pods: Api<Pod> = Api::namespaced(client, namespace);
        let forwarded = pods.portforward(pod, &[port]).await.map_err(|error| ForwardError::Api(Box::new(error)))?;
        let mut forwarded = Forwarded(forwarded);
        match (forwarded.0.take_stream(port), forwarded.0.take_error(port)) {
            (Some(stream), Some(failure)) => exchange(stream, failure, path).await,
            _ => Err(ForwardError::Port(format!("port {port} was not forwarded"))),
        }
    };
    tokio::time::timeout(PATIENCE, asked).await.unwrap_or(Err(ForwardError::Late))
}

/// The exchange over a stream that is forwarded, where the node may send a message of its own instead: `failure`.
async fn exchange<S>(
    stream: S,
    failure: impl Future<Output = Option<String>>,
    path: &str,
) -> Result<String, ForwardError>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let mut failure = pin!(failure.fuse());
    let exchanged = tokio::select! {
        biased;
        Some(why) = &mut failure => return Err(ForwardError::Port(why)),
        exchanged = fetch::over(stream, HOST, path) => exchanged,
    };
    match exchanged {
        Ok((StatusCode::OK, body)) => Ok(body),
        Ok((status, body)) => Err(ForwardError::Status(status, body)),
        // The message says more, and may come a moment after the end of the stream.
        Err(error) if failure.is_terminated() => Err(ForwardError::Exchange(error)),
        Err(error) => match tokio::time::timeout(GRACE, failure).await {
            Ok(Some(why)) => Err(ForwardError::Port(why)),
            _ => Err(ForwardError::Exchange(error)),
        },
    }
}

/// What a pod that refuses says.
fn said(status: StatusCode, body: &str) -> String {
    match body.trim() {
        "" => format!("it answers {status}"),
        why => why.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use std::future::{pending, ready};

    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, duplex};

    use super::*;

    /// What comes of it when the pod answers so, and closes.
    async fn asked(text: &str, failure: impl Future<Output = Option<String>>) -> Result<String, ForwardError> {
        let (ours, mut pod) = duplex(1024);
        let answer = async move {
            let mut head = [0; 1024];
            if pod.read(&mut head).await.is_ok_and(|length| length > 0) {
                pod.write_all(text.as_bytes()).await.expect("it fits");
            }
        };
        tokio::join!(exchange(ours, failure, "/api/status"), answer).0
    }

    #[tokio::test]
    async fn what_the_pod_and_its_node_say() {
        let ok = "HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\n{}\n";
        let (refused, silent) = (
            "HTTP/1.1 400 Bad Request\r\nContent-Length: 4\r\n\r\nno!\n",
            "HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n",
        );
        assert_eq!(asked(ok, pending()).await.expect("an answer"), "{}\n");
        assert_eq!(asked(ok, ready(None)).await.expect("an answer"), "{}\n", "the forwarding ended without a message");
        for (case, text, failure, want) in [
            ("the pod refuses", refused, None, "no!"),
            ("it does not say why", silent, None, "it answers 404 Not Found"),
            ("nothing listens", "", Some("connection refused"), "connection refused"),
            ("the node stops", "HTTP/1.1 200 OK\r\n", Some("lost the pod"), "lost the pod"),
            ("it ends early", "HTTP/1.1 200 OK\r\n", None, "connection closed before message completed"),
        ] {
            let error = asked(text, ready(failure.map(str::to_owned))).await.expect_err(case);
            assert_eq!(error.to_string(), want, "{case}");
        }
    }

    #[tokio::test]
    async fn a_message_may_come_after_the_end_of_the_stream() {
        let late = async {
            tokio::task::yield_now().await;
            tokio::time::sleep(Duration::from_millis(50)).await;
            Some("connection refused".to_owned())
        };
        let error = asked("", late).await.expect_err("an error");
        assert!(matches!(error, ForwardError::Port(why) if why == "connection refused"));
    }

    #[tokio::test]
    async fn a_message_of_the_node_ends_a_wait_for_the_pod() {
        let (ours, mut pod) = duplex(1024);
        let error = exchange(ours, ready(Some("the pod is gone".to_owned())), "/").await.expect_err("an error");
        assert!(matches!(error, ForwardError::Port(why) if why == "the pod is gone"));
        let mut rest = Vec::new();
        pod.read_to_end(&mut rest).await.expect("the connection is closed");
    }
}
