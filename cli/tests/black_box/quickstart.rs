//! The commands of README.md and docs/start.md, taken from the text and run as they stand, on the addresses that the text
//! names: what they print is what the text shows.
//!
//! It runs in a network namespace, so those addresses are free. `cargo run --release --` there means the program that is
//! built already.
#![allow(clippy::unwrap_used, reason = "a test ends where something is missing")]

use std::{
    fs::{self, Permissions},
    io::{BufRead as _, BufReader},
    net::TcpStream,
    os::unix::fs::PermissionsExt as _,
    process::{Child, Command, Stdio},
    sync::mpsc::{Receiver, channel},
};

use crate::support::{
    PATIENCE, await_condition,
    page::{blocks, lines, page, section, spans, typed},
    wait,
};
use maesh_test_support::{Namespace, need_program, need_root, program};

/// Stands for cargo.
const CARGO: &str = r#"#!/bin/sh
if [ "$1 $2 $3" != "run --release --" ]; then echo "cargo $*: this test runs only the program" >&2; exit 97; fi
shift 3
exec maesh "$@"
"#;

/// Stands for kubectl: the cluster has what the README's manifest has.
const KUBECTL: &str = "#!/bin/sh\nexec cat shop/web.yaml\n";

/// A person's terminal.
struct Terminal(Namespace);

impl Terminal {
    fn open() -> Option<Self> {
        for (name, package) in [("curl", "curl"), ("dig", "bind9-dnsutils"), ("python3", "python3")] {
            need_program(name, package)?;
        }
        if !need_root() {
            return None;
        }
        let namespace = Namespace::new().unwrap();
        let programs = namespace.folder().join("programs");
        fs::create_dir(&programs).unwrap();
        std::os::unix::fs::symlink(env!("CARGO_BIN_EXE_maesh"), programs.join("maesh")).unwrap();
        for (name, text) in [("cargo", CARGO), ("kubectl", KUBECTL)] {
            fs::write(programs.join(name), text).unwrap();
            fs::set_permissions(programs.join(name), Permissions::from_mode(0o755)).unwrap();
        }
        Some(Self(namespace))
    }

    /// A command as it is typed.
    fn command(&self, text: &str) -> Command {
        let mut command = self.0.command("sh");
        let path = std::env::var("PATH").unwrap_or_default();
        for (name, _) in std::env::vars().filter(|(name, _)| name.starts_with("MAESH_") || name == "KUBECONFIG") {
            command.env_remove(name);
        }
        command.env("PATH", format!("{}:{path}", self.0.folder().join("programs").display()));
        command.current_dir(self.0.folder()).args(["-c", text]).stdin(Stdio::null());
        command
    }

    /// What a command prints; it must succeed.
    fn run(&self, text: &str) -> String {
        let output = self.command(text).output().unwrap();
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(output.status.success(), "`{text}` failed ({}): {said}", output.status);
        String::from_utf8(output.stdout).unwrap()
    }

    /// Starts a command that runs until it is ended.
    fn start(&self, text: &str) -> Running {
        let mut child = self.command(&format!("exec {text}")).stdout(Stdio::piped()).spawn().unwrap();
        let (sender, lines) = channel();
        let stdout = BufReader::new(child.stdout.take().unwrap());
        std::thread::spawn(move || stdout.lines().map_while(Result::ok).try_for_each(|line| sender.send(line)));
        Running { child, lines }
    }
}

/// A command that runs; killed when dropped.
struct Running {
    child: Child,
    lines: Receiver<String>,
}

impl Running {
    /// What it prints, up to and including a line of which this holds.
    fn printed_until(&self, what: &str, last: impl Fn(&str) -> bool) -> String {
        let mut text = String::new();
        loop {
            let line = self.lines.recv_timeout(PATIENCE);
            let line = line.unwrap_or_else(|why| panic!("it did not print {what} ({why}), but:\n{text}"));
            text += &line;
            text.push('\n');
            if last(&line) {
                return text;
            }
        }
    }

    /// Ctrl-C.
    fn interrupt(mut self) {
        let sent = Command::new("kill").args(["-INT", &self.child.id().to_string()]).status().unwrap();
        assert!(sent.success());
        assert_eq!(wait(&mut self.child).code(), Some(0));
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[test]
fn readme_quickstart_does_what_it_shows() {
    let Some(terminal) = Terminal::open() else { return };
    let (readme, start) = (page("README.md"), page("docs/start.md"));
    let quickstart = section(&readme, "## Quickstart: your own manifests");

    let manifest = blocks(quickstart, "yaml")[0];
    let name = manifest.lines().next().and_then(|line| line.strip_prefix("# ")).expect("the manifest names its file");
    let file = terminal.0.folder().join(name);
    fs::create_dir_all(file.parent().unwrap()).unwrap();
    fs::write(&file, manifest).unwrap();
    let backend = spans(quickstart).into_iter().find(|code| code.starts_with("python3 ")).expect("a backend");
    let port: u16 = backend.rsplit_once(' ').unwrap().1.parse().unwrap();
    let _backend = terminal.start(&format!("{backend} 2>&1"));
    await_condition("the backend listens", || {
        terminal.0.run(|| TcpStream::connect(("127.0.0.1", port)).ok()).unwrap().map(drop)
    });

    let commands: Vec<_> = blocks(quickstart, "console").into_iter().flat_map(typed).collect();
    assert!(commands.len() >= 4, "{commands:?}");
    let (dev, shown) = &commands[0];
    let last = shown.lines().last().unwrap();
    let running = terminal.start(dev);
    assert_eq!(
        &lines(&running.printed_until(last, |line| line == last)),
        shown,
        "`{dev}` prints what the README shows"
    );
    for (command, shown) in &commands[1..] {
        assert_eq!(&lines(&terminal.run(command)), shown, "`{command}` prints what the README shows");
    }

    // The page that it names, and the second page's commands, which find the same.
    let (_, rest) = quickstart.split_once("<http://").expect("the page of the mesh");
    let listed = terminal.run(&format!("curl --fail --silent http://{}", rest.split_once('>').unwrap().0));
    assert!(listed.contains("web.shop.maesh"), "{listed}");
    let explain = blocks(section(&start, "## Ask why"), "sh")[0];
    assert_eq!(lines(&terminal.run(explain)), commands.last().unwrap().1, "`{explain}`, as the README shows");
    running.interrupt();

    let spans = spans(quickstart);
    let named =
        |start: &str| *spans.iter().find(|code| code.starts_with(start)).unwrap_or_else(|| panic!("no {start}"));
    let json = terminal.start(&format!("{} shop", named("maesh dev --output json")));
    json.printed_until("the event ready", |line| line.contains(r#""event":"ready""#));
    json.interrupt();
    let piped = terminal.start(&format!("sh -c '{}'", named("kubectl get ")));
    piped.printed_until(last, |line| line == last);
}

#[test]
fn readme_demo_prints_commands_that_work() {
    let Some(terminal) = Terminal::open() else { return };
    let demo = blocks(section(&page("README.md"), "## Try it without a cluster"), "sh")[0].to_owned();
    assert_eq!(
        demo,
        blocks(section(&page("docs/start.md"), "## The demo"), "sh")[0],
        "both pages show the same command"
    );
    let running = terminal.start(&demo);
    let printed = running.printed_until("the metrics' command", |line| line.contains("/metrics"));
    let (_, commands) = printed.split_once("Try, in another terminal:").expect("it says what to type");
    let mut ran = 0;
    for command in commands.lines().filter_map(|line| line.strip_prefix("    ")) {
        let first = command.split(' ').next().unwrap();
        match first {
            "edit" => assert!(fs::exists(command.trim_start_matches("edit ")).unwrap(), "{command}"),
            // Its only program that not every machine has.
            "echo" if program("nc").is_none() => {}
            _ => {
                assert!(!terminal.run(command).is_empty(), "`{command}` prints nothing");
                ran += 1;
            }
        }
    }
    assert!(ran >= 5, "{ran} of:\n{commands}");
    running.interrupt();
}
