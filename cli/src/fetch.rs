//! One HTTP request over a connection of its own: a caller's in the demo, or one to an admin endpoint.

use std::{net::SocketAddr, time::Duration};

use anyhow::Context as _;
use bytes::Bytes;
use http::{Request, StatusCode, header};
use http_body_util::{BodyExt as _, Empty};
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;

/// Longest wait for a whole answer.
const PATIENCE: Duration = Duration::from_secs(5);

/// Sends `GET path` as [`get`] does; the host is the address itself.
pub async fn get_from(at: SocketAddr, path: &str) -> anyhow::Result<(StatusCode, String)> {
    get(at, &at.to_string(), path).await
}

/// Sends `GET path` with this `Host` over a connection of its own; status and body.
pub async fn get(at: SocketAddr, host: &str, path: &str) -> anyhow::Result<(StatusCode, String)> {
    tokio::time::timeout(PATIENCE, exchange(at, host, path))
        .await
        .with_context(|| format!("{} did not answer within {} s", asked(at, host, path), PATIENCE.as_secs()))?
        .with_context(|| asked(at, host, path))
}

/// What was asked, for people: without what a question has behind its path, which is long and says nothing to them.
fn asked(at: SocketAddr, host: &str, path: &str) -> String {
    let path = path.split('?').next().unwrap_or_default();
    let address = at.to_string();
    if host == address { format!("http://{address}{path}") } else { format!("http://{host}{path} at {address}") }
}

async fn exchange(at: SocketAddr, host: &str, path: &str) -> anyhow::Result<(StatusCode, String)> {
    let stream = TcpStream::connect(at).await?;
    let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await?;
    let connection = tokio::spawn(connection);
    let request = Request::get(path).header(header::HOST, host).body(Empty::<Bytes>::new())?;
    let response = sender.send_request(request).await?;
    let status = response.status();
    let body = response.into_body().collect().await?.to_bytes();
    connection.abort();
    Ok((status, String::from_utf8_lossy(&body).into_owned()))
}
