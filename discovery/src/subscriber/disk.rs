//! The last good state on disk, for the time when a role restarts and no controller is there.
//!
//! The file is a log. It begins with everything that was held when it was made, written beside its place, flushed and
//! renamed over the old one; what changes later is appended. A log of more than twice the size of what is held is made
//! anew, so the bytes written follow from what changes and not from what is there. Every record has a checksum. Whatever
//! moment the process ends in, the file is the old one or the new one, with the changes up to some moment: the first
//! record that is not whole is where it ends.

mod record;

use std::{
    fs::{self, File},
    io::{self, BufWriter, Write},
    path::{Path, PathBuf},
    sync::Arc,
};

use parking_lot::Mutex;
use tokio::task::JoinHandle;

use self::record::{Record, Records, Unusable, fill};
use super::state::{Changes, KindState, State, StoredChange, StoredResource};
use maesh_config::{Kind, Resource, wire};

/// A log is not made anew before it has so many bytes.
const SMALL: u64 = 64 << 10;

/// The file.
#[derive(Debug)]
pub(super) struct Disk {
    path: PathBuf,
    /// The file to append to; none before it was made by this process, and after a failure.
    log: Arc<Mutex<Option<Log>>>,
    /// How far the controllers were, as of the last write.
    reached: u64,
    /// The last write failed, and this was said.
    failed: bool,
}

/// A log that is open.
#[derive(Debug)]
struct Log {
    file: File,
    size: u64,
    /// At this size it is compared with what is held.
    look_at: u64,
}

impl Disk {
    pub(super) fn new(path: PathBuf) -> Self {
        Self { path, log: Arc::default(), reached: 0, failed: false }
    }

    /// Fills `state` with what the file holds; returns how far the controllers were.
    pub(super) async fn load(&self, state: &mut State) -> u64 {
        let path = self.path.clone();
        let loaded = tokio::task::spawn_blocking(move || record::load(&path)).await;
        match loaded.unwrap_or_else(|_| Ok(Records::default())) {
            Ok(Records { records, torn }) => {
                if torn {
                    tracing::info!(path = %self.path.display(), "the last changes of the kept state are not whole; going on with what was before");
                }
                fill(state, records)
            }
            Err(Unusable::Io(error)) if error.kind() == io::ErrorKind::NotFound => 0,
            Err(why) => {
                tracing::warn!(path = %self.path.display(), %why, "the kept state cannot be used; beginning with nothing");
                0
            }
        }
    }

    /// Begins to write what changed; what changes from here on is not in it.
    pub(super) fn save(&mut self, state: &mut State, reached: u64) -> Saving {
        let changes = state.take_changes();
        let news = reached != std::mem::replace(&mut self.reached, reached);
        let append = self.log.lock().as_mut().is_some_and(|log| log.has_room(state));
        let (path, log) = (self.path.clone(), self.log.clone());
        let job: Box<dyn FnOnce() -> io::Result<()> + Send> = if append {
            let reached = if news { reached } else { 0 };
            Box::new(move || append_to(&log, changes, reached))
        } else {
            let kept = StateCopy::of(state, reached);
            Box::new(move || {
                *log.lock() = Some(write_whole(&path, kept)?);
                Ok(())
            })
        };
        Saving(tokio::task::spawn_blocking(job))
    }

    /// Awaits a write; whether that worked. A failure is said once until it works again.
    pub(super) async fn saved(&mut self, saving: &mut Saving) -> bool {
        let saved = (&mut saving.0).await.unwrap_or_else(|panic| Err(io::Error::other(panic)));
        if let Err(error) = &saved {
            // What was to be appended is lost to it: the next write is of everything.
            *self.log.lock() = None;
            if !self.failed {
                tracing::warn!(path = %self.path.display(), %error, "cannot keep the state; a restart without a controller would serve older configuration");
            }
        }
        self.failed = saved.is_err();
        saved.is_ok()
    }
}

impl Log {
    /// Whether it is not more than twice as large as what is held.
    fn has_room(&mut self, state: &State) -> bool {
        if self.size > self.look_at {
            self.look_at = (2 * state.size_on_disk()).max(SMALL);
        }
        self.size <= self.look_at
    }
}

/// A write that is under way.
#[derive(Debug)]
pub(super) struct Saving(JoinHandle<io::Result<()>>);

/// A copy of the state at one moment, to be written to disk. It shares names and bytes with the state.
struct StateCopy {
    reached: u64,
    kinds: Vec<KindCopy>,
}

struct KindCopy {
    kind: Kind,
    complete: bool,
    resources: Vec<(Arc<str>, StoredResource)>,
    absent: Vec<Arc<str>>,
}

impl StateCopy {
    fn of(state: &State, reached: u64) -> Self {
        let kind = |held: &KindState| KindCopy {
            kind: held.kind,
            complete: held.complete,
            resources: held.resources.iter().map(|(name, encoded)| (name.clone(), encoded.clone())).collect(),
            absent: held.absent.iter().cloned().collect(),
        };
        Self { reached, kinds: state.kinds.iter().map(kind).collect() }
    }
}

impl KindState {
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

fn beside(path: &Path) -> PathBuf {
    let mut name = path.file_name().unwrap_or_default().to_owned();
    name.push(".new");
    path.with_file_name(name)
}

/// Replaces the file by one with everything that is held.
fn write_whole(path: &Path, kept: StateCopy) -> io::Result<Log> {
    if let Some(parent) = path.parent() {
        fs::create_dir_all(parent)?;
    }
    let mut out = record::Writer::new(BufWriter::with_capacity(256 << 10, File::create(beside(path))?))?;
    let all_complete: Vec<_> = kept.kinds.iter().filter(|it| it.complete).map(|it| it.kind).collect();
    for KindCopy { kind, resources, absent, .. } in kept.kinds {
        out.put(&Record::of_kind(kind, false))?;
        for (name, encoded) in resources {
            out.put(&Record::of(&name, StoredChange::Here(encoded)))?;
        }
        for name in absent {
            out.put(&Record::of(&name, StoredChange::Absent))?;
        }
    }
    for kind in all_complete {
        out.put(&Record::of_kind(kind, true))?;
    }
    out.put(&Record::whole(kept.reached))?;
    let (out, size) = out.finish();
    let file = out.into_inner().map_err(io::IntoInnerError::into_error)?;
    file.sync_all()?;
    fs::rename(beside(path), path)?;
    // The rename itself is durable once the directory is.
    if let Some(parent) = path.parent().filter(|parent| !parent.as_os_str().is_empty()) {
        File::open(parent)?.sync_all()?;
    }
    Ok(Log { file, size, look_at: (2 * size).max(SMALL) })
}

/// Appends changes; those of a kind come before the word that it is complete, and all before how far the controllers were.
fn append_to(log: &Mutex<Option<Log>>, changes: Vec<Changes>, reached: u64) -> io::Result<()> {
    let mut log = log.lock();
    let Some(Log { file, size, .. }) = log.as_mut() else { return Err(io::ErrorKind::NotFound.into()) };
    let mut out = record::Writer::appending(Vec::new());
    for Changes { kind, resources, complete } in changes {
        out.put(&Record::of_kind(kind, false))?;
        for (name, form) in resources {
            out.put(&Record::of(&name, form))?;
        }
        if complete {
            out.put(&Record::of_kind(kind, true))?;
        }
    }
    if reached > 0 {
        out.put(&Record::reached(reached))?;
    }
    let (bytes, written) = out.finish();
    if bytes.is_empty() {
        return Ok(());
    }
    file.write_all(&bytes)?;
    *size += written;
    file.sync_data()
}

#[cfg(test)]
mod tests;
