//! Writes an image as an OCI layout, without a daemon and without a base image.
//!
//! The same input gives the same bytes on every machine and at any time: entries are sorted, owners are numbers, every
//! time is the one that the caller gives, JSON has sorted keys, and nothing is taken from the file system but contents.

use std::collections::BTreeMap;
use std::fs;
use std::io::Write;
use std::path::Path;

use anyhow::{Context, Result};
use flate2::{Compression as Level, GzBuilder};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use tar::{Builder, EntryType, Header};

/// What the image holds and says of itself.
#[derive(Debug, Clone)]
pub(crate) struct Image {
    /// Whole name with tag, such as `localhost/maesh:0.1.0`.
    pub(crate) name: String,
    /// Files by their path from the root, without a leading slash. Folders are made as needed.
    pub(crate) files: BTreeMap<String, Entry>,
    /// The program and its first arguments.
    pub(crate) entrypoint: Vec<String>,
    /// User and group, as numbers: a name could not be proven not to be root.
    pub(crate) user: u32,
    /// Architecture as Go calls it: amd64, arm64.
    pub(crate) architecture: String,
    /// Labels, also set as annotations of the manifest.
    pub(crate) labels: BTreeMap<String, String>,
    /// Seconds since 1970 that every time in the image says.
    pub(crate) created: i64,
    /// How the one layer is compressed.
    pub(crate) compression: Compression,
}

/// A file of the image.
#[derive(Debug, Clone)]
pub(crate) struct Entry {
    /// What is in it.
    pub(crate) content: Vec<u8>,
    /// Permissions, such as 0o555.
    pub(crate) mode: u32,
}

/// How a layer is compressed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Compression {
    /// What every runtime and registry reads
    Gzip,
    /// A quarter smaller; containerd 1.5, CRI-O 1.20, Docker 23 and newer read it
    Zstd,
    /// Not at all: quickest to make and to unpack on the same machine
    None,
}

/// What was written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Written {
    /// Digest of the manifest: the image's.
    pub(crate) digest: String,
    /// Bytes of all files.
    pub(crate) size: u64,
    /// Bytes of the compressed layer.
    pub(crate) compressed: u64,
}

impl Compression {
    fn media_type(self) -> &'static str {
        match self {
            Self::Gzip => "application/vnd.oci.image.layer.v1.tar+gzip",
            Self::Zstd => "application/vnd.oci.image.layer.v1.tar+zstd",
            Self::None => "application/vnd.oci.image.layer.v1.tar",
        }
    }

    /// Compresses as small as it gets.
    ///
    /// # Errors
    /// When the library refuses.
    fn compress(self, bytes: &[u8]) -> Result<Vec<u8>> {
        match self {
            Self::Gzip => {
                // No file name and no time in the header.
                let mut writer = GzBuilder::new().mtime(0).write(Vec::new(), Level::best());
                writer.write_all(bytes)?;
                Ok(writer.finish()?)
            }
            Self::Zstd => Ok(zstd::bulk::compress(bytes, 19)?),
            Self::None => Ok(bytes.to_vec()),
        }
    }
}

/// Writes `image` as an OCI layout into the folder `layout`, which is made anew.
///
/// # Errors
/// When the folder cannot be written.
pub(crate) fn write(image: &Image, layout: &Path) -> Result<Written> {
    if layout.exists() {
        fs::remove_dir_all(layout).with_context(|| layout.display().to_string())?;
    }
    let blobs = layout.join("blobs/sha256");
    fs::create_dir_all(&blobs).with_context(|| blobs.display().to_string())?;
    let store = |bytes: &[u8], media_type: &str| -> Result<Value> {
        let hash = sha256(bytes);
        fs::write(blobs.join(&hash), bytes).with_context(|| blobs.join(&hash).display().to_string())?;
        Ok(json!({ "mediaType": media_type, "digest": format!("sha256:{hash}"), "size": bytes.len() }))
    };
    let tar = layer(image)?;
    let compressed = image.compression.compress(&tar)?;
    let layer = store(&compressed, image.compression.media_type())?;
    let config = config(image, &sha256(&tar))?;
    let config = store(&serde_json::to_vec(&config)?, "application/vnd.oci.image.config.v1+json")?;
    let manifest = json!({
        "schemaVersion": 2,
        "mediaType": "application/vnd.oci.image.manifest.v1+json",
        "config": config,
        "layers": [layer],
        "annotations": image.labels,
    });
    let mut manifest = store(&serde_json::to_vec(&manifest)?, "application/vnd.oci.image.manifest.v1+json")?;
    let digest = manifest["digest"].as_str().unwrap_or_default().to_owned();
    let tag = image.name.rsplit_once(':').map_or("latest", |(_, tag)| tag);
    manifest["platform"] = json!({ "architecture": image.architecture, "os": "linux" });
    // The first is read by containerd, the second by everything else.
    manifest["annotations"] =
        json!({ "io.containerd.image.name": image.name, "org.opencontainers.image.ref.name": tag });
    let index = json!({
        "schemaVersion": 2,
        "mediaType": "application/vnd.oci.image.index.v1+json",
        "manifests": [manifest],
    });
    fs::write(layout.join("index.json"), serde_json::to_vec(&index)?)?;
    fs::write(layout.join("oci-layout"), r#"{"imageLayoutVersion":"1.0.0"}"#)?;
    let size = image.files.values().map(|entry| entry.content.len() as u64).sum();
    Ok(Written { digest, size, compressed: compressed.len() as u64 })
}

/// Writes the layout as one tar archive, as `ctr images import`, `podman load` and `docker load` take it.
///
/// # Errors
/// When the layout cannot be read or the archive not written.
pub(crate) fn archive(layout: &Path, file: &Path) -> Result<()> {
    let mut files = BTreeMap::new();
    for name in ["index.json", "oci-layout"] {
        files.insert(name.to_owned(), Entry { content: fs::read(layout.join(name))?, mode: 0o644 });
    }
    for blob in fs::read_dir(layout.join("blobs/sha256"))? {
        let blob = blob?;
        let name = format!("blobs/sha256/{}", blob.file_name().to_string_lossy());
        files.insert(name, Entry { content: fs::read(blob.path())?, mode: 0o644 });
    }
    let bytes = tar(&files, 0)?;
    fs::write(file, bytes).with_context(|| file.display().to_string())
}

/// The one layer, not compressed.
fn layer(image: &Image) -> Result<Vec<u8>> {
    tar(&image.files, u64::try_from(image.created).unwrap_or_default())
}

/// A tar archive of `files` and the folders they are in, owned by root, all of the same time.
fn tar(files: &BTreeMap<String, Entry>, time: u64) -> Result<Vec<u8>> {
    let mut entries: BTreeMap<String, Option<&Entry>> = BTreeMap::new();
    for (path, entry) in files {
        for (end, _) in path.match_indices('/') {
            entries.insert(path[..=end].to_owned(), None);
        }
        entries.insert(path.clone(), Some(entry));
    }
    let mut builder = Builder::new(Vec::new());
    for (path, entry) in entries {
        let mut header = Header::new_ustar();
        header.set_mtime(time);
        header.set_uid(0);
        header.set_gid(0);
        let content = match entry {
            Some(entry) => {
                header.set_entry_type(EntryType::Regular);
                header.set_mode(entry.mode);
                entry.content.as_slice()
            }
            None => {
                header.set_entry_type(EntryType::Directory);
                header.set_mode(0o755);
                &[]
            }
        };
        header.set_size(content.len() as u64);
        builder.append_data(&mut header, &path, content).with_context(|| path.clone())?;
    }
    Ok(builder.into_inner()?)
}

fn config(image: &Image, layer: &str) -> Result<Value> {
    let created = jiff::Timestamp::from_second(image.created).context("the time of the image")?.to_string();
    Ok(json!({
        "created": created,
        "architecture": image.architecture,
        "os": "linux",
        "config": {
            "User": format!("{0}:{0}", image.user),
            "Entrypoint": image.entrypoint,
            "WorkingDir": "/",
            "Labels": image.labels,
        },
        "rootfs": { "type": "layers", "diff_ids": [format!("sha256:{layer}")] },
        "history": [{ "created": created, "created_by": "cargo xtask image" }],
    }))
}

/// SHA-256 in hexadecimal digits.
pub(crate) fn sha256(bytes: &[u8]) -> String {
    Sha256::digest(bytes).iter().map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn image(compression: Compression) -> Image {
        let file = |content: &[u8], mode| Entry { content: content.to_vec(), mode };
        Image {
            name: "localhost/maesh:1.2.3".to_owned(),
            files: BTreeMap::from([
                ("maesh".to_owned(), file(&[7; 100_000], 0o555)),
                ("etc/ssl/certs/ca-certificates.crt".to_owned(), file(b"roots", 0o444)),
            ]),
            entrypoint: vec!["/maesh".to_owned()],
            user: 65532,
            architecture: "amd64".to_owned(),
            labels: BTreeMap::from([("org.opencontainers.image.version".to_owned(), "1.2.3".to_owned())]),
            created: 1_700_000_000,
            compression,
        }
    }

    #[test]
    fn the_same_input_gives_the_same_archive_at_any_time_and_place() {
        for compression in [Compression::Gzip, Compression::Zstd, Compression::None] {
            let mut seen = Vec::new();
            for _ in 0..2 {
                let folder = tempfile::tempdir().unwrap();
                let written = write(&image(compression), &folder.path().join("layout")).unwrap();
                // Contents count, not what the file system says of them.
                let blob = folder.path().join("layout/blobs/sha256").join(written.digest.trim_start_matches("sha256:"));
                let old = std::time::SystemTime::UNIX_EPOCH + std::time::Duration::from_secs(seen.len() as u64);
                fs::File::options().write(true).open(blob).unwrap().set_modified(old).unwrap();
                archive(&folder.path().join("layout"), &folder.path().join("image.tar")).unwrap();
                seen.push((written, fs::read(folder.path().join("image.tar")).unwrap()));
            }
            assert_eq!(seen[0], seen[1], "{compression:?}");
        }
    }

    #[test]
    fn every_descriptor_leads_to_bytes_with_its_digest_and_size() {
        let folder = tempfile::tempdir().unwrap();
        let layout = folder.path().join("layout");
        let written = write(&image(Compression::Gzip), &layout).unwrap();
        let blob = |descriptor: &Value| {
            let digest = descriptor["digest"].as_str().unwrap().trim_start_matches("sha256:");
            let bytes = fs::read(layout.join("blobs/sha256").join(digest)).unwrap();
            assert_eq!((sha256(&bytes).as_str(), Some(bytes.len() as u64)), (digest, descriptor["size"].as_u64()));
            bytes
        };
        let index: Value = serde_json::from_slice(&fs::read(layout.join("index.json")).unwrap()).unwrap();
        assert_eq!(index["manifests"][0]["digest"], json!(written.digest));
        let manifest: Value = serde_json::from_slice(&blob(&index["manifests"][0])).unwrap();
        let config: Value = serde_json::from_slice(&blob(&manifest["config"])).unwrap();
        assert_eq!(config["config"]["User"], "65532:65532");
        let compressed = blob(&manifest["layers"][0]);
        let mut layer = Vec::new();
        std::io::Read::read_to_end(&mut flate2::read::GzDecoder::new(&compressed[..]), &mut layer).unwrap();
        assert_eq!(config["rootfs"]["diff_ids"][0], format!("sha256:{}", sha256(&layer)));
        let mut archive = tar::Archive::new(&layer[..]);
        let paths: Vec<(String, u32)> = archive
            .entries()
            .unwrap()
            .map(|entry| entry.unwrap())
            .map(|entry| (entry.path().unwrap().display().to_string(), entry.header().mode().unwrap()))
            .collect();
        let want = [
            ("etc/", 0o755),
            ("etc/ssl/", 0o755),
            ("etc/ssl/certs/", 0o755),
            ("etc/ssl/certs/ca-certificates.crt", 0o444),
            ("maesh", 0o555),
        ];
        assert_eq!(paths, want.map(|(path, mode)| (path.to_owned(), mode)));
    }
}
