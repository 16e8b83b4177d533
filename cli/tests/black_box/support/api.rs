//! A Kubernetes API server that has a few objects, or refuses: what a command says of a cluster in no good state.

use std::{
    fmt::Write as _,
    io::{BufRead as _, BufReader, Write as _},
    net::{SocketAddr, TcpListener, TcpStream},
    path::{Path, PathBuf},
    sync::Arc,
};

use serde_json::{Value, json};

/// Status and body by the path of a request, without its query.
type Answer = dyn Fn(&str) -> (u16, Value) + Send + Sync;

/// It answers for as long as the test's process runs.
pub struct Api {
    folder: tempfile::TempDir,
}

impl Api {
    /// One that has these lists of objects, by path, and no others.
    pub fn with(lists: Vec<(&'static str, Vec<Value>)>) -> Self {
        Self::answering("", move |path| match lists.iter().find(|(of, _)| *of == path) {
            Some((_, items)) => (200, json!({"kind": "List", "apiVersion": "v1", "metadata": {}, "items": items})),
            None => status(404, "NotFound", "the server could not find the requested resource"),
        })
    }

    /// One that knows nobody with this token.
    pub fn refusing(token: &str) -> Self {
        Self::answering(token, |_| status(401, "Unauthorized", "Unauthorized"))
    }

    fn answering(token: &str, answer: impl Fn(&str) -> (u16, Value) + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let address = listener.local_addr().expect("an address");
        let answer: Arc<Answer> = Arc::new(answer);
        std::thread::spawn(move || {
            for stream in listener.incoming().map_while(Result::ok) {
                let answer = answer.clone();
                std::thread::spawn(move || serve(&stream, &*answer));
            }
        });
        let folder = tempfile::tempdir().expect("a folder");
        std::fs::write(folder.path().join("config"), kubeconfig(address, token)).expect("written");
        Self { folder }
    }

    /// A kubeconfig that leads to it.
    pub fn kubeconfig(&self) -> PathBuf {
        Path::new(self.folder.path()).join("config")
    }
}

fn status(code: u16, reason: &str, message: &str) -> (u16, Value) {
    let body = json!({"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure", "reason": reason,
        "message": message, "code": code});
    (code, body)
}

fn kubeconfig(server: SocketAddr, token: &str) -> String {
    let mut text = "apiVersion: v1\nkind: Config\ncurrent-context: c\n".to_owned();
    let _ = writeln!(text, "clusters: [{{name: c, cluster: {{server: 'http://{server}'}}}}]");
    let _ = writeln!(text, "contexts: [{{name: c, context: {{cluster: c, user: u}}}}]");
    let user = if token.is_empty() { String::new() } else { format!("token: {token}") };
    let _ = writeln!(text, "users: [{{name: u, user: {{{user}}}}}]");
    text
}

/// Answers the requests of a connection until it ends. None of them has a body.
fn serve(stream: &TcpStream, answer: &Answer) {
    let mut lines = BufReader::new(stream).lines().map_while(Result::ok);
    while let Some(first) = lines.next() {
        let path = first.split(' ').nth(1).unwrap_or_default().split('?').next().unwrap_or_default().to_owned();
        if !lines.by_ref().any(|line| line.is_empty()) {
            return;
        }
        let (code, body) = answer(&path);
        let body = body.to_string();
        let head =
            format!("HTTP/1.1 {code} X\r\ncontent-type: application/json\r\ncontent-length: {}\r\n\r\n", body.len());
        if (&mut &*stream).write_all((head + &body).as_bytes()).is_err() {
            return;
        }
    }
}
