//! An API server for tests that does as it is told: it answers, refuses, streams, or stays silent.

#![allow(dead_code, reason = "no test needs all of it")]

use std::{
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

use kube::{Client, Config};
use maesh_controller::api::{self, Limits};
use parking_lot::Mutex;
use serde_json::{Value, json};
use tokio::{
    io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader},
    net::{TcpListener, TcpStream},
    sync::mpsc,
    task::JoinHandle,
};

/// A request.
#[derive(Clone, Debug)]
pub(crate) struct Asked {
    pub(crate) method: String,
    pub(crate) path: String,
    pub(crate) query: String,
    pub(crate) body: Value,
    /// Counts connections, from 0.
    pub(crate) connection: u64,
}

impl Asked {
    /// `GET /api/v1/services`
    pub(crate) fn line(&self) -> String {
        format!("{} {}", self.method, self.path)
    }

    pub(crate) fn is_watch(&self) -> bool {
        self.query.contains("watch=true")
    }
}

/// What is done about a request.
pub(crate) enum Reply {
    Json(u16, Value),
    /// Each value as an event of a watch, until the sender is dropped.
    Events(mpsc::UnboundedReceiver<Value>),
    /// The head of a good answer, and nothing after it.
    Head,
    /// Not a byte, while the connection stays open.
    Nothing,
}

impl Reply {
    /// What the API server says when it does not do something.
    pub(crate) fn refusal(code: u16, reason: &str, message: &str) -> Self {
        let status = json!({"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure", "code": code,
            "reason": reason, "message": message});
        Self::Json(code, status)
    }
}

type Answer = Box<dyn FnMut(Asked) -> Reply + Send>;

/// The server. It ends when it is dropped.
pub(crate) struct Peer {
    address: SocketAddr,
    task: JoinHandle<()>,
}

impl Drop for Peer {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Peer {
    /// Listens on loopback.
    pub(crate) async fn start(answer: impl FnMut(Asked) -> Reply + Send + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let answer: Arc<Mutex<Answer>> = Arc::new(Mutex::new(Box::new(answer)));
        let task = tokio::spawn(async move {
            let connections = AtomicU64::new(0);
            let mut serving = tokio::task::JoinSet::new();
            while let Ok((stream, _)) = listener.accept().await {
                let number = connections.fetch_add(1, Ordering::Relaxed);
                serving.spawn(serve(stream, number, answer.clone()));
            }
        });
        Self { address, task }
    }

    /// A client of it.
    pub(crate) fn client(&self, limits: Limits) -> Client {
        let url = format!("http://{}", self.address).parse().unwrap();
        api::client(Config::new(url), limits).unwrap()
    }
}

/// One connection. An error ends it: the other end has gone.
async fn serve(stream: TcpStream, connection: u64, answer: Arc<Mutex<Answer>>) -> std::io::Result<()> {
    let mut stream = BufReader::new(stream);
    loop {
        let Some(asked) = read(&mut stream, connection).await? else { return Ok(()) };
        let reply = (answer.lock())(asked);
        match reply {
            Reply::Json(code, value) => {
                let body = value.to_string();
                let head = format!(
                    "HTTP/1.1 {code} -\r\ncontent-type: application/json\r\ncontent-length: {}\r\n\r\n",
                    body.len()
                );
                stream.write_all(format!("{head}{body}").as_bytes()).await?;
            }
            Reply::Head => {
                stream
                    .write_all(b"HTTP/1.1 200 -\r\ncontent-type: application/json\r\ncontent-length: 9\r\n\r\n")
                    .await?;
            }
            Reply::Nothing => {}
            Reply::Events(mut events) => {
                let head = "HTTP/1.1 200 -\r\ncontent-type: application/json\r\ntransfer-encoding: chunked\r\n\r\n";
                stream.write_all(head.as_bytes()).await?;
                loop {
                    let mut gone = [0; 1];
                    let event = tokio::select! {
                        event = events.recv() => event,
                        _ = stream.read(&mut gone) => return Ok(()),
                    };
                    let Some(event) = event else { break };
                    let line = format!("{event}\n");
                    stream.write_all(format!("{:x}\r\n{line}\r\n", line.len()).as_bytes()).await?;
                }
                stream.write_all(b"0\r\n\r\n").await?;
            }
        }
    }
}

async fn read(stream: &mut BufReader<TcpStream>, connection: u64) -> std::io::Result<Option<Asked>> {
    let (mut first, mut length) = (String::new(), 0);
    if stream.read_line(&mut first).await? == 0 {
        return Ok(None);
    }
    loop {
        let mut line = String::new();
        stream.read_line(&mut line).await?;
        if line.trim().is_empty() {
            break;
        }
        if let Some((name, value)) =
            line.split_once(':').filter(|(name, _)| name.eq_ignore_ascii_case("content-length"))
        {
            length = value.trim().parse().unwrap_or_else(|_| panic!("{name}: {value}"));
        }
    }
    let mut body = vec![0; length];
    stream.read_exact(&mut body).await?;
    let mut words = first.split(' ');
    let (method, target) = (words.next().unwrap_or_default(), words.next().unwrap_or_default());
    let (path, query) = target.split_once('?').unwrap_or((target, ""));
    Ok(Some(Asked {
        method: method.into(),
        path: path.into(),
        query: query.into(),
        body: serde_json::from_slice(&body).unwrap_or_default(),
        connection,
    }))
}
