//! A folder of manifests, from the outside: files are written as editors and volumes write them, and what is
//! published is looked at.

use std::{
    fs,
    io::Write as _,
    os::unix::fs::{PermissionsExt as _, symlink},
    path::Path,
    time::{Duration, Instant},
};

use crate::support::Kept;
use maesh_compiler::{
    compile::{Addressing, Compiler, Config, Range},
    diagnostic::{Diagnostic, Reason, Severity},
};
use maesh_controller::{
    serve::{Controller, Published},
    source::manifests::{Manifests, SETTLE},
};
use tempfile::TempDir;
use tokio::sync::{mpsc, watch};

/// A controller that reads a folder.
struct Mesh {
    folder: TempDir,
    controller: Controller,
    published: mpsc::UnboundedReceiver<Published>,
    _source: Manifests,
    _proxies: watch::Sender<Vec<maesh_compiler::compile::ConnectedProxy>>,
}

impl Mesh {
    /// Starts with what `write` puts into a new folder, and waits for the first configuration.
    async fn new(write: impl FnOnce(&Path)) -> Self {
        let folder = tempfile::tempdir().unwrap();
        write(folder.path());
        Self::of(folder, |folder| folder.to_path_buf()).await
    }

    async fn of(folder: TempDir, path: impl FnOnce(&Path) -> std::path::PathBuf) -> Self {
        let range = Range::new("127.77.0.0/16".parse().unwrap()).unwrap();
        let config = Config { addressing: Addressing::Range(range), selects_pods: true, ..Config::default() };
        let compiler = Compiler::new(config);
        let (source, batches) = Manifests::start(vec![path(folder.path())], compiler.door()).unwrap();
        let (proxies, watched) = watch::channel(Vec::new());
        let (controller, published) =
            Controller::start(compiler, batches, watched, Duration::ZERO, Kept::default()).unwrap();
        let mesh = Self { folder, controller, published, _source: source, _proxies: proxies };
        let mut synced = mesh.controller.state().synced();
        let first = tokio::time::timeout(Duration::from_secs(20), synced.wait_for(|synced| *synced)).await;
        first.expect("a first configuration").unwrap();
        mesh
    }

    fn path(&self, name: &str) -> std::path::PathBuf {
        self.folder.path().join(name)
    }

    /// Waits until `holds`, looking each time that something is published.
    async fn until(&mut self, what: &str, holds: impl Fn(&Self) -> bool) {
        while !holds(self) {
            let next = tokio::time::timeout(Duration::from_secs(20), self.published.recv());
            if next.await.ok().flatten().is_none() {
                panic!("{what}: not seen; {:?} and {:#?}", self.services(), self.problems());
            }
        }
    }

    async fn until_services(&mut self, want: &[&str]) {
        self.until(&format!("{want:?}"), |mesh| mesh.services() == want).await;
    }

    /// The meshed Services with their ports: `a:80`.
    fn services(&self) -> Vec<String> {
        let port = |entry: &maesh_compiler::compile::TableEntry| {
            entry.ports.iter().map(|port| format!(":{}", port.port)).collect::<String>()
        };
        let table = self.controller.state().table();
        table.iter().map(|entry| format!("{}{}", entry.service.name, port(entry))).collect()
    }

    fn problems(&self) -> Vec<Diagnostic> {
        self.controller.state().diagnostics()
    }

    fn has(&self, reason: Reason) -> bool {
        self.problems().iter().any(|problem| problem.reason == reason)
    }
}

fn service(name: &str, port: u16) -> String {
    format!("apiVersion: v1\nkind: Service\nmetadata: {{name: {name}}}\nspec:\n  ports: [{{port: {port}}}]\n---\n")
}

#[tokio::test]
async fn the_ways_in_which_editors_save() {
    let mut mesh = Mesh::new(|folder| fs::write(folder.join("web.yaml"), service("web", 80)).unwrap()).await;
    assert_eq!(mesh.services(), ["web:80"]);
    let file = mesh.path("web.yaml");

    // Truncate and write, in pieces.
    let mut open = fs::File::create(&file).unwrap();
    open.write_all(service("web", 81).as_bytes()).unwrap();
    open.flush().unwrap();
    open.write_all(service("more", 1).as_bytes()).unwrap();
    drop(open);
    mesh.until_services(&["more:1", "web:81"]).await;

    // A new file renamed into place.
    fs::write(mesh.path(".web.yaml.new"), service("web", 82)).unwrap();
    fs::rename(mesh.path(".web.yaml.new"), &file).unwrap();
    mesh.until_services(&["web:82"]).await;

    // The old one renamed away, a new one written: nothing is gone in between.
    let before = mesh.controller.state().counts().compilations;
    let begun = Instant::now();
    fs::rename(&file, mesh.path("web.yaml~")).unwrap();
    fs::write(&file, service("web", 83)).unwrap();
    let in_one_go = begun.elapsed() < SETTLE / 2;
    mesh.until_services(&["web:83"]).await;
    // On a machine that stood still in between, the deletion may have been seen by itself.
    assert!(!in_one_go || mesh.controller.state().counts().compilations == before + 1, "one step");

    fs::remove_file(&file).unwrap();
    mesh.until_services(&[]).await;
    assert_eq!(mesh.problems(), []);
}

#[tokio::test]
async fn a_file_is_not_read_while_it_is_written() {
    let mut mesh = Mesh::new(|folder| fs::write(folder.join("web.yaml"), service("web", 80)).unwrap()).await;
    // The folder is looked at once more shortly after it is watched; that look must not fall between the two steps
    // below, because nobody can tell an empty file from one that is about to be written.
    fs::write(mesh.path("first.yaml"), service("first", 1)).unwrap();
    mesh.until_services(&["first:1", "web:80"]).await;
    let mut open = fs::File::create(mesh.path("web.yaml")).unwrap();
    open.write_all(b"kind: [").unwrap();
    open.sync_all().unwrap();
    // Another file makes it look; a minute of patience is not needed to see that the open one was left alone.
    fs::write(mesh.path("other.yaml"), service("other", 1)).unwrap();
    mesh.until_services(&["first:1", "other:1", "web:80"]).await;
    assert_eq!(mesh.problems(), []);
    drop(open);
    mesh.until("the half file", |mesh| mesh.has(Reason::UnparsableFile)).await;
    assert_eq!(mesh.services(), ["first:1", "other:1", "web:80"], "last good");
}

#[tokio::test]
async fn bad_files_keep_what_they_said_and_say_what_is_wrong() {
    let mut mesh = Mesh::new(|folder| {
        fs::write(folder.join("a.yaml"), service("a", 1)).unwrap();
        fs::write(folder.join("b.yaml"), service("b", 1)).unwrap();
        fs::write(folder.join("bad.yaml"), "{{{").unwrap();
    })
    .await;
    assert_eq!(mesh.services(), ["a:1", "b:1"]);
    assert!(mesh.has(Reason::UnparsableFile));
    fs::remove_file(mesh.path("bad.yaml")).unwrap();
    mesh.until("mended", |mesh| mesh.problems().is_empty()).await;

    fs::write(mesh.path("a.yaml"), "").unwrap();
    mesh.until("emptied", |mesh| mesh.has(Reason::UnparsableFile)).await;
    let problem = mesh.problems().remove(0);
    assert_eq!(problem.severity, Severity::Error);
    assert_eq!(problem.using.as_deref(), Some("its last good objects"));
    assert_eq!(mesh.services(), ["a:1", "b:1"]);

    fs::write(mesh.path("a.yaml"), service("a", 2)).unwrap();
    mesh.until_services(&["a:2", "b:1"]).await;
    assert_eq!(mesh.problems(), []);

    // The same object twice: the first by path stays, whichever came first.
    fs::write(mesh.path("c.yaml"), service("b", 7)).unwrap();
    mesh.until("a duplicate", |mesh| mesh.has(Reason::DuplicateObject)).await;
    assert_eq!(mesh.services(), ["a:2", "b:1"]);
    let said = mesh.problems()[0].message.to_string();
    assert!(said.contains("b.yaml line 1") && said.contains("c.yaml line 1"), "{said}");
    fs::remove_file(mesh.path("b.yaml")).unwrap();
    mesh.until_services(&["a:2", "b:7"]).await;
    assert_eq!(mesh.problems(), []);

    // Text in no known encoding, a name of 255 bytes, kinds that are not read.
    fs::write(mesh.path("d.yaml"), b"a: 1\nb: \xff\n").unwrap();
    mesh.until("not UTF-8", |mesh| mesh.problems().iter().any(|p| p.message.contains("line 2"))).await;
    fs::remove_file(mesh.path("d.yaml")).unwrap();
    let long = format!("{}.yaml", "x".repeat(250));
    fs::write(mesh.path(&long), "apiVersion: apps/v1\nkind: Deployment\nmetadata: {name: x}\n").unwrap();
    mesh.until("an unknown kind", |mesh| mesh.has(Reason::UnknownKind)).await;
    assert_eq!(mesh.problems().len(), 1);
}

#[tokio::test]
async fn a_bad_object_keeps_its_last_good_form() {
    let mut mesh = Mesh::new(|folder| {
        fs::write(folder.join("a.yaml"), service("a", 1) + &service("b", 1)).unwrap();
    })
    .await;
    let bad = "apiVersion: v1\nkind: Service\nmetadata: {name: a}\nspec: {ports: 80}\n---\n";
    fs::write(mesh.path("a.yaml"), bad.to_owned() + &service("b", 2)).unwrap();
    mesh.until_services(&["a:1", "b:2"]).await;
    assert!(mesh.has(Reason::InvalidObject));
    // Never good: left out, with place.
    let mesh = Mesh::new(|folder| fs::write(folder.join("a.yaml"), bad.to_owned() + &service("b", 2)).unwrap()).await;
    assert_eq!(mesh.services(), ["b:2"]);
    let problem = &mesh.problems()[0];
    assert_eq!(problem.line, Some(4));
    assert_eq!(problem.object.to_string(), "Service default/a");
}

#[tokio::test]
async fn directories_come_and_go() {
    let mut mesh = Mesh::of(tempfile::tempdir().unwrap(), |folder| folder.join("later/deeper")).await;
    assert!(mesh.has(Reason::UnreadableFile), "it does not exist");
    fs::create_dir_all(mesh.path("later/deeper/sub")).unwrap();
    fs::write(mesh.path("later/deeper/a.yaml"), service("a", 1)).unwrap();
    let json = r#"{"apiVersion":"v1","kind":"Service","metadata":{"name":"b"},"spec":{"ports":[{"port":1}]}}"#;
    fs::write(mesh.path("later/deeper/sub/b.json"), json).unwrap();
    mesh.until_services(&["a:1", "b:1"]).await;
    mesh.until("nothing wrong", |mesh| mesh.problems().is_empty()).await;
    fs::rename(mesh.path("later/deeper/sub"), mesh.path("sub")).unwrap();
    mesh.until_services(&["a:1"]).await;
    fs::rename(mesh.path("sub"), mesh.path("later/deeper/sub")).unwrap();
    mesh.until_services(&["a:1", "b:1"]).await;
    fs::write(mesh.path("later/deeper/sub/c.yml"), service("c", 1)).unwrap();
    mesh.until_services(&["a:1", "b:1", "c:1"]).await;
    fs::remove_dir_all(mesh.path("later")).unwrap();
    mesh.until_services(&[]).await;
}

#[tokio::test]
async fn a_volume_swaps_all_its_files_at_once() {
    let mut mesh = Mesh::new(|folder| {
        fs::create_dir(folder.join("..1")).unwrap();
        fs::write(folder.join("..1/web.yaml"), service("web", 1)).unwrap();
        symlink("..1", folder.join("..data")).unwrap();
        symlink("..data/web.yaml", folder.join("web.yaml")).unwrap();
    })
    .await;
    assert_eq!(mesh.services(), ["web:1"]);
    fs::create_dir(mesh.path("..2")).unwrap();
    fs::write(mesh.path("..2/web.yaml"), service("web", 2)).unwrap();
    symlink("..2", mesh.path("..data_tmp")).unwrap();
    fs::rename(mesh.path("..data_tmp"), mesh.path("..data")).unwrap();
    fs::remove_dir_all(mesh.path("..1")).unwrap();
    mesh.until_services(&["web:2"]).await;
}

#[tokio::test]
async fn links_in_a_circle_and_things_that_are_no_files() {
    let mesh = Mesh::new(|folder| {
        fs::write(folder.join("a.yaml"), service("a", 1)).unwrap();
        symlink(".", folder.join("circle")).unwrap();
        symlink("nowhere", folder.join("broken.yaml")).unwrap();
        symlink("a.yaml", folder.join("b.yaml")).unwrap();
        fs::create_dir(folder.join("dir.yaml")).unwrap();
    })
    .await;
    assert_eq!(mesh.services(), ["a:1"]);
    let problems: Vec<_> = mesh.problems().into_iter().map(|problem| (problem.reason, problem.file)).collect();
    let named = |name: &str| (Reason::UnreadableFile, Some(mesh.path(name).display().to_string().into()));
    assert_eq!(problems, [named("circle"), named("broken.yaml")], "a circle is no harm, but said");
}

#[tokio::test]
async fn a_file_that_cannot_be_read_says_so() {
    let mesh = Mesh::new(|folder| {
        fs::write(folder.join("a.yaml"), service("a", 1)).unwrap();
        // Too large, also for root; sparse, so it costs nothing.
        let large = fs::File::create(folder.join("large.yaml")).unwrap();
        large.set_len((64 << 20) + 1).unwrap();
        fs::write(folder.join("secret.yaml"), service("secret", 1)).unwrap();
        fs::set_permissions(folder.join("secret.yaml"), fs::Permissions::from_mode(0o0)).unwrap();
    })
    .await;
    assert!(mesh.services().contains(&"a:1".to_owned()));
    let unreadable: Vec<_> = mesh.problems().into_iter().filter(|p| p.reason == Reason::UnreadableFile).collect();
    assert!(unreadable.iter().any(|problem| problem.message.contains("64 MiB")), "{unreadable:#?}");
    // Root may read everything.
    assert_eq!(unreadable.len() == 2, !mesh.services().contains(&"secret:1".to_owned()));
}
