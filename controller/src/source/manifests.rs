//! A folder of ordinary manifests as a source.
//!
//! What is on disk is read when its writer is done with it, never in between: after a file was closed or renamed into
//! place, and a short while passed for editors that take several steps. A file that becomes unreadable keeps what it
//! said last; only its deletion deletes.

mod files;
mod found;
mod parse;
mod settle;
mod tree;
mod watch;

use std::{
    collections::{HashMap, HashSet},
    path::PathBuf,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use maesh_compiler::{
    diagnostic::Diagnostic,
    kinds::{Object, ObjectId, ReadContext},
};
use tokio::sync::mpsc;

use super::Batches;

/// How long nothing must happen to a file before it is read.
pub const SETTLE: Duration = Duration::from_millis(50);
/// Everything is looked at again this often, should the system have missed to tell of a change.
const LOOK_AGAIN: Duration = Duration::from_secs(5);
/// Largest file that is read, in bytes.
pub const LARGEST_FILE: u64 = 64 << 20;
/// Most files that are read.
pub const MOST_FILES: usize = 50_000;
/// Most folders that are entered.
pub const MOST_FOLDERS: usize = 10_000;
/// The path that means standard input.
pub const STANDARD_INPUT: &str = "-";
/// Batches that may wait for the compiler.
const QUEUE: usize = 16;
/// Stack of a thread that parses, in bytes: YAML may be deep, and each level takes some.
const STACK: usize = 16 << 20;

/// How far the reading is.
#[derive(Debug, Default)]
struct Progress {
    found: AtomicUsize,
    read: AtomicUsize,
}

/// Reads and watches manifests until it is dropped.
#[derive(Debug)]
pub struct Manifests {
    progress: Arc<Progress>,
    stop: std::sync::mpsc::Sender<watch::Signal>,
    thread: Option<std::thread::JoinHandle<()>>,
}

impl Manifests {
    /// Starts to read `paths`: files of any name, directories of files that end in `.yaml`, `.yml` or `.json`, and `-`,
    /// which is standard input and read once, to its end.
    /// A path that does not exist is waited for. The first batch holds everything that is there now.
    ///
    /// # Errors
    /// If the system gives no thread.
    pub fn start(paths: Vec<PathBuf>, door: ReadContext) -> std::io::Result<(Self, Batches)> {
        let (batches, receiver) = mpsc::channel(QUEUE);
        let (stop, signals) = std::sync::mpsc::channel();
        let progress = Arc::new(Progress::default());
        let (watched, shared) = (stop.clone(), progress.clone());
        let run = move || watch::run(paths, door, shared, watched, &signals, &batches);
        let thread = std::thread::Builder::new().name("manifests".into()).stack_size(STACK).spawn(run)?;
        Ok((Self { progress, stop, thread: Some(thread) }, receiver))
    }

    /// How many files are read, and how many there are, as far as is known.
    pub fn progress(&self) -> (usize, usize) {
        (self.progress.read.load(Ordering::Relaxed), self.progress.found.load(Ordering::Relaxed))
    }
}

/// What manifests say at one moment.
#[derive(Debug)]
pub struct Reading {
    /// The objects; of one that is written twice, the first by path.
    pub objects: HashMap<ObjectId, Arc<Object>>,
    /// What is wrong with the files, and with objects by themselves.
    pub problems: Vec<Diagnostic>,
    /// How many files were found, standard input not counted.
    pub files: usize,
    /// Standard input was read, and nothing was in it.
    pub input_is_empty: bool,
}

/// Reads `paths` once, as [`Manifests::start`] does, and follows nothing.
///
/// # Errors
/// If the system gives no thread.
pub fn read_once(paths: Vec<PathBuf>, door: ReadContext) -> std::io::Result<Reading> {
    let read = move || {
        let progress = Arc::new(Progress::default());
        let mut files = files::ManifestFiles::new(paths, door, progress.clone());
        files.look(&HashSet::new(), &|_| false);
        let (objects, mut problems) = files.merged();
        problems.sort_unstable();
        problems.dedup();
        let input_is_empty = files.input_is_empty();
        Reading { objects, problems, files: progress.found.load(Ordering::Relaxed), input_is_empty }
    };
    let thread = std::thread::Builder::new().name("manifests".into()).stack_size(STACK).spawn(read)?;
    thread.join().map_err(|_| std::io::Error::other("the thread that reads manifests ended early"))
}

impl Drop for Manifests {
    fn drop(&mut self) {
        // A thread that is gone already needs no signal.
        let _ = self.stop.send(watch::Signal::Stop);
        // It may be waiting for room in the queue; it ends when the receiver does.
        drop(self.thread.take());
    }
}

#[cfg(test)]
mod tests;
