//! The files on disk, what each said last, and what they say together.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap, HashSet},
    fs::{self, Metadata},
    io::{self, Read},
    os::unix::fs::{MetadataExt, OpenOptionsExt},
    path::{Path, PathBuf},
    sync::{Arc, atomic::Ordering},
};

use maesh_compiler::{
    diagnostic::{Diagnostic, ObjectRef, Reason, Severity, did_you_mean},
    kinds::{BadField, Object, ObjectId, ObjectKind, Place, ReadContext},
};
use xxhash_rust::xxh3::xxh3_64;

use super::{
    LARGEST_FILE, Progress, STANDARD_INPUT,
    found::{FoundFiles, NO_FILE},
    parse::{self, Parsed},
};

/// Everything on disk that was asked for.
#[derive(Debug)]
pub(super) struct ManifestFiles {
    /// Paths as they were given, and as the system knows them.
    roots: Vec<(PathBuf, PathBuf)>,
    door: ReadContext,
    progress: Arc<Progress>,
    files: BTreeMap<PathBuf, ManifestFile>,
    /// Standard input, where it was asked for: it is read once.
    input: Option<ManifestFile>,
    /// What is wrong with paths themselves.
    problems: Vec<Diagnostic>,
}

/// One file.
#[derive(Debug, Default)]
struct ManifestFile {
    name: Arc<str>,
    stamp: Option<Stamp>,
    hash: Option<u64>,
    said: Parsed,
}

/// Tells whether a file may have changed, without reading it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Stamp {
    device: u64,
    inode: u64,
    size: u64,
    modified: (i64, i64),
}

impl Stamp {
    fn of(metadata: &Metadata) -> Self {
        Self {
            device: metadata.dev(),
            inode: metadata.ino(),
            size: metadata.len(),
            modified: (metadata.mtime(), metadata.mtime_nsec()),
        }
    }
}

impl ManifestFiles {
    /// The files of `roots`. Where standard input is among them, it is read to its end.
    pub(super) fn new(mut roots: Vec<PathBuf>, door: ReadContext, progress: Arc<Progress>) -> Self {
        let given = roots.len();
        roots.retain(|root| root != Path::new(STANDARD_INPUT));
        let input = (roots.len() < given).then(|| ManifestFile::standard_input(io::stdin().lock(), &door));
        let absolute = |root: PathBuf| {
            let absolute = std::path::absolute(&root).unwrap_or_else(|_| root.clone());
            (root, absolute)
        };
        let roots = roots.into_iter().map(absolute).collect();
        Self { roots, door, progress, files: BTreeMap::new(), input, problems: Vec::new() }
    }

    /// Looks at the disk again and reads what changed, and what is in `again`; leaves alone what `held` says. Returns
    /// the directories that have to be watched.
    pub(super) fn look(&mut self, again: &HashSet<PathBuf>, held: &dyn Fn(&Path) -> bool) -> BTreeSet<PathBuf> {
        let found = FoundFiles::of(&self.roots);
        let kept = |path: &PathBuf| held(path) || found.unseen.iter().any(|unseen| path.starts_with(unseen));
        self.files.retain(|path, _| found.files.contains_key(path) || kept(path));
        self.progress.found.store(found.files.len(), Ordering::Relaxed);
        for (read, (path, (real, name))) in found.files.iter().enumerate() {
            self.progress.read.store(read, Ordering::Relaxed);
            if held(path) || held(real) {
                continue;
            }
            let again = again.contains(path) || again.contains(real);
            let new = || ManifestFile { name: name.clone(), ..ManifestFile::default() };
            let file = self.files.entry(path.clone()).or_insert_with(new);
            file.look(path, again, &self.door);
        }
        self.progress.read.store(found.files.len(), Ordering::Relaxed);
        self.problems = found.problems;
        found.directories
    }

    /// Whether standard input was read and held nothing, not even something bad.
    pub(super) fn input_is_empty(&self) -> bool {
        let is_empty = |said: &Parsed| said.objects.is_empty() && said.problems.is_empty() && said.unknown.is_empty();
        self.input.as_ref().is_some_and(|input| is_empty(&input.said))
    }

    /// The objects of all files together, and everything that is wrong. Of an object that is there twice, the first
    /// by path stays.
    pub(super) fn merged(&self) -> (HashMap<ObjectId, Arc<Object>>, Vec<Diagnostic>) {
        let mut objects: HashMap<ObjectId, Arc<Object>> = HashMap::new();
        let mut problems = self.problems.clone();
        let mut unknown: BTreeMap<(&str, &str), (&ManifestFile, &parse::Unknown, usize)> = BTreeMap::new();
        for file in self.input.iter().chain(self.files.values()) {
            problems.extend(file.said.problems.iter().cloned());
            for object in &file.said.objects {
                match objects.entry(object.id()) {
                    std::collections::hash_map::Entry::Occupied(first) => {
                        problems.push(duplicate(first.get(), object));
                    }
                    std::collections::hash_map::Entry::Vacant(free) => {
                        free.insert(object.clone());
                    }
                }
            }
            for other in &file.said.unknown {
                let key = (&*other.api_version, &*other.object.kind);
                unknown.entry(key).or_insert((file, other, 0)).2 += 1;
            }
        }
        for ((api_version, kind), (file, first, count)) in unknown {
            let more = if count > 1 { format!(", and {} more of its kind", count - 1) } else { String::new() };
            let known = ObjectKind::ALL.map(ObjectKind::as_str);
            // People seldom mistype the first letter, and a Role is no Node.
            let same_letter =
                |a: &str, b: &str| a.get(..1).zip(b.get(..1)).is_some_and(|(a, b)| a.eq_ignore_ascii_case(b));
            let slip = |meant: &&str| *meant != kind && same_letter(meant, kind);
            let meant = did_you_mean(kind, known).filter(slip);
            let meant = meant.map_or_else(String::new, |meant| format!(" Did you mean {meant}?"));
            if let Some(meant) = meant_kind(api_version, kind) {
                let bad = BadField::version(meant.registration(), api_version);
                let mut bad = bad.diagnostic(first.object.clone(), true).at(&file.name, first.place);
                bad.severity = Severity::Warning;
                problems.push(bad);
                continue;
            }
            let text = format!("the mesh does not read {kind} of {api_version}; skipped{more}.{meant}");
            let skipped = Diagnostic::warning(Reason::UnknownKind, first.object.clone(), text);
            problems.push(skipped.field("kind").value(kind).using("nothing").at(&file.name, first.place));
        }
        (objects, problems)
    }
}

/// The kind that is read and was meant: Kubernetes' own groups have no other of its name, and one of SMI has a group that is nearly
/// written. Another project's group may have a kind of that name.
fn meant_kind(api_version: &str, kind: &str) -> Option<ObjectKind> {
    let group = api_version.rsplit_once('/').map_or("", |(group, _)| group);
    let built_in = !group.contains('.') || group.ends_with(".k8s.io");
    let is_slip = |of: &str| of.contains("smi-spec") && (group.contains("smi") || did_you_mean(group, [of]).is_some());
    ObjectKind::ALL
        .into_iter()
        .find(|known| known.as_str() == kind && (built_in || is_slip(known.registration().group)))
}

fn duplicate(first: &Object, second: &Object) -> Diagnostic {
    let nowhere = Place { line: 1, column: 1 };
    let at = |object: &Object| match &object.meta().origin {
        Some(origin) => (origin.file.clone(), origin.place),
        None => ("".into(), nowhere),
    };
    let ((first_file, first_place), (file, place)) = (at(first), at(second));
    let (first_line, line) = (first_place.line, place.line);
    let meta = second.meta();
    let object = ObjectRef::new(second.kind().as_str(), &meta.namespace, &meta.name);
    let text = if first_file == file {
        format!(
            "is written twice, in line {first_line} and in line {line}; using the one of line {first_line}. Remove or \
             rename one of them."
        )
    } else {
        format!(
            "is written twice, in {first_file} line {first_line} and in {file} line {line}; using the one in \
             {first_file}. Remove or rename one of them."
        )
    };
    Diagnostic::error(Reason::DuplicateObject, object, text)
        .field("metadata.name")
        .value(&*meta.name)
        .using(format!("{first_file}:{first_line}"))
        .at(&file, place)
}

pub(super) fn about_file(reason: Reason, name: &Arc<str>, text: &str) -> Diagnostic {
    Diagnostic::error(reason, ObjectRef::file(name), text).file(name)
}

impl ManifestFile {
    /// Reads the file if it may have changed, or `again`.
    fn look(&mut self, path: &Path, again: bool, door: &ReadContext) {
        let metadata = match fs::metadata(path) {
            Ok(metadata) => metadata,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return,
            Err(error) => return self.failed(Reason::UnreadableFile, &cannot(&error)),
        };
        if !metadata.is_file() {
            return self.failed(Reason::UnreadableFile, NO_FILE);
        }
        let stamp = Stamp::of(&metadata);
        if !again && self.stamp == Some(stamp) {
            return;
        }
        self.stamp = Some(stamp);
        let bytes = match open(path).and_then(read) {
            Ok(bytes) => bytes,
            Err(error) => {
                self.hash = None;
                return self.failed(Reason::UnreadableFile, &cannot(&error));
            }
        };
        let hash = xxh3_64(&bytes);
        if self.hash.replace(hash) == Some(hash) {
            return;
        }
        self.take(bytes, door);
    }

    /// Standard input as a file.
    fn standard_input(input: impl Read, door: &ReadContext) -> Self {
        let mut file = Self { name: "standard input".into(), ..Self::default() };
        match read(input) {
            Ok(bytes) => file.take(bytes, door),
            Err(error) => file.failed(Reason::UnreadableFile, &cannot(&error)),
        }
        file
    }

    fn take(&mut self, bytes: Vec<u8>, door: &ReadContext) {
        match String::from_utf8(bytes) {
            Ok(text) if text.trim().is_empty() => {
                if !self.said.objects.is_empty() {
                    let text = "is empty; its last good objects stay in force. Write them again, or delete the file.";
                    self.failed(Reason::UnparsableFile, text);
                }
            }
            // A byte order mark is not part of the text.
            Ok(text) => self.parse(text.trim_start_matches('\u{feff}'), door),
            Err(error) => {
                let line = error.as_bytes()[..error.utf8_error().valid_up_to()].split(|byte| *byte == b'\n').count();
                let kept = if self.said.objects.is_empty() { "" } else { " Its last good objects stay in force." };
                let text = format!("line {line} is not text in UTF-8. Save it as UTF-8.{kept}");
                self.failed(Reason::UnparsableFile, &text);
                let place = Place { line: u32::try_from(line).unwrap_or(u32::MAX), column: 1 };
                let name = self.name.clone();
                self.said.problems = self.said.problems.drain(..).map(|problem| problem.at(&name, place)).collect();
            }
        }
    }

    fn parse(&mut self, text: &str, door: &ReadContext) {
        let mut parsed = parse::parse(&self.name, text, door);
        if parsed.broken && !self.said.objects.is_empty() {
            for problem in parsed.problems.iter_mut().filter(|problem| problem.reason == Reason::UnparsableFile) {
                problem.using = Some("its last good objects".into());
                problem.message = format!("{} Its last good objects stay in force.", problem.message).into();
            }
            parsed.objects = std::mem::take(&mut self.said.objects);
        } else if parsed.is_comments {
            // On purpose, as when a document is taken out of a file: an accident leaves no comments behind.
            let held = self.said.objects.len();
            if held > 0 {
                let (removed, them) = match held {
                    1 => ("object that it held is".to_owned(), "it"),
                    held => (format!("{held} objects that it held are"), "them"),
                };
                let text =
                    format!("holds only comments; the {removed} removed. Write {them} again, or delete the file.");
                let only = Diagnostic::warning(Reason::OnlyComments, ObjectRef::file(&self.name), text);
                parsed.problems.push(only.using("nothing").file(&self.name));
            }
        } else {
            let stay = |object: &&Arc<Object>| parsed.bad.contains(&object.id());
            let last_good: Vec<_> = self.said.objects.iter().filter(stay).cloned().collect();
            for object in &last_good {
                stays(&mut parsed.problems, object);
            }
            parsed.objects.extend(last_good);
        }
        self.said = parsed;
    }

    /// Nothing can be read: what was there stays.
    fn failed(&mut self, reason: Reason, text: &str) {
        let mut problem = about_file(reason, &self.name, text);
        if !self.said.objects.is_empty() {
            problem = problem.using("its last good objects");
        }
        self.said.problems = vec![problem];
    }
}

/// Says of an object that cannot be read that its last good version stays.
fn stays(problems: &mut [Diagnostic], object: &Object) {
    let (meta, kind) = (object.meta(), object.kind().as_str());
    for problem in problems.iter_mut().filter(|problem| problem.severity == Severity::Error) {
        let about = &problem.object;
        let namespace = about.namespace.as_deref().unwrap_or(if meta.namespace.is_empty() { "" } else { "default" });
        if (&*about.kind, namespace, &*about.name) == (kind, &*meta.namespace, &*meta.name) {
            let stays = "its last good version stays in force";
            problem.message = problem.message.replace("the object is left out", stays).into();
            problem.using = Some("its last good version".into());
        }
    }
}

fn cannot(error: &io::Error) -> String {
    match error.kind() {
        io::ErrorKind::FileTooLarge => {
            format!("is larger than {} MiB, so it is not read. Split it into several files.", LARGEST_FILE >> 20)
        }
        io::ErrorKind::PermissionDenied => format!("cannot be read: {error}. Check its permissions."),
        _ => format!("cannot be read: {error}. Check that it is a file that can be read."),
    }
}

/// Opens a file to read it. What became a pipe a moment ago is not waited for.
fn open(path: &Path) -> io::Result<fs::File> {
    let file = fs::OpenOptions::new().read(true).custom_flags(libc::O_NONBLOCK).open(path)?;
    if file.metadata()?.is_file() { Ok(file) } else { Err(io::Error::other("it is no file")) }
}

/// Reads all of a file, of bounded size.
fn read(file: impl Read) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    file.take(LARGEST_FILE + 1).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > LARGEST_FILE {
        return Err(io::ErrorKind::FileTooLarge.into());
    }
    Ok(bytes)
}
