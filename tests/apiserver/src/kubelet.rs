//! The one thing of a kubelet that the mesh's commands use: port-forwards into pods.
//!
//! A real kubelet connects to `localhost` inside the pod's network. Here the pods share one network and have an address each,
//! so the connection goes to that address, and comes from a loopback address all the same.

use std::{
    collections::HashMap,
    net::{IpAddr, Ipv4Addr},
    sync::Arc,
    time::Duration,
};

use anyhow::{Context as _, Result, bail};
use futures_util::{SinkExt as _, TryStreamExt as _};
use rustls::{
    ServerConfig,
    crypto::ring,
    pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject as _},
};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpListener, TcpSocket, TcpStream},
    runtime::{Builder, Runtime},
};
use tokio_rustls::{TlsAcceptor, server::TlsStream};
use tokio_tungstenite::{
    WebSocketStream, accept_hdr_async,
    tungstenite::{
        Message,
        handshake::server::{Callback, ErrorResponse, Request, Response},
        http::{HeaderValue, Uri, header},
    },
};

use crate::{ApiServer, Certificates};

/// Where kubelets listen.
const PORT: u16 = 10250;
/// How streams are put into one connection: each message begins with the number of its stream.
const PROTOCOL: HeaderValue = HeaderValue::from_static("v4.channel.k8s.io");
/// The stream of the port's bytes.
const DATA: u8 = 0;
/// The stream of an error.
const ERROR: u8 = 1;

/// The kubelet of some nodes. Dropped, it is gone.
#[derive(Debug)]
pub struct Kubelet {
    runtime: Option<Runtime>,
}

/// The addresses of pods, by their names. A connection to a pod without one stays open, and nothing comes.
type Pods = HashMap<String, Option<IpAddr>>;

impl Kubelet {
    /// Starts it, and says in the status of the nodes, which must be there, at which address it is. There is one for all of
    /// a server's nodes.
    ///
    /// # Errors
    /// When a node is not there, or there is another kubelet.
    pub fn start(server: &ApiServer, nodes: &[(&str, IpAddr)], pods: &[(&str, Option<IpAddr>)]) -> Result<Self> {
        let tls = acceptor(server.certificates())?;
        let pods: Pods = pods.iter().map(|(name, address)| ((*name).to_owned(), *address)).collect();
        let runtime = server.namespace().run(|| -> Result<Runtime> {
            let runtime = Builder::new_multi_thread().worker_threads(1).enable_all().build()?;
            let listener = runtime.block_on(TcpListener::bind((Ipv4Addr::UNSPECIFIED, PORT)))?;
            runtime.spawn(serve(listener, tls, Arc::new(pods)));
            Ok(runtime)
        })??;
        let kubelet = Self { runtime: Some(runtime) };
        for (node, address) in nodes {
            let status = format!(
                r#"{{"status":{{"addresses":[{{"type":"InternalIP","address":"{address}"}}],"daemonEndpoints":{{"kubeletEndpoint":{{"Port":{PORT}}}}}}}}}"#
            );
            let mut kubectl = server.kubectl();
            kubectl.args(["patch", "node", node, "--subresource", "status", "--type", "merge", "-p", &status]);
            let output = kubectl.output()?;
            if !output.status.success() {
                bail!("status of node {node}: {}", String::from_utf8_lossy(&output.stderr));
            }
        }
        Ok(kubelet)
    }
}

impl Drop for Kubelet {
    fn drop(&mut self) {
        if let Some(runtime) = self.runtime.take() {
            // So that another one may listen at once.
            runtime.shutdown_timeout(Duration::from_secs(5));
        }
    }
}

/// TLS with a certificate of the server's authority. The API server does not verify it.
fn acceptor(certificates: &Certificates) -> Result<TlsAcceptor> {
    certificates.server("kubelet", &["kubelet"])?;
    let chain = CertificateDer::pem_file_iter(certificates.file("kubelet.crt"))?.collect::<Result<_, _>>()?;
    let key = PrivateKeyDer::from_pem_file(certificates.file("kubelet.key"))?;
    let config = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()));
    let config = config.with_safe_default_protocol_versions()?.with_no_client_auth().with_single_cert(chain, key)?;
    Ok(TlsAcceptor::from(Arc::new(config)))
}

async fn serve(listener: TcpListener, tls: TlsAcceptor, pods: Arc<Pods>) {
    while let Ok((stream, _)) = listener.accept().await {
        let (tls, pods) = (tls.clone(), pods.clone());
        tokio::spawn(async move {
            let served = async { forward(tls.accept(stream).await?, &pods).await };
            if let Err(error) = served.await {
                eprintln!("kubelet: {error:#}");
            }
        });
    }
}

/// Notes what is asked for.
struct Asked<'a>(&'a mut Option<Uri>);

impl Callback for Asked<'_> {
    fn on_request(self, request: &Request, mut response: Response) -> Result<Response, ErrorResponse> {
        *self.0 = Some(request.uri().clone());
        response.headers_mut().insert(header::SEC_WEBSOCKET_PROTOCOL, PROTOCOL);
        Ok(response)
    }
}

/// One port-forward.
async fn forward(stream: TlsStream<TcpStream>, pods: &Pods) -> Result<()> {
    let mut asked = None;
    let mut socket = accept_hdr_async(stream, Asked(&mut asked)).await?;
    let asked = asked.context("no request")?;
    let (pod, port) = target(&asked).with_context(|| format!("{asked} is no port-forward"))?;
    let [low, high] = port.to_le_bytes();
    for stream in [DATA, ERROR] {
        socket.send(Message::binary(vec![stream, low, high])).await?;
    }
    let connected = match pods.get(pod) {
        Some(Some(address)) => connect(*address, port).await,
        Some(None) => {
            while socket.try_next().await?.is_some() {}
            return Ok(());
        }
        None => Err(std::io::Error::other("no such pod runs here")),
    };
    match connected {
        Ok(stream) => relay(socket, stream).await,
        Err(error) => {
            let why = format!("error forwarding port {port} to pod {pod}: {error}");
            socket.send(Message::binary([&[ERROR], why.as_bytes()].concat())).await?;
            Ok(socket.close(None).await?)
        }
    }
}

/// Pod and port of `/portForward/NAMESPACE/POD?port=PORT`.
fn target(uri: &Uri) -> Option<(&str, u16)> {
    let (_, pod) = uri.path().strip_prefix("/portForward/")?.split_once('/')?;
    let port = uri.query()?.split('&').find_map(|part| part.strip_prefix("port="))?;
    Some((pod, port.parse().ok()?))
}

async fn connect(address: IpAddr, port: u16) -> std::io::Result<TcpStream> {
    let socket = TcpSocket::new_v4()?;
    socket.bind((Ipv4Addr::LOCALHOST, 0).into())?;
    socket.connect((address, port).into()).await
}

/// Passes bytes on in both directions, until one side ends.
async fn relay(mut socket: WebSocketStream<TlsStream<TcpStream>>, mut stream: TcpStream) -> Result<()> {
    let mut buffer = vec![0; 16 * 1024];
    loop {
        tokio::select! {
            read = stream.read(&mut buffer) => match read? {
                0 => return Ok(socket.close(None).await?),
                length => socket.send(Message::binary([&[DATA], &buffer[..length]].concat())).await?,
            },
            message = socket.try_next() => match message? {
                Some(Message::Binary(bytes)) => match bytes.split_first() {
                    Some((&DATA, bytes)) => stream.write_all(bytes).await?,
                    _ => bail!("the API server wrote to a stream that is none"),
                },
                Some(Message::Close(_)) | None => return Ok(()),
                Some(_) => {}
            },
        }
    }
}
