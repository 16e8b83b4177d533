//! Waits for changes on disk and sends what they mean.

use std::{
    collections::{BTreeSet, HashMap, HashSet},
    fs,
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
    sync::{
        Arc,
        mpsc::{Receiver, RecvTimeoutError, Sender, TryRecvError},
    },
    time::{Duration, Instant},
};

use maesh_compiler::{
    diagnostic::{Diagnostic, ObjectRef, Reason},
    kinds::{Object, ObjectId, ObjectKind, ReadContext},
};
use notify::{
    Config, RecommendedWatcher, RecursiveMode, Watcher,
    event::{AccessKind, AccessMode, CreateKind, EventKind, MetadataKind, ModifyKind},
};
use tokio::sync::mpsc;

use super::{LOOK_AGAIN, Progress, files::ManifestFiles, settle::Settling};
use crate::source::{Batch, Event};

/// What wakes the thread.
#[derive(Debug)]
pub(super) enum Signal {
    /// Something happened on disk.
    Disk(notify::Result<notify::Event>),
    /// Nobody wants to know any longer.
    Stop,
}

/// Reads everything, then follows changes until told to stop or nobody listens.
pub(super) fn run(
    paths: Vec<PathBuf>,
    door: ReadContext,
    progress: Arc<Progress>,
    signal: Sender<Signal>,
    signals: &Receiver<Signal>,
    batches: &mpsc::Sender<Batch>,
) {
    let forward = move |event| {
        // The thread is gone: so is the interest.
        let _ = signal.send(Signal::Disk(event));
    };
    let mut this = Watching {
        files: ManifestFiles::new(paths, door, progress),
        settling: Settling::default(),
        watcher: notify::recommended_watcher(forward).map_err(|error| error.to_string()),
        watched: BTreeSet::new(),
        sent: HashMap::new(),
        problems: None,
    };
    let first = this.look(true);
    if batches.blocking_send(first).is_err() {
        return;
    }
    let mut look_again = Instant::now() + LOOK_AGAIN;
    loop {
        let now = Instant::now();
        let wake = this.settling.next().map_or(look_again, |next| next.min(look_again));
        match signals.recv_timeout(wake.saturating_duration_since(now)) {
            Ok(Signal::Disk(event)) => {
                this.note(event);
                continue;
            }
            Ok(Signal::Stop) | Err(RecvTimeoutError::Disconnected) => return,
            Err(RecvTimeoutError::Timeout) => {}
        }
        if !this.catch_up(signals) {
            return;
        }
        look_again = Instant::now() + LOOK_AGAIN;
        let batch = this.look(false);
        if batches.is_closed() || (!batch.is_empty() && batches.blocking_send(batch).is_err()) {
            return;
        }
    }
}

struct Watching {
    files: ManifestFiles,
    settling: Settling,
    watcher: Result<RecommendedWatcher, String>,
    watched: BTreeSet<PathBuf>,
    sent: HashMap<ObjectId, Arc<Object>>,
    problems: Option<Vec<Diagnostic>>,
}

impl Watching {
    /// Notes what happened, to be looked at later.
    fn note(&mut self, event: notify::Result<notify::Event>) {
        let now = Instant::now();
        let event = match event {
            Ok(event) if !event.need_rescan() => event,
            // Signs were lost.
            _ => {
                self.settling.lost();
                self.settling.done(PathBuf::new(), now);
                return;
            }
        };
        let kind = event.kind;
        for path in event.paths {
            match kind {
                EventKind::Access(AccessKind::Close(AccessMode::Write)) => self.settling.done(path, now),
                EventKind::Access(_) => {}
                EventKind::Create(CreateKind::File) if is_being_made(&path) => self.settling.written(path, now),
                EventKind::Modify(ModifyKind::Data(_)) => self.settling.written(path, now),
                // Reading a file may change when it was last read.
                EventKind::Modify(ModifyKind::Metadata(MetadataKind::AccessTime)) => {}
                EventKind::Remove(_) | EventKind::Modify(ModifyKind::Name(_)) => {
                    // A directory of that name, if it comes again, is another one.
                    if self.watched.remove(&path)
                        && let Ok(watcher) = &mut self.watcher
                    {
                        // It is gone by itself when the directory was deleted.
                        let _ = watcher.unwatch(&path);
                    }
                    self.settling.done(path, now);
                }
                _ => self.settling.done(path, now),
            }
        }
    }

    /// Notes everything that happened on disk before this call, so that no file is read whose writer is known to the
    /// system and not to us yet. Returns false when told to stop.
    ///
    /// The watcher's thread handles messages and events in either order. What was there when it answers a first message
    /// has been passed on when it answers a second one.
    fn catch_up(&mut self, signals: &Receiver<Signal>) -> bool {
        if let Ok(watcher) = &mut self.watcher {
            for _ in 0..2 {
                // Only the answer matters: a watcher that is gone has nothing to pass on.
                let _ = watcher.configure(Config::default());
            }
        }
        loop {
            match signals.try_recv() {
                Ok(Signal::Disk(event)) => self.note(event),
                Ok(Signal::Stop) | Err(TryRecvError::Disconnected) => return false,
                Err(TryRecvError::Empty) => return true,
            }
        }
    }

    /// Looks at the disk and says what that changes.
    fn look(&mut self, first: bool) -> Batch {
        let now = Instant::now();
        let again: HashSet<PathBuf> = self.settling.take(now).into_iter().collect();
        let settling = &self.settling;
        let directories = self.files.look(&again, &|path| settling.holds(path, now));
        let (new, unwatchable) = self.watch(directories);
        for directory in new {
            // What changed there between the look and the watch is seen by looking once more.
            self.settling.done(directory, now);
        }
        let (objects, mut problems) = self.files.merged();
        problems.extend(unwatchable);
        problems.sort_unstable();
        problems.dedup();

        let mut batch = Batch::new();
        if first {
            for kind in ObjectKind::ALL {
                let of_kind = objects.values().filter(|object| object.kind() == kind);
                batch.push(Event::Reset(kind, of_kind.map(|object| (**object).clone()).collect()));
            }
        } else {
            for id in self.sent.keys().filter(|id| !objects.contains_key(id)) {
                batch.push(Event::Delete(id.clone()));
            }
            for (id, object) in &objects {
                let same = |old: &Arc<Object>| Arc::ptr_eq(old, object) || old == object;
                if !self.sent.get(id).is_some_and(same) {
                    batch.push(Event::Apply((**object).clone()));
                }
            }
        }
        self.sent = objects;
        if self.problems.as_ref() != Some(&problems) {
            self.problems = Some(problems.clone());
            batch.push(Event::Problems(problems));
        }
        if first {
            batch.extend(ObjectKind::ALL.map(Event::Synced));
        }
        batch
    }

    /// Watches exactly these directories. Returns those that are new, and what is wrong.
    fn watch(&mut self, wanted: BTreeSet<PathBuf>) -> (Vec<PathBuf>, Option<Diagnostic>) {
        let watcher = match &mut self.watcher {
            Ok(watcher) => watcher,
            Err(error) => return (Vec::new(), Some(unwatchable(Path::new("."), error))),
        };
        for gone in self.watched.difference(&wanted) {
            // It may be deleted.
            let _ = watcher.unwatch(gone);
        }
        self.watched.retain(|path| wanted.contains(path));
        let mut new = Vec::new();
        let mut problem = None;
        for path in wanted {
            if self.watched.contains(&path) {
                continue;
            }
            match watcher.watch(&path, RecursiveMode::NonRecursive) {
                Ok(()) => {
                    self.watched.insert(path.clone());
                    new.push(path);
                }
                Err(error) if path.exists() => problem = Some(unwatchable(&path, &error.to_string())),
                Err(_) => {}
            }
        }
        (new, problem)
    }
}

fn unwatchable(path: &Path, why: &str) -> Diagnostic {
    let name: Arc<str> = path.to_string_lossy().into();
    let seconds = Duration::as_secs(&LOOK_AGAIN);
    let text = format!(
        "cannot be watched: {why}; it is looked at every {seconds} s instead. Raise fs.inotify.max_user_watches or \
         fs.inotify.max_user_instances."
    );
    Diagnostic::warning(Reason::UnreadableFile, ObjectRef::file(&name), text).file(&name)
}

/// Whether a file that just appeared has a writer who will close it; links appear complete.
fn is_being_made(path: &Path) -> bool {
    fs::symlink_metadata(path).is_ok_and(|metadata| metadata.is_file() && metadata.nlink() == 1)
}
