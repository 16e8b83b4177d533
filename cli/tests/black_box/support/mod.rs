//! What the black-box tests share: the built binary under `maesh dev`, its events, and backends that can be stopped hard.
//!
//! Everything is on loopback; every mesh has an address range of its own, so tests run side by side.
#![allow(unreachable_pub, reason = "it has no outside")]

pub mod api;
pub mod backend;
pub mod dns_tls;
pub mod h2;
pub mod http;
pub mod load;
pub mod local;
pub mod manifest;
pub mod named;
pub mod openapi;
pub mod page;
pub mod resolver;
pub mod roles;
pub mod tls;

use std::{
    io::{BufRead as _, BufReader, Read as _, Seek as _, Write as _},
    net::{Shutdown, SocketAddr, TcpStream, UdpSocket},
    path::Path,
    process::{Child, Command, ExitStatus, Stdio},
    sync::{
        Arc, Mutex,
        atomic::{AtomicU8, Ordering},
        mpsc::{Receiver, RecvTimeoutError, channel},
    },
    time::{Duration, Instant},
};

use serde_json::Value;

/// Longest wait for anything that should happen at once.
pub const PATIENCE: Duration = Duration::from_secs(20);

/// Second byte of the next address range that is tried, counted from a place of this process's own.
static NEXT_RANGE: AtomicU8 = AtomicU8::new(0);

/// An address range that no other mesh has while this lives, nor one of another process: tests run side by side, and so may
/// checkouts.
pub struct AddressRange {
    second_byte: u32,
    /// On its last address, which is given to nobody: whoever holds this has the range.
    _held: UdpSocket,
}

impl AddressRange {
    /// One that is free.
    pub fn new() -> Self {
        let first = std::process::id().wrapping_mul(7);
        for _ in 0..150 {
            let second_byte = 100 + (first + u32::from(NEXT_RANGE.fetch_add(1, Ordering::Relaxed))) % 150;
            if let Ok(held) = UdpSocket::bind(format!("127.{second_byte}.255.254:5391")) {
                return Self { second_byte, _held: held };
            }
        }
        panic!("every address range is taken");
    }

    /// As flags take it.
    pub fn flag(&self) -> String {
        format!("127.{}.0.0/16", self.second_byte)
    }

    /// What its addresses begin with.
    pub fn prefix(&self) -> String {
        format!("127.{}", self.second_byte)
    }
}

/// A running `maesh dev`, killed when dropped.
pub struct Dev {
    child: Child,
    _range: AddressRange,
    events: Receiver<Value>,
    logs: Arc<Mutex<String>>,
    /// Its `ready` event.
    pub ready: Value,
    /// Events before `ready`.
    pub early: Vec<Value>,
}

impl Dev {
    /// Starts it on `folder` and waits until it is ready.
    pub fn start(folder: &Path) -> Self {
        Self::start_with(folder, &[])
    }

    /// The same with more flags.
    pub fn start_with(folder: &Path, flags: &[&str]) -> Self {
        let (range, mut program) = (AddressRange::new(), command(&[]));
        Self::run(Self::arguments(&mut program, &range).args(flags).arg(folder), range)
    }

    /// The same with these variables in its environment.
    pub fn start_in(environment: &[(&str, &Path)], folder: &Path, flags: &[&str]) -> Self {
        let (range, mut program) = (AddressRange::new(), command(&[]));
        program.envs(environment.iter().copied());
        Self::run(Self::arguments(&mut program, &range).args(flags).arg(folder), range)
    }

    /// As [`Self::start`], as a process that may open so many files.
    pub fn start_limited(folder: &Path, open_files: u32) -> Self {
        let mut shell = command_of("sh");
        shell.args(["-c", &format!("ulimit -n {open_files} && exec \"$@\""), "sh", env!("CARGO_BIN_EXE_maesh")]);
        let range = AddressRange::new();
        Self::run(Self::arguments(&mut shell, &range).arg(folder), range)
    }

    /// Starts it on this text as its standard input.
    pub fn start_on_input(text: &str) -> Self {
        let mut file = tempfile::tempfile().expect("a file");
        file.write_all(text.as_bytes()).expect("written");
        file.rewind().expect("rewound");
        let (range, mut program) = (AddressRange::new(), command(&[]));
        Self::run(Self::arguments(&mut program, &range).arg("-").stdin(file), range)
    }

    fn arguments<'p>(program: &'p mut Command, range: &AddressRange) -> &'p mut Command {
        program
            .args(["dev", "--output", "json", "--dns", "127.0.0.1:0", "--admin", "127.0.0.1:0"])
            .args(["--address-range", &range.flag()])
    }

    fn run(command: &mut Command, range: AddressRange) -> Self {
        let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("maesh starts");
        let (sender, events) = channel();
        let stdout = BufReader::new(child.stdout.take().expect("stdout"));
        std::thread::spawn(move || {
            for line in stdout.lines().map_while(Result::ok) {
                let event = serde_json::from_str(&line).unwrap_or_else(|e| panic!("not JSON: {line:?}: {e}"));
                if sender.send(event).is_err() {
                    break;
                }
            }
        });
        let logs = Arc::new(Mutex::new(String::new()));
        let (kept, mut stderr) = (logs.clone(), child.stderr.take().expect("stderr"));
        std::thread::spawn(move || {
            let mut buffer = [0; 4096];
            while let Ok(length @ 1..) = stderr.read(&mut buffer) {
                kept.lock().expect("logs").push_str(&String::from_utf8_lossy(&buffer[..length]));
            }
        });
        let mut dev = Self { child, _range: range, events, logs, ready: Value::Null, early: Vec::new() };
        loop {
            let event = dev.next_event();
            if event["event"] == "ready" {
                dev.ready = event;
                return dev;
            }
            dev.early.push(event);
        }
    }

    /// The next event; fails the test when none comes in time.
    pub fn next_event(&mut self) -> Value {
        match self.events.recv_timeout(PATIENCE) {
            Ok(event) => event,
            Err(RecvTimeoutError::Timeout) => panic!("no event in {PATIENCE:?}; logs:\n{}", self.logs()),
            Err(RecvTimeoutError::Disconnected) => panic!("maesh ended; logs:\n{}", self.logs()),
        }
    }

    /// The events that nobody asked for, of a process that has ended.
    pub fn remaining(&self) -> Vec<Value> {
        self.events.iter().collect()
    }

    /// Waits for an event of which this holds, skipping others.
    pub fn await_event(&mut self, what: &str, holds: impl Fn(&Value) -> bool) -> Value {
        let end = Instant::now() + PATIENCE;
        loop {
            let event = self.next_event();
            if holds(&event) {
                return event;
            }
            assert!(Instant::now() < end, "no event {what}; logs:\n{}", self.logs());
        }
    }

    /// Waits until a change of this Service is in force.
    pub fn await_changed(&mut self, name: &str) -> Value {
        self.await_event(&format!("changed {name}"), |event| {
            event["event"] == "changed"
                && event["services"].as_array().is_some_and(|list| list.iter().any(|entry| entry["name"] == name))
        })
    }

    /// What it logged so far.
    pub fn logs(&self) -> String {
        self.logs.lock().expect("logs").clone()
    }

    /// Where DNS listens.
    pub fn dns(&self) -> SocketAddr {
        self.ready["dns"].as_str().and_then(|text| text.parse().ok()).expect("dns address")
    }

    /// Where the admin endpoint listens.
    pub fn admin(&self) -> SocketAddr {
        self.ready["admin"].as_str().and_then(|text| text.parse().ok()).expect("admin address")
    }

    /// The entry of a Service in the `ready` table.
    pub fn entry(&self, name: &str) -> &Value {
        let services = self.ready["services"].as_array().expect("services");
        services.iter().find(|entry| entry["name"] == name).unwrap_or_else(|| panic!("{name} is not in {services:?}"))
    }

    /// Where the first port of a Service is served, by the `ready` table.
    pub fn served_at(&self, name: &str) -> SocketAddr {
        served_at(self.entry(name))
    }

    /// Process id.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Sends a signal, by its name without `SIG`.
    pub fn signal(&self, name: &str) {
        let sent = Command::new("kill").args([format!("-{name}"), self.pid().to_string()]).status().expect("kill");
        assert!(sent.success());
    }

    /// Sends SIGTERM and waits for the end.
    pub fn terminate(&mut self) -> ExitStatus {
        self.signal("TERM");
        self.wait()
    }

    /// Waits for the end.
    pub fn wait(&mut self) -> ExitStatus {
        wait(&mut self.child)
    }

    /// A request by the name `web.shop.maesh` is answered by the backend `web`.
    pub fn assert_web_serves(&self) {
        let answer = http::get(self.served_at("web.shop.maesh"), "web.shop.maesh", "/").expect("an answer");
        assert_eq!((answer.status, answer.by()), (200, "web"), "{answer:?}");
    }
}

impl Drop for Dev {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Sends bytes over a TCP stream, ends it, and returns what came back.
pub fn echo(at: SocketAddr, bytes: &[u8]) -> Vec<u8> {
    let mut stream = TcpStream::connect(at).expect("connect");
    stream.set_read_timeout(Some(PATIENCE)).expect("timeout");
    stream.write_all(bytes).expect("write");
    stream.shutdown(Shutdown::Write).expect("shutdown");
    let mut back = Vec::new();
    stream.read_to_end(&mut back).expect("read");
    back
}

/// Where the first port of a table entry is served.
pub fn served_at(entry: &Value) -> SocketAddr {
    let address = entry["address"].as_str().expect("address").parse().expect("an address");
    let port = entry["ports"][0]["listen"].as_u64().and_then(|port| u16::try_from(port).ok()).expect("listen");
    SocketAddr::new(address, port)
}

/// The built binary with these arguments, and nothing of the environment that could change what it does.
pub fn command(arguments: &[&str]) -> Command {
    let mut command = command_of(env!("CARGO_BIN_EXE_maesh"));
    command.args(arguments);
    command
}

/// Another program, with nothing in its environment that `maesh` would heed.
fn command_of(program: &str) -> Command {
    let mut command = Command::new(program);
    for (name, _) in std::env::vars().filter(|(name, _)| name.starts_with("MAESH_") || name == "KUBECONFIG") {
        command.env_remove(name);
    }
    command
}

/// Waits for a process to end, for a bounded time.
pub fn wait(child: &mut Child) -> ExitStatus {
    await_condition("the process ends", || child.try_wait().expect("wait"))
}

/// Asks until there is an answer, for a bounded time.
pub fn await_condition<T>(what: &str, mut ask: impl FnMut() -> Option<T>) -> T {
    let end = Instant::now() + PATIENCE;
    loop {
        if let Some(answer) = ask() {
            return answer;
        }
        assert!(Instant::now() < end, "not within {PATIENCE:?}: {what}");
        std::thread::park_timeout(Duration::from_millis(5));
    }
}

/// Memory of a process, in KiB.
pub fn resident(pid: u32) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).expect("status");
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    line.and_then(|line| line.trim_end_matches("kB").trim().parse().ok()).expect("VmRSS")
}
