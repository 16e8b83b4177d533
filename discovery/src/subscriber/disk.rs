//! The last good state on disk, for the time when a role restarts and no controller is there.
//!
//! The file is written whole beside its place, flushed, and renamed over it, so there is an old one or a new one and
//! nothing between. It begins with a mark and a format number and ends with a checksum; what is torn, foreign or of a
//! newer format is ignored with one warning, and the subscriber begins with nothing, as a new one does.

use std::{
    collections::{HashMap, HashSet},
    fs::{self, File},
    io::{self, BufWriter, Write},
    path::{Path, PathBuf},
    sync::Arc,
};

use bytes::Bytes;
use prost::Message;
use tokio::task::JoinHandle;
use xxhash_rust::xxh3::Xxh3;

use super::state::{Encoded, Held, Stamp, State};
use maesh_config::{Kind, Resource, wire};

const MAGIC: &[u8; 8] = b"maesh\0st";
const FORMAT: u32 = 1;
const HEADER: usize = 12;
const CHECKSUM: usize = 16;

/// One entry of the file.
#[derive(Clone, PartialEq, prost::Message)]
struct Record {
    /// Set where the resources of another kind begin.
    #[prost(string, tag = "1")]
    type_url: String,
    /// With `type_url`: all of this kind that is subscribed is here.
    #[prost(bool, tag = "2")]
    complete: bool,
    #[prost(string, tag = "3")]
    name: String,
    #[prost(string, tag = "4")]
    version: String,
    #[prost(bytes = "bytes", tag = "5")]
    bytes: Bytes,
    /// With `name`: it was asked for and there is none.
    #[prost(bool, tag = "6")]
    absent: bool,
    /// In the first record: how far the controllers were.
    #[prost(uint64, tag = "7")]
    reached: u64,
}

/// Why a file is not used.
#[derive(Debug, thiserror::Error)]
enum Unusable {
    #[error("{0}")]
    Io(#[from] io::Error),
    #[error("it is not a state file")]
    Foreign,
    #[error("its format is {0}, newer than this version reads")]
    Newer(u32),
    #[error("it is torn: its checksum is wrong")]
    Torn,
    #[error("its content is not readable: {0}")]
    Malformed(#[from] prost::DecodeError),
}

/// The file.
#[derive(Debug)]
pub(super) struct Disk {
    path: PathBuf,
    /// The last write failed, and this was said.
    failed: bool,
}

impl Disk {
    pub(super) fn new(path: PathBuf) -> Self {
        Self { path, failed: false }
    }

    /// Fills `state` with what the file holds; returns how far the controllers were.
    pub(super) async fn load(&self, state: &mut State) -> u64 {
        let path = self.path.clone();
        let loaded = tokio::task::spawn_blocking(move || load(&path)).await.unwrap_or_else(|_| Ok(Vec::new()));
        match loaded {
            Ok(records) => fill(state, records),
            Err(Unusable::Io(error)) if error.kind() == io::ErrorKind::NotFound => 0,
            Err(why) => {
                tracing::warn!(path = %self.path.display(), %why, "the kept state cannot be used; beginning with nothing");
                0
            }
        }
    }

    /// Begins to write what is held now; what changes from here on is not in it.
    pub(super) fn save(&self, state: &State, reached: u64) -> Saving {
        let (path, kept) = (self.path.clone(), Kept::of(state, reached));
        Saving(tokio::task::spawn_blocking(move || write(&path, kept)))
    }

    /// Awaits a write; whether that worked. A failure is said once until it works again.
    pub(super) async fn saved(&mut self, saving: &mut Saving) -> bool {
        let saved = (&mut saving.0).await.unwrap_or_else(|panic| Err(io::Error::other(panic)));
        if let Err(error) = &saved
            && !self.failed
        {
            tracing::warn!(path = %self.path.display(), %error, "cannot keep the state; a restart without a controller would serve older configuration");
        }
        self.failed = saved.is_err();
        saved.is_ok()
    }
}

/// A write that is under way.
#[derive(Debug)]
pub(super) struct Saving(JoinHandle<io::Result<()>>);

/// What is held at one moment; it shares names and bytes with the state.
struct Kept {
    reached: u64,
    kinds: Vec<KeptKind>,
}

struct KeptKind {
    kind: Kind,
    complete: bool,
    resources: Vec<(Arc<str>, Encoded)>,
    absent: Vec<Arc<str>>,
}

impl Kept {
    fn of(state: &State, reached: u64) -> Self {
        let kind = |held: &Held| KeptKind {
            kind: held.kind,
            complete: held.complete,
            resources: held.resources.iter().map(|(name, encoded)| (name.clone(), encoded.clone())).collect(),
            absent: held.absent.iter().cloned().collect(),
        };
        Self { reached, kinds: state.kinds.iter().map(kind).collect() }
    }
}

impl Held {
    /// Reads everything that is held; what cannot be read is forgotten (the file of a newer version).
    pub(super) fn read_all(&mut self) -> Vec<Arc<Resource>> {
        let kind = self.kind;
        let mut all = Vec::with_capacity(self.resources.len());
        self.resources.retain(|name, encoded| match wire::decode_named(kind, name, &encoded.bytes) {
            Ok(resource) => {
                all.push(Arc::new(resource));
                true
            }
            Err(_) => false,
        });
        all
    }
}

fn load(path: &Path) -> Result<Vec<Record>, Unusable> {
    let file = fs::read(path)?;
    let (header, rest) = file.split_at_checked(HEADER).ok_or(Unusable::Foreign)?;
    let (magic, format) = header.split_at(MAGIC.len());
    if magic != MAGIC {
        return Err(Unusable::Foreign);
    }
    let format = format.try_into().map(u32::from_le_bytes).map_err(|_| Unusable::Foreign)?;
    if format > FORMAT {
        return Err(Unusable::Newer(format));
    }
    let (body, checksum) = rest.split_last_chunk::<CHECKSUM>().ok_or(Unusable::Torn)?;
    if xxhash_rust::xxh3::xxh3_128(body).to_le_bytes() != *checksum {
        return Err(Unusable::Torn);
    }
    let mut body = body;
    let mut records = Vec::new();
    while !body.is_empty() {
        records.push(Record::decode_length_delimited(&mut body)?);
    }
    Ok(records)
}

/// Resources, names of absent ones, and whether this is all.
type Section = (HashMap<Arc<str>, Encoded>, HashSet<Arc<str>>, bool);

fn fill(state: &mut State, records: Vec<Record>) -> u64 {
    let mut sections: HashMap<Kind, Section> = HashMap::new();
    let mut kind = None;
    let mut reached = 0;
    for record in records {
        reached = reached.max(record.reached);
        if !record.type_url.is_empty() {
            kind = Kind::of_type_url(&record.type_url);
            if let Some(kind) = kind {
                sections.entry(kind).or_default().2 = record.complete;
            }
        }
        let Some((resources, absent, _)) = kind.and_then(|kind| sections.get_mut(&kind)) else { continue };
        if record.name.is_empty() {
            continue;
        }
        let name = Arc::from(record.name);
        if record.absent {
            absent.insert(name);
        } else {
            resources.insert(name, Encoded { version: Stamp::read(&record.version), bytes: record.bytes[..].into() });
        }
    }
    for (kind, (resources, absent, complete)) in sections {
        if let Some(held) = state.held(kind) {
            held.restore(resources, absent, complete);
        }
    }
    reached
}

struct Hashing<W> {
    inner: W,
    hash: Xxh3,
}

impl<W: Write> Hashing<W> {
    fn record(&mut self, record: &Record, buffer: &mut Vec<u8>) -> io::Result<()> {
        buffer.clear();
        record.encode_length_delimited(buffer).map_err(io::Error::other)?;
        self.hash.update(buffer);
        self.inner.write_all(buffer)
    }
}

fn beside(path: &Path) -> PathBuf {
    let mut name = path.file_name().unwrap_or_default().to_owned();
    name.push(".new");
    path.with_file_name(name)
}

fn write(path: &Path, kept: Kept) -> io::Result<()> {
    if let Some(parent) = path.parent() {
        fs::create_dir_all(parent)?;
    }
    let mut out = BufWriter::with_capacity(256 << 10, File::create(beside(path))?);
    out.write_all(MAGIC)?;
    out.write_all(&FORMAT.to_le_bytes())?;
    let mut out = Hashing { inner: out, hash: Xxh3::new() };
    let buffer = &mut Vec::new();
    out.record(&Record { reached: kept.reached, ..Record::default() }, buffer)?;
    for KeptKind { kind, complete, resources, absent } in kept.kinds {
        out.record(&Record { type_url: kind.type_url().to_owned(), complete, ..Record::default() }, buffer)?;
        for (name, encoded) in resources {
            let (name, version) = (name.to_string(), encoded.version.to_string());
            let bytes = Bytes::from_owner(encoded.bytes);
            out.record(&Record { name, version, bytes, ..Record::default() }, buffer)?;
        }
        for name in absent {
            out.record(&Record { name: name.to_string(), absent: true, ..Record::default() }, buffer)?;
        }
    }
    let Hashing { inner: mut out, hash } = out;
    out.write_all(&hash.digest128().to_le_bytes())?;
    put_in_place(&out.into_inner().map_err(io::IntoInnerError::into_error)?, path)
}

fn put_in_place(file: &File, path: &Path) -> io::Result<()> {
    file.sync_all()?;
    fs::rename(beside(path), path)?;
    // The rename itself is durable once the directory is.
    match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => File::open(parent)?.sync_all(),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests;
