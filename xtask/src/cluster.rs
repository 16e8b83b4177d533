//! `cargo xtask cluster`: the test cluster for people. It stays up until it is taken down.

use std::collections::BTreeMap;
use std::env;
use std::ffi::OsString;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};
use clap::Subcommand;
use maesh_test_support::{program, repository, tool};
use maesh_testcluster::{DNS_IMAGE, ECHO_IMAGE, Guard, Options, PAUSE_IMAGE};

use crate::command::collect;
use crate::oci::{self, Compression, Entry, Image};
use crate::tool::ensure;

/// The target with a C library that is linked in and resolves names without plugins.
pub(crate) const TARGET: &str = "x86_64-unknown-linux-musl";

/// What to do with the cluster; there is one on a machine.
#[derive(Subcommand)]
pub(crate) enum Cluster {
    /// Make it anew, building what it needs; returns when CoreDNS answers
    Up {
        /// How many nodes
        #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u8).range(1..=9))]
        nodes: u8,
        /// Give pods and Services IPv6 addresses too
        #[arg(long)]
        dual_stack: bool,
    },
    /// Remove it and everything it left; harmless when there is none
    Down,
    /// Run a command on a node (n1, n2, ...), or beside the API server (lab), with kubectl on its path
    Exec {
        /// Where
        node: String,
        /// The command and its arguments
        #[arg(last = true, required = true)]
        command: Vec<String>,
    },
    /// Give every node an image: an OCI layout as a folder or an archive
    LoadImage {
        /// The folder or file
        file: PathBuf,
    },
    /// Print where the administrator's kubeconfig is; it works inside `exec lab` only
    Kubeconfig,
}

pub(crate) fn run(cluster: &Cluster) -> Result<()> {
    match cluster {
        Cluster::Up { nodes, dual_stack } => {
            let options = Options { nodes: *nodes, dual_stack: *dual_stack, images: images()? };
            let guard = Guard::new(&cleaner()?)?;
            maesh_testcluster::up(&options)?;
            guard.keep()?;
            println!("cargo xtask cluster exec lab -- kubectl get pods --all-namespaces");
            Ok(())
        }
        Cluster::Down => maesh_testcluster::down(),
        Cluster::Exec { node, command } => {
            let status = maesh_testcluster::exec(node, command)?.status().context("starting nsenter")?;
            std::process::exit(status.code().unwrap_or(1));
        }
        Cluster::LoadImage { file } => maesh_testcluster::load_image(file),
        Cluster::Kubeconfig => {
            println!("{}", maesh_testcluster::kubeconfig().display());
            Ok(())
        }
    }
}

/// This program, taking the cluster down.
fn cleaner() -> Result<Vec<OsString>> {
    let own = env::current_exe().context("this program's file")?;
    Ok(vec![own.into_os_string(), "cluster".into(), "down".into()])
}

/// Builds every program and image that the cluster needs; returns the images' archives.
pub(crate) fn images() -> Result<Vec<PathBuf>> {
    for name in ["etcd", "kube-apiserver", "coredns"] {
        let wanted = maesh_test_support::TOOLS.iter().find(|tool| tool.answers_to(name));
        ensure(wanted.with_context(|| format!("no tool is called {name}"))?)?;
    }
    for name in ["containerd", "ctr", "runc", "nft", "conntrack", "tini", "ip", "nsenter", "unshare"] {
        if program(name).is_none() {
            bail!("{name} is missing, the nodes need it: cargo xtask test --setup");
        }
    }
    let pod = build_pod()?;
    let image = |name: &str, file: &Path, entrypoint: &[&str], user: u32| write(name, file, entrypoint, user);
    Ok(vec![
        image(PAUSE_IMAGE, &pod, &["/program", "pause"], 65532)?,
        image(ECHO_IMAGE, &pod, &["/program"], 65532)?,
        image(DNS_IMAGE, &tool("coredns")?, &["/program"], 0)?,
    ])
}

/// Writes an image with one program; the archive lies in the cache.
fn write(name: &str, program: &Path, entrypoint: &[&str], user: u32) -> Result<PathBuf> {
    let file = maesh_testcluster::archive(name);
    let folder = file.parent().unwrap_or_else(|| Path::new("/"));
    fs::create_dir_all(folder).with_context(|| folder.display().to_string())?;
    let content = fs::read(program).with_context(|| program.display().to_string())?;
    // Old enough for any file system, and the same every time.
    let image = Image {
        name: name.to_owned(),
        files: BTreeMap::from([("program".to_owned(), Entry { content, mode: 0o555 })]),
        entrypoint: entrypoint.iter().map(|&word| word.to_owned()).collect(),
        user,
        architecture: "amd64".to_owned(),
        labels: BTreeMap::new(),
        created: 1_000_000_000,
        compression: Compression::None,
    };
    let layout = tempfile::tempdir_in(folder)?;
    oci::write(&image, &layout.path().join("layout"))?;
    let unfinished = layout.path().join("archive");
    oci::archive(&layout.path().join("layout"), &unfinished)?;
    fs::rename(&unfinished, &file).with_context(|| file.display().to_string())?;
    Ok(file)
}

/// Builds what runs in pods, and returns its file.
fn build_pod() -> Result<PathBuf> {
    let mut command = Command::new(env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    command.current_dir(repository()).args([
        "build",
        "--quiet",
        "--locked",
        "--package",
        "maesh-testpod",
        "--target",
        TARGET,
    ]);
    let result = collect("building", &mut command)?;
    if !result.success {
        bail!("the program for pods could not be built (rustup target add {TARGET}?):\n{}", result.output);
    }
    let target = env::var_os("CARGO_TARGET_DIR").map_or_else(|| repository().join("target"), PathBuf::from);
    Ok(target.join(TARGET).join("debug/maesh-testpod"))
}
