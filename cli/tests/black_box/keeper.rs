//! A proxy that is killed, or ended, and started again beside a keeper of its sockets: nobody is refused meanwhile.
#![allow(clippy::unwrap_used, reason = "a test ends where something is missing")]

use std::{
    fs::Permissions,
    io::{ErrorKind, Read as _},
    net::{Ipv4Addr, SocketAddr, TcpStream},
    os::unix::{fs::PermissionsExt as _, process::CommandExt as _},
    path::PathBuf,
    process::{Child, Command, Stdio},
    sync::atomic::{AtomicU8, Ordering},
};

use crate::support::{
    await_condition,
    backend::Backend,
    command,
    http::{Client, get},
    manifest::{save, service, slices},
    wait,
};

/// Port of the Service.
const PORT: u16 = 8080;

/// Last byte of the next node's address.
static NEXT: AtomicU8 = AtomicU8::new(1);

/// Controller, keeper and proxy on an address of their own, killed when dropped.
struct Node {
    folder: tempfile::TempDir,
    address: Ipv4Addr,
    keeper: PathBuf,
    controller: Child,
    others: Vec<(&'static str, Child)>,
}

impl Node {
    /// The controller alone, with one Service.
    fn new(web: &Backend) -> Self {
        let [high, low] = u16::try_from(std::process::id() % 60_000).unwrap().to_be_bytes();
        let address = Ipv4Addr::new(127, 100 + high % 100, low, NEXT.fetch_add(1, Ordering::Relaxed));
        let folder = tempfile::tempdir().unwrap();
        let manifests = folder.path().join("manifests");
        std::fs::create_dir(&manifests).unwrap();
        let listen = [format!("--listen={address}:5390"), format!("--admin={address}:5381")];
        let controller = command(&["controller", "--horizon=0s", "--manifests"])
            .arg(&manifests)
            .args(listen)
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let keeper = folder.path().join("keeper.sock");
        let node = Self { folder, address, keeper, controller, others: Vec::new() };
        node.serve(web, true);
        node
    }

    /// Whether the mesh has the Service.
    fn serve(&self, web: &Backend, here: bool) {
        let other = service("shop", "other", PORT + 1, "");
        let web = service("shop", "web", PORT, "") + &slices("shop", "web", &[web.address]) + "---\n";
        save(&self.folder.path().join("manifests"), "all.yaml", &(if here { web } else { String::new() } + &other));
    }

    /// Starts a keeper that gives nobody up while a test runs.
    fn keeper(&mut self) {
        self.keeper_that_holds("60s");
    }

    fn keeper_that_holds(&mut self, time: &str) {
        let flags = ["--hold", time];
        let keeper =
            command(&["keeper", "--socket"]).arg(&self.keeper).args(flags).stderr(Stdio::null()).spawn().unwrap();
        self.others.push(("keeper", keeper));
    }

    /// Starts the proxy, and waits until it serves and so many sockets have a copy.
    fn proxy(&mut self, kept: usize) {
        self.start_proxy();
        self.await_kept(kept);
    }

    fn start_proxy(&mut self) {
        let state = self.folder.path().join("state");
        let proxy = command(&["proxy", "--id=proxy", "--threads=1", "--drain-horizon=0s", "--keeper"])
            .arg(&self.keeper)
            .arg(format!("--address={}", self.address))
            .arg(format!("--controller={}:5390", self.address))
            .arg(format!("--admin={}", self.admin()))
            .arg("--state-dir")
            .arg(state)
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        self.others.push(("proxy", proxy));
        await_condition("the proxy is ready", || {
            get(self.admin(), "admin", "/readyz").is_ok_and(|answer| answer.status == 200).then_some(())
        });
    }

    /// Waits until so many sockets have a copy.
    fn await_kept(&self, sockets: usize) {
        let line = format!("maesh_proxy_sockets_kept {sockets}");
        await_condition(&line, || {
            let metrics = get(self.admin(), "admin", "/metrics").ok()?;
            metrics.body.lines().any(|have| have == line).then_some(())
        });
    }

    fn admin(&self) -> SocketAddr {
        (self.address, 5383).into()
    }

    fn web(&self) -> SocketAddr {
        (self.address, PORT).into()
    }

    fn answers(&self) -> bool {
        get(self.web(), "web.shop.maesh", "/").is_ok_and(|answer| answer.status == 200)
    }

    fn kill(&mut self, who: &str) {
        let mut child = self.take(who);
        child.kill().unwrap();
        child.wait().unwrap();
    }

    fn terminate(&mut self, who: &str) {
        let mut child = self.take(who);
        let sent = Command::new("kill").args(["-TERM", &child.id().to_string()]).status().unwrap();
        assert!(sent.success());
        assert_eq!(wait(&mut child).code(), Some(0), "{who}");
    }

    fn take(&mut self, who: &str) -> Child {
        let at = self.others.iter().position(|(name, _)| *name == who).unwrap();
        self.others.swap_remove(at).1
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        for child in self.others.iter_mut().map(|(_, child)| child).chain([&mut self.controller]) {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

/// Connects while no proxy runs, and is answered by the next one.
fn waits(node: &mut Node) {
    let mut callers: Vec<_> = (0..3).map(|_| Client::connect(node.web()).unwrap()).collect();
    let waiting = std::thread::spawn(move || {
        callers
            .iter_mut()
            .map(|caller| caller.get("web.shop.maesh", "/").map(|answer| answer.status))
            .collect::<Vec<_>>()
    });
    node.proxy(2);
    let statuses: Vec<_> = waiting.join().unwrap().into_iter().map(Result::unwrap).collect();
    assert_eq!(statuses, [200; 3]);
}

#[test]
fn nobody_is_refused_while_a_proxy_is_started_again() {
    let web = Backend::http("web");
    let mut node = Node::new(&web);
    node.keeper();
    node.proxy(2);
    assert!(node.answers());
    node.kill("proxy");
    waits(&mut node);
    // Again, with sockets that this process did not make; and when it ends in order.
    node.kill("proxy");
    waits(&mut node);
    node.terminate("proxy");
    waits(&mut node);
}

#[test]
fn both_told_to_end_close_their_ports() {
    let web = Backend::http("web");
    let mut node = Node::new(&web);
    node.keeper();
    node.proxy(2);
    node.terminate("keeper");
    assert!(node.answers(), "with what it has itself");
    node.terminate("proxy");
    assert_eq!(TcpStream::connect(node.web()).unwrap_err().kind(), ErrorKind::ConnectionRefused);
}

#[test]
fn a_keeper_that_comes_late_or_again_is_told_all() {
    let web = Backend::http("web");
    let mut node = Node::new(&web);
    node.proxy(0);
    assert!(node.answers(), "without a keeper");
    node.keeper();
    node.await_kept(2);
    node.kill("keeper");
    node.await_kept(0);
    assert!(node.answers(), "with what it has itself");
    node.keeper();
    node.await_kept(2);
    node.kill("proxy");
    waits(&mut node);
}

#[test]
fn a_port_that_is_closed_is_closed_whoever_has_a_copy_and_can_be_opened_again() {
    let web = Backend::http("web");
    let mut node = Node::new(&web);
    node.keeper();
    node.proxy(2);
    for _ in 0..3 {
        node.serve(&web, false);
        let refused = || TcpStream::connect(node.web()).err().map(|error| error.kind());
        let why = await_condition("the port is closed", refused);
        assert_eq!(why, ErrorKind::ConnectionRefused);
        node.await_kept(1);
        node.serve(&web, true);
        await_condition("the port is open", || node.answers().then_some(()));
        node.await_kept(2);
    }
    // What is not configured any more when the next process comes is closed then.
    node.kill("proxy");
    node.serve(&web, false);
    assert!(TcpStream::connect(node.web()).is_ok(), "it is kept");
    node.start_proxy();
    node.await_kept(1);
    assert_eq!(TcpStream::connect(node.web()).unwrap_err().kind(), ErrorKind::ConnectionRefused);
}

#[test]
fn who_waits_for_a_proxy_that_does_not_come_is_refused_in_the_end() {
    let web = Backend::http("web");
    let mut node = Node::new(&web);
    node.keeper_that_holds("3s");
    node.proxy(2);
    node.kill("proxy");
    let mut waiting = Client::connect(node.web()).unwrap();
    assert!(waiting.get("web.shop.maesh", "/").is_err(), "its connection ends when the time is over");
    assert_eq!(TcpStream::connect(node.web()).unwrap_err().kind(), ErrorKind::ConnectionRefused);
    node.proxy(2);
    assert!(node.answers());
}

#[test]
fn sockets_are_not_given_to_another_user() {
    if !maesh_test_support::need_root() {
        return;
    }
    let web = Backend::http("web");
    let mut node = Node::new(&web);
    node.keeper();
    node.proxy(2);
    // The other user may not reach the folder of the build. Copied by another process, so that no other test's child has
    // it open for writing when it is started.
    let program = node.folder.path().join("maesh");
    let copied = Command::new("cp").args([env!("CARGO_BIN_EXE_maesh").as_ref(), program.as_os_str()]).status().unwrap();
    assert!(copied.success());
    std::fs::set_permissions(node.folder.path(), Permissions::from_mode(0o755)).unwrap();
    let mut other = Command::new(program);
    other.args(["proxy", "--id=other", "--address=127.0.0.1", "--admin=127.0.0.1:0", "--keeper"]).arg(&node.keeper);
    let mut other = other.env_clear().uid(65532).stderr(Stdio::piped()).spawn().unwrap();
    let ended = wait(&mut other);
    let mut said = String::new();
    other.stderr.take().unwrap().read_to_string(&mut said).unwrap();
    assert_eq!(ended.code(), Some(1));
    assert!(said.contains("keeper.sock does not give its sockets: Permission denied"), "{said}");
    assert!(node.answers());
    node.await_kept(2);
}
