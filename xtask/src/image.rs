//! `cargo xtask image`: the one static binary as a container image, and the list of what is in it.
//!
//! Everything that could differ between two machines is fixed: paths are mapped away, times are the commit's, and
//! [`oci`] does the rest. The binary is linked with musl: it needs no file of the system to run, and names are resolved
//! by asking the servers of `/etc/resolv.conf`, without NSS.

mod sbom;

use std::collections::BTreeMap;
use std::env;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};
use clap::Args;
use maesh_test_support::{program, repository};

use crate::command::{collect, quietly};
use crate::oci::{self, Compression, Entry, Image, Written};

/// What to build, and where to.
#[derive(Args)]
pub(crate) struct Options {
    /// Folder for the image (`oci/`, `maesh.tar`) and its list of parts (`maesh.spdx.json`)
    #[arg(long, value_name = "FOLDER", default_value = FOLDER)]
    output: PathBuf,
    /// Whole name of the image; its tag is the version where none is given
    #[arg(long, default_value = NAME)]
    name: String,
    /// How the layer is compressed
    #[arg(long, value_enum, default_value_t = Compression::Zstd)]
    compression: Compression,
    /// Put this static binary into the image, instead of building one
    #[arg(long, value_name = "FILE")]
    binary: Option<PathBuf>,
}

const FOLDER: &str = "target/image";
const NAME: &str = "localhost/maesh";

impl Default for Options {
    fn default() -> Self {
        Self { output: FOLDER.into(), name: NAME.to_owned(), compression: Compression::Zstd, binary: None }
    }
}

/// What the image is built for: a C library that is linked in and resolves names without plugins.
pub(crate) const TARGET: &str = "x86_64-unknown-linux-musl";

/// What the image's binary has that a quick build does not: its allocator.
pub(crate) const FEATURES: &str = "maesh/jemalloc";

/// The user it runs as; known as "nonroot" elsewhere.
pub(crate) const USER: u32 = 65532;

/// Bytes that the image must not exceed, and those it should not: as files, and as it travels.
const SIZES: [(&str, u64, u64); 2] = [("files", 16_000_000, 12_000_000), ("compressed", 5_500_000, 4_500_000)];

/// Builds the image, writes it and prints its digest and sizes; an error when it is larger than it must be.
pub(crate) fn run(options: &Options) -> Result<()> {
    let binary = match &options.binary {
        Some(file) => file.clone(),
        None => build()?,
    };
    quietly(Command::new(&binary).arg("--version")).context("it does not start")?;
    let commit = Commit::here();
    let tagged = options.name.rsplit('/').next().is_some_and(|last| last.contains(':'));
    let version = env!("CARGO_PKG_VERSION");
    let name = if tagged { options.name.clone() } else { format!("{}:{version}", options.name) };
    let image = image(&name, &binary, options.compression, &commit)?;
    fs::create_dir_all(&options.output).with_context(|| options.output.display().to_string())?;
    let layout = options.output.join("oci");
    let written = oci::write(&image, &layout)?;
    oci::archive(&layout, &options.output.join("maesh.tar"))?;
    let parts = sbom::document(TARGET, &written.digest, commit.time)?;
    let file = options.output.join("maesh.spdx.json");
    fs::write(&file, serde_json::to_vec_pretty(&parts)?).with_context(|| file.display().to_string())?;
    println!("{}@{}", image.name, written.digest);
    for name in ["oci", "maesh.tar", "maesh.spdx.json"] {
        println!("{}", options.output.join(name).display());
    }
    judge(&written)
}

/// The image called `name` with a `binary` that was built for tests.
pub(crate) fn quick(name: &str, binary: &Path) -> Result<Image> {
    image(name, binary, Compression::None, &Commit::here())
}

fn image(name: &str, binary: &Path, compression: Compression, commit: &Commit) -> Result<Image> {
    let content = fs::read(binary).with_context(|| binary.display().to_string())?;
    needs_nothing(&content).with_context(|| binary.display().to_string())?;
    let created = jiff::Timestamp::from_second(commit.time).context("the time of the commit")?.to_string();
    let label = |key: &str, value: &str| (format!("org.opencontainers.image.{key}"), value.to_owned());
    Ok(Image {
        name: name.to_owned(),
        files: BTreeMap::from([
            ("maesh".to_owned(), Entry { content, mode: 0o555 }),
            ("etc/ssl/certs/ca-certificates.crt".to_owned(), Entry { content: authorities(), mode: 0o444 }),
        ]),
        entrypoint: vec!["/maesh".to_owned()],
        user: USER,
        architecture: "amd64".to_owned(),
        labels: BTreeMap::from([
            label("title", "maesh"),
            label("description", "A service mesh for Kubernetes without sidecars"),
            label("licenses", "Apache-2.0"),
            label("version", env!("CARGO_PKG_VERSION")),
            label("revision", &commit.revision),
            label("created", &created),
        ]),
        created: commit.time,
        compression,
    })
}

/// Builds the image's binary and returns its file.
pub(crate) fn build() -> Result<PathBuf> {
    // The C parts (TLS, the allocator) need its headers.
    if program("musl-gcc").is_none() {
        bail!("musl-gcc is missing, the C parts are built with it: apt-get install musl-tools");
    }
    let cargo = env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let target = env::var_os("CARGO_TARGET_DIR").map_or_else(|| repository().join("target"), PathBuf::from);
    let home = home()?;
    // Otherwise messages and panics would name the folders of the machine that built it.
    let mapped = [(repository(), "/maesh"), (home.as_path(), "/cargo"), (target.as_path(), "/target")];
    let (mut rust, mut c) = (Vec::new(), Vec::new());
    for (from, to) in &mapped {
        rust.push(format!("--remap-path-prefix={}={to}", from.display()));
        c.push(format!("-ffile-prefix-map={}={to}", from.display()));
    }
    // Relocations take 0.7 MB less so; the C library that is linked in knows them.
    rust.push("-Clink-arg=-Wl,-z,pack-relative-relocs".to_owned());
    let mut command = Command::new(cargo);
    command
        .current_dir(repository())
        .env_remove("RUSTFLAGS")
        .env("CARGO_ENCODED_RUSTFLAGS", rust.join("\u{1f}"))
        .env("CC_x86_64_unknown_linux_musl", "musl-gcc")
        .env("CFLAGS_x86_64_unknown_linux_musl", c.join(" "))
        .args(["rustc", "--profile", "dist", "--target", TARGET, "--package", "maesh", "--bin", "maesh", "--locked"])
        .args(["--features", FEATURES])
        // The profile asks for it as well, which does not reach the linker together with the settings of packages.
        .args(["--", "-Cstrip=symbols", "-Clink-arg=-Wl,--no-eh-frame-hdr"])
        // Seen from the repository, where cargo has members compiled.
        .arg("-Clink-arg=-Wl,-T,xtask/src/image/unwind.ld");
    let result = collect("building", &mut command)?;
    if !result.success {
        if result.output.contains("can't find crate for `core`") {
            bail!("the compiler has no standard library for it: rustup target add {TARGET}");
        }
        bail!("the binary could not be built:\n{}", result.output);
    }
    Ok(target.join(TARGET).join("dist/maesh"))
}

/// Where cargo keeps third-party sources.
fn home() -> Result<PathBuf> {
    if let Some(home) = env::var_os("CARGO_HOME") {
        return Ok(home.into());
    }
    env::var_os("HOME").map(|home| Path::new(&home).join(".cargo")).context("neither CARGO_HOME nor HOME is set")
}

/// An error when `binary` asks for an interpreter, which an image without any other file does not have.
fn needs_nothing(binary: &[u8]) -> Result<()> {
    /// Type of the program header that names an interpreter.
    const INTERPRETER: u32 = 3;
    let number = |at: usize, bytes: usize| -> Option<u64> {
        let mut value = [0; 8];
        value.get_mut(..bytes)?.copy_from_slice(binary.get(at..at + bytes)?);
        Some(u64::from_le_bytes(value))
    };
    let headers = || -> Option<Vec<u32>> {
        if binary.get(..5)? != b"\x7fELF\x02" {
            return None;
        }
        let (start, size, count) = (number(32, 8)?, number(54, 2)?, number(56, 2)?);
        (0..count).map(|i| number(usize::try_from(start + i * size).ok()?, 4).map(|kind| kind as u32)).collect()
    };
    let kinds = headers().context("it is no 64-bit ELF program")?;
    if kinds.contains(&INTERPRETER) {
        bail!("it is linked dynamically and would not start in an empty image; build it for {TARGET}");
    }
    Ok(())
}

/// Mozilla's certificate authorities, from the crate webpki-root-certs, as rustls finds them in `/etc/ssl/certs`.
fn authorities() -> Vec<u8> {
    let certificates: Vec<pem::Pem> =
        webpki_root_certs::TLS_SERVER_ROOT_CERTS.iter().map(|der| pem::Pem::new("CERTIFICATE", der.to_vec())).collect();
    pem::encode_many_config(&certificates, pem::EncodeConfig::new().set_line_ending(pem::LineEnding::LF)).into_bytes()
}

/// What the image is built from.
struct Commit {
    /// Its hash; `unknown` outside of a repository, with `-dirty` when files differ from it.
    revision: String,
    /// When it was made, in seconds since 1970, unless SOURCE_DATE_EPOCH says otherwise; 0 where nothing is known.
    time: i64,
}

impl Commit {
    fn here() -> Self {
        let git = |arguments: &[&str]| {
            quietly(Command::new("git").current_dir(repository()).args(arguments))
                .ok()
                .map(|text| text.trim().to_owned())
        };
        let mut revision = git(&["rev-parse", "HEAD"]).unwrap_or_else(|| "unknown".to_owned());
        if git(&["status", "--porcelain", "--untracked-files=no"]).is_some_and(|text| !text.is_empty()) {
            revision.push_str("-dirty");
        }
        let epoch = env::var("SOURCE_DATE_EPOCH").ok().or_else(|| git(&["log", "-1", "--format=%ct"]));
        Self { revision, time: epoch.and_then(|text| text.trim().parse().ok()).unwrap_or(0) }
    }
}

/// Prints the sizes beside what they must and should be; an error when one must not be as large.
fn judge(written: &Written) -> Result<()> {
    let mut excess = Vec::new();
    for ((name, must, goal), size) in SIZES.iter().zip([written.size, written.compressed]) {
        let verdict = if size <= *goal {
            "reaches the goal"
        } else if size <= *must {
            "as small as it must be, the goal is missed"
        } else {
            excess.push(*name);
            "TOO LARGE"
        };
        println!("{name:<10} {size:>10} bytes (must {must}, goal {goal}): {verdict}");
    }
    if excess.is_empty() { Ok(()) } else { bail!("the image is larger than it must be: {}", excess.join(", ")) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_size_over_the_limit_is_an_error() {
        let written = |size, compressed| Written { digest: String::new(), size, compressed };
        for (case, size, compressed, fits) in [
            ("both small", 11_000_000, 4_000_000, true),
            ("at the limits", 16_000_000, 5_500_000, true),
            ("files too large", 16_000_001, 4_000_000, false),
            ("compressed too large", 11_000_000, 5_500_001, false),
        ] {
            assert_eq!(judge(&written(size, compressed)).is_ok(), fits, "{case}");
        }
    }

    #[test]
    fn a_binary_that_needs_an_interpreter_is_refused() {
        let this = fs::read(env::current_exe().unwrap()).unwrap();
        assert!(needs_nothing(&this).unwrap_err().to_string().contains("dynamically"));
        assert!(needs_nothing(b"#!/bin/sh\n").is_err());
        let (mut elf, load) = (vec![0; 64 + 56], 1);
        elf[..5].copy_from_slice(b"\x7fELF\x02");
        (elf[32], elf[54], elf[56], elf[64]) = (64, 56, 1, load);
        needs_nothing(&elf).unwrap();
    }

    #[test]
    fn the_authorities_are_certificates() {
        let parsed = pem::parse_many(authorities()).unwrap();
        assert!(parsed.len() > 100 && parsed.iter().all(|pem| pem.tag() == "CERTIFICATE"));
    }
}
