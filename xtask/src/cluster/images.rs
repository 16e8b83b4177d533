//! The images that the test cluster's nodes are given: there is no registry.
//!
//! The mesh's is what `cargo xtask image` makes, but for the profile: a build with all optimisations takes minutes, and
//! a build for tests has its assertions.

use std::collections::BTreeMap;
use std::env;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::UNIX_EPOCH;

use anyhow::{Context, Result, bail};
use maesh_test_support::{program, repository, tool};
use maesh_testcluster::{
    BEFORE_IMAGE, COLLECTOR_IMAGE, DNS_IMAGE, ECHO_IMAGE, GLIBC_IMAGE, MESH_IMAGE, OLD_DNS_IMAGE, PAUSE_IMAGE, archive,
};

use crate::command::{collect, quietly};
use crate::image::{self, TARGET, USER};
use crate::oci::{self, Compression, Entry, Image};
use crate::tool::ensure;

/// Builds every program and image that the cluster needs; returns the images' archives.
pub(crate) fn images() -> Result<Vec<PathBuf>> {
    for name in ["etcd", "kube-apiserver", "coredns", "helm4"] {
        built(name)?;
    }
    for name in ["containerd", "ctr", "runc", "nft", "conntrack", "tini", "ip", "nsenter", "unshare"] {
        if program(name).is_none() {
            bail!("{name} is missing, the nodes need it: cargo xtask test --setup");
        }
    }
    let (here, target) = (repository(), target());
    let musl = build(here, &target, &["maesh", "maesh-testpod"], Some(TARGET))?;
    let glibc = build(here, &target, &["maesh-testpod"], None)?;
    let (pod, pod_glibc, mesh) = (musl.join("maesh-testpod"), glibc.join("maesh-testpod"), musl.join("maesh"));
    let coredns = built("coredns")?;
    Ok(vec![
        current(PAUSE_IMAGE, &pod, |name| Ok(image(name, one(&pod)?, &["/program", "pause"], USER)))?,
        current(ECHO_IMAGE, &pod, |name| Ok(image(name, one(&pod)?, &["/program"], USER)))?,
        current(GLIBC_IMAGE, &pod_glibc, |name| Ok(image(name, with_libraries(&pod_glibc)?, &["/program"], USER)))?,
        current(DNS_IMAGE, &coredns, |name| Ok(image(name, one(&coredns)?, &["/program"], 0)))?,
        current(MESH_IMAGE, &mesh, |name| image::quick(name, &mesh))?,
    ])
}

/// Builds the images that only long tests need; returns their archives. `commit` is the one before, if that is named.
pub(crate) fn further_images(commit: Option<&str>) -> Result<Vec<PathBuf>> {
    let coredns = built("coredns-old")?;
    let old = current(OLD_DNS_IMAGE, &coredns, |name| Ok(image(name, one(&coredns)?, &["/program"], 0)))?;
    let otelcol = built("otelcol")?;
    let collector = current(COLLECTOR_IMAGE, &otelcol, |name| Ok(image(name, one(&otelcol)?, &["/program"], USER)))?;
    Ok(vec![old, collector, before(commit)?])
}

/// A program of others, built unless it is there.
fn built(name: &str) -> Result<PathBuf> {
    let wanted = maesh_test_support::TOOLS.iter().find(|tool| tool.answers_to(name));
    ensure(wanted.with_context(|| format!("no tool is called {name}"))?)?;
    Ok(tool(name)?)
}

/// The files of an image that is one program.
fn one(program: &Path) -> Result<BTreeMap<String, Entry>> {
    Ok(BTreeMap::from([("program".to_owned(), entry(program)?)]))
}

/// Builds the mesh's image of the commit before this state of the repository, for tests of a change of version; returns
/// its archive. That commit is the last one while something is not committed yet, if none is named.
fn before(commit: Option<&str>) -> Result<PathBuf> {
    let git = |arguments: &[&str]| quietly(Command::new("git").current_dir(repository()).args(arguments));
    let last = if git(&["status", "--porcelain"])?.is_empty() { "HEAD~1" } else { "HEAD" };
    let commit = commit.unwrap_or(last);
    let commit = git(&["rev-parse", "--verify", &format!("{commit}^{{commit}}")])?.trim().to_owned();
    let target = target().join("before");
    let sources = target.join("sources");
    if !fs::read_to_string(target.join("commit")).is_ok_and(|known| known == commit) {
        if sources.exists() {
            fs::remove_dir_all(&sources)?;
        }
        fs::create_dir_all(&sources).with_context(|| sources.display().to_string())?;
        let tar = target.join("sources.tar");
        git(&["archive", "--output", &tar.display().to_string(), &commit])?;
        quietly(Command::new("tar").arg("-xf").arg(&tar).arg("-C").arg(&sources))?;
        fs::write(target.join("commit"), &commit)?;
    }
    let mesh = build(&sources, &target, &["maesh"], Some(TARGET))?.join("maesh");
    current(BEFORE_IMAGE, &mesh, |name| image::quick(name, &mesh))
}

/// The image's archive, written anew only when `program` has changed since.
fn current(name: &str, program: &Path, image: impl FnOnce(&str) -> Result<Image>) -> Result<PathBuf> {
    let file = archive(name);
    let metadata = fs::metadata(program).with_context(|| program.display().to_string())?;
    let changed = metadata.modified()?.duration_since(UNIX_EPOCH)?.as_nanos();
    let key = format!("{} {} {changed}", program.display(), metadata.len());
    let stamp = file.with_extension("key");
    if file.exists() && fs::read_to_string(&stamp).is_ok_and(|known| known == key) {
        return Ok(file);
    }
    let folder = file.parent().unwrap_or_else(|| Path::new("/"));
    fs::create_dir_all(folder).with_context(|| folder.display().to_string())?;
    let layout = tempfile::tempdir_in(folder)?;
    oci::write(&image(name)?, &layout.path().join("layout"))?;
    let unfinished = layout.path().join("archive");
    oci::archive(&layout.path().join("layout"), &unfinished)?;
    fs::rename(&unfinished, &file).with_context(|| file.display().to_string())?;
    fs::write(&stamp, key).with_context(|| stamp.display().to_string())?;
    Ok(file)
}

fn image(name: &str, files: BTreeMap<String, Entry>, entrypoint: &[&str], user: u32) -> Image {
    Image {
        name: name.to_owned(),
        files,
        entrypoint: entrypoint.iter().map(|&word| word.to_owned()).collect(),
        user,
        architecture: "amd64".to_owned(),
        labels: BTreeMap::new(),
        // Old enough for any file system, and the same every time.
        created: 1_000_000_000,
        compression: Compression::None,
    }
}

fn entry(file: &Path) -> Result<Entry> {
    Ok(Entry { content: fs::read(file).with_context(|| file.display().to_string())?, mode: 0o555 })
}

/// `program` with the libraries of this system that it is linked with.
fn with_libraries(program: &Path) -> Result<BTreeMap<String, Entry>> {
    let mut files = BTreeMap::from([
        ("program".to_owned(), entry(program)?),
        ("etc/nsswitch.conf".to_owned(), Entry { content: b"hosts: files dns\n".to_vec(), mode: 0o444 }),
    ]);
    let list = quietly(Command::new("ldd").arg(program))?;
    for library in list.split_whitespace().filter(|word| word.starts_with('/')) {
        files.insert(library.trim_start_matches('/').to_owned(), entry(Path::new(library))?);
    }
    Ok(files)
}

/// Where this state of the repository is built.
fn target() -> PathBuf {
    env::var_os("CARGO_TARGET_DIR").map_or_else(|| repository().join("target"), PathBuf::from)
}

/// Builds programs of the workspace in `sources` without optimisation, and returns the folder they are in.
fn build(sources: &Path, folder: &Path, packages: &[&str], target: Option<&str>) -> Result<PathBuf> {
    let mut command = Command::new(env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    command.current_dir(sources).args(["build", "--quiet", "--locked", "--bins"]).arg("--target-dir").arg(folder);
    for package in packages {
        command.args(["--package", package]);
    }
    // As in the image that is shipped. In versions before, the allocator was no feature.
    let has_feature =
        fs::read_to_string(sources.join("cli/Cargo.toml")).is_ok_and(|text| text.contains("\njemalloc = "));
    if packages.contains(&"maesh") && has_feature {
        command.args(["--features", image::FEATURES]);
    }
    let mut built = folder.join("debug");
    if let Some(target) = target {
        if program("musl-gcc").is_none() {
            bail!("musl-gcc is missing, the C parts are built with it: apt-get install musl-tools");
        }
        built = folder.join(target).join("debug");
        // The lines of panics stay; the rest would be most of an image.
        let flags = format!("CARGO_TARGET_{}_RUSTFLAGS", target.to_uppercase().replace('-', "_"));
        command.args(["--target", target]).env(flags, "-Cstrip=debuginfo");
        command.env(format!("CC_{}", target.replace('-', "_")), "musl-gcc");
    }
    let result = collect("building", &mut command)?;
    if !result.success {
        bail!("{packages:?} could not be built (rustup target add {TARGET}?):\n{}", result.output);
    }
    Ok(built)
}
