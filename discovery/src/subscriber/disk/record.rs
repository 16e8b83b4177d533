//! The records of the state file: how they are framed, and what they mean.
//!
//! After a mark and a format number, each record is its length, a checksum, and a message. Records that are not whole end
//! the file. What comes before [`Record::whole`] is of no use without it: it would be taken for everything that is held.

use std::{
    collections::{HashMap, HashSet},
    fs, io,
    path::Path,
    sync::Arc,
};

use bytes::Bytes;
use maesh_config::Kind;
use prost::Message;
use xxhash_rust::xxh3::xxh3_64;

use crate::subscriber::state::{Stamp, State, StoredChange, StoredResource};

pub(super) const MAGIC: &[u8; 8] = b"maesh\0st";
const FORMAT: u32 = 2;
pub(super) const HEADER: usize = 12;
/// Length and checksum of a record.
const FRAME: usize = 12;

/// One entry of the file.
#[derive(Clone, PartialEq, prost::Message)]
pub(super) struct Record {
    /// Set where what follows is of another kind.
    #[prost(string, tag = "1")]
    type_url: String,
    /// With `type_url`: all of this kind that is subscribed has been here.
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
    /// How far the controllers were.
    #[prost(uint64, tag = "7")]
    reached: u64,
    /// With `name`: it is held no longer.
    #[prost(bool, tag = "8")]
    gone: bool,
    /// Everything that was held when the file was made comes before this.
    #[prost(bool, tag = "9")]
    whole: bool,
}

impl Record {
    /// What follows is of this kind.
    pub(super) fn of_kind(kind: Kind, complete: bool) -> Self {
        Self { type_url: kind.type_url().to_owned(), complete, ..Self::default() }
    }

    /// A resource, or that there is none.
    pub(super) fn of(name: &str, form: StoredChange) -> Self {
        let named = Self { name: name.to_owned(), ..Self::default() };
        match form {
            StoredChange::Here(StoredResource { version, bytes }) => {
                Self { version: version.to_string(), bytes: Bytes::from_owner(bytes), ..named }
            }
            StoredChange::Absent => Self { absent: true, ..named },
            StoredChange::Gone => Self { gone: true, ..named },
        }
    }

    /// Everything that was held comes before.
    pub(super) fn whole(reached: u64) -> Self {
        Self { reached, whole: true, ..Self::default() }
    }

    /// How far the controllers were.
    pub(super) fn reached(reached: u64) -> Self {
        Self { reached, ..Self::default() }
    }
}

/// Why a file is not used.
#[derive(Debug, thiserror::Error)]
pub(super) enum Unusable {
    #[error("{0}")]
    Io(#[from] io::Error),
    #[error("it is not a state file")]
    Foreign,
    #[error("its format is {0}, which this version does not read")]
    OtherFormat(u32),
    #[error("it is torn: not all that was held is there")]
    Torn,
}

/// Writes records, and counts their bytes.
pub(super) struct Writer<W> {
    out: W,
    size: u64,
    buffer: Vec<u8>,
}

impl<W: io::Write> Writer<W> {
    /// Of a new file.
    pub(super) fn new(mut out: W) -> io::Result<Self> {
        out.write_all(MAGIC)?;
        out.write_all(&FORMAT.to_le_bytes())?;
        Ok(Self { size: HEADER as u64, ..Self::appending(out) })
    }

    /// Of what goes on where a file ends.
    pub(super) fn appending(out: W) -> Self {
        Self { out, size: 0, buffer: Vec::new() }
    }

    pub(super) fn put(&mut self, record: &Record) -> io::Result<()> {
        self.buffer.clear();
        record.encode(&mut self.buffer).map_err(io::Error::other)?;
        let length = u32::try_from(self.buffer.len()).map_err(io::Error::other)?;
        self.out.write_all(&length.to_le_bytes())?;
        self.out.write_all(&xxh3_64(&self.buffer).to_le_bytes())?;
        self.out.write_all(&self.buffer)?;
        self.size += FRAME as u64 + u64::from(length);
        Ok(())
    }

    /// What was written to, and how many bytes.
    pub(super) fn finish(self) -> (W, u64) {
        (self.out, self.size)
    }
}

/// The records of a file.
#[derive(Debug, Default)]
pub(super) struct Records {
    pub(super) records: Vec<Record>,
    /// Something that is not a whole record comes after them.
    pub(super) torn: bool,
}

/// Reads a file up to the first record that is not whole.
pub(super) fn load(path: &Path) -> Result<Records, Unusable> {
    let file = Bytes::from(fs::read(path)?);
    let (header, mut rest) = file.split_at_checked(HEADER).ok_or(Unusable::Foreign)?;
    let (magic, format) = header.split_at(MAGIC.len());
    if magic != MAGIC {
        return Err(Unusable::Foreign);
    }
    let format = format.try_into().map(u32::from_le_bytes).map_err(|_| Unusable::Foreign)?;
    if format != FORMAT {
        return Err(Unusable::OtherFormat(format));
    }
    let mut records = Vec::new();
    let mut whole = false;
    while let Some((record, after)) = next(rest) {
        whole |= record.whole;
        records.push(record);
        rest = after;
    }
    if whole { Ok(Records { records, torn: !rest.is_empty() }) } else { Err(Unusable::Torn) }
}

/// The first record, and what comes after it.
fn next(bytes: &[u8]) -> Option<(Record, &[u8])> {
    let (length, rest) = bytes.split_first_chunk()?;
    let (checksum, rest) = rest.split_first_chunk()?;
    let (message, rest) = rest.split_at_checked(usize::try_from(u32::from_le_bytes(*length)).ok()?)?;
    if xxh3_64(message) != u64::from_le_bytes(*checksum) {
        return None;
    }
    Some((Record::decode(message).ok()?, rest))
}

/// Resources, names of absent ones, and whether this is all.
type Section = (HashMap<Arc<str>, StoredResource>, HashSet<Arc<str>>, bool);

/// Fills `state` with what `records` come to; returns how far the controllers were.
pub(super) fn fill(state: &mut State, records: Vec<Record>) -> u64 {
    let mut sections: HashMap<Kind, Section> = HashMap::new();
    let mut kind = None;
    let mut reached = 0;
    for record in records {
        if record.reached > 0 {
            // A subscriber may have gone back to a controller that is behind, on purpose.
            reached = record.reached;
        }
        if !record.type_url.is_empty() {
            kind = Kind::of_type_url(&record.type_url);
            if let Some(kind) = kind {
                sections.entry(kind).or_default().2 |= record.complete;
            }
        }
        let Some((resources, absent, _)) = kind.and_then(|kind| sections.get_mut(&kind)) else { continue };
        if record.name.is_empty() {
            continue;
        }
        let name = Arc::from(record.name);
        absent.remove(&name);
        resources.remove(&name);
        if record.absent {
            absent.insert(name);
        } else if !record.gone {
            resources
                .insert(name, StoredResource { version: Stamp::read(&record.version), bytes: record.bytes[..].into() });
        }
    }
    for (kind, (resources, absent, complete)) in sections {
        if let Some(held) = state.held(kind) {
            held.restore(resources, absent, complete);
        }
    }
    reached
}
