//! `cargo xtask cluster`: the test cluster for people. It stays up until it is taken down.

mod images;

use std::env;
use std::ffi::OsString;
use std::path::PathBuf;

use anyhow::{Context, Result};
use clap::Subcommand;
use maesh_testcluster::{Guard, Options};

pub(crate) use images::{further_images, images};

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
    /// Build the images that the cluster's nodes are given, the mesh's among them (quickly), and print where they are
    Images {
        /// Also those that only long tests need: an old CoreDNS's, and the mesh's of the commit before, which takes
        /// minutes the first time
        #[arg(long)]
        all: bool,
        /// Which commit is the one before; without it the last one, or while everything is committed the one before that
        #[arg(long, requires = "all", value_name = "COMMIT")]
        before: Option<String>,
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
        Cluster::Images { all, before } => {
            let further = if *all { further_images(before.as_deref())? } else { Vec::new() };
            for image in images()?.iter().chain(&further) {
                println!("{}", image.display());
            }
            Ok(())
        }
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
