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
    kinds::{BadField, Object, ObjectId, ObjectKind, ReadContext},
};
use xxhash_rust::xxh3::xxh3_64;

use super::{
    LARGEST_FILE, MOST_FILES, Progress, STANDARD_INPUT,
    parse::{self, Parsed},
};

/// Directories deeper than this are not entered: links can make circles.
const DEEPEST: usize = 32;

/// What is said of a pipe, a socket or a device: reading it may never end.
const NO_FILE: &str =
    "is neither a file nor a folder; it is not read. To read a pipe, name - and give it as standard input.";

/// Everything on disk that was asked for.
#[derive(Debug)]
pub(super) struct Files {
    /// Paths as they were given, and as the system knows them.
    roots: Vec<(PathBuf, PathBuf)>,
    door: ReadContext,
    progress: Arc<Progress>,
    files: BTreeMap<PathBuf, File>,
    /// Standard input, where it was asked for: it is read once.
    input: Option<File>,
    /// What is wrong with paths themselves.
    problems: Vec<Diagnostic>,
}

/// One file.
#[derive(Debug, Default)]
struct File {
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

/// What a look at the disk found.
#[derive(Debug, Default)]
struct Found {
    /// The root that is being looked at, as it was given and as the system knows it.
    shown: (PathBuf, PathBuf),
    /// Files by path, with the path they really have, and the one they are called by.
    files: BTreeMap<PathBuf, (PathBuf, Arc<str>)>,
    /// The real paths among them, to see each file once.
    real: HashSet<PathBuf>,
    /// Directories in which something may appear or change.
    directories: BTreeSet<PathBuf>,
    /// Paths that could not be looked at: what is known of them and below stays.
    unseen: Vec<PathBuf>,
    problems: Vec<Diagnostic>,
}

impl Files {
    /// The files of `roots`. Where standard input is among them, it is read to its end.
    pub(super) fn new(mut roots: Vec<PathBuf>, door: ReadContext, progress: Arc<Progress>) -> Self {
        let given = roots.len();
        roots.retain(|root| root != Path::new(STANDARD_INPUT));
        let input = (roots.len() < given).then(|| File::standard_input(io::stdin().lock(), &door));
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
        let mut found = Found::default();
        for (given, root) in &self.roots {
            found.shown = (given.clone(), root.clone());
            found.root(root);
        }
        let kept = |path: &PathBuf| held(path) || found.unseen.iter().any(|unseen| path.starts_with(unseen));
        self.files.retain(|path, _| found.files.contains_key(path) || kept(path));
        self.progress.found.store(found.files.len(), Ordering::Relaxed);
        for (read, (path, (real, name))) in found.files.iter().enumerate() {
            self.progress.read.store(read, Ordering::Relaxed);
            if held(path) || held(real) {
                continue;
            }
            let again = again.contains(path) || again.contains(real);
            let new = || File { name: name.clone(), ..File::default() };
            let file = self.files.entry(path.clone()).or_insert_with(new);
            file.look(path, again, &self.door);
        }
        self.progress.read.store(found.files.len(), Ordering::Relaxed);
        self.problems = found.problems;
        found.directories
    }

    /// The objects of all files together, and everything that is wrong. Of an object that is there twice, the first
    /// by path stays.
    pub(super) fn merged(&self) -> (HashMap<ObjectId, Arc<Object>>, Vec<Diagnostic>) {
        let mut objects: HashMap<ObjectId, Arc<Object>> = HashMap::new();
        let mut problems = self.problems.clone();
        let mut unknown: BTreeMap<(&str, &str), (&File, &parse::Unknown, usize)> = BTreeMap::new();
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
            let slip = |meant: &&str| *meant != kind && meant.get(..1) == kind.get(..1);
            let meant = did_you_mean(kind, known).filter(slip);
            let meant = meant.map_or_else(String::new, |meant| format!(" Did you mean {meant}?"));
            if let Some(meant) = meant_kind(api_version, kind) {
                let bad = BadField::version(meant.registration(), api_version);
                let mut bad = bad.diagnostic(first.object.clone(), true).at(&file.name, first.line);
                bad.severity = Severity::Warning;
                problems.push(bad);
                continue;
            }
            let text = format!("the mesh does not read {kind} of {api_version}; skipped{more}.{meant}");
            let skipped = Diagnostic::warning(Reason::UnknownKind, first.object.clone(), text);
            problems.push(skipped.field("kind").value(kind).using("nothing").at(&file.name, first.line));
        }
        (objects, problems)
    }
}

/// The kind that is read and was meant, where Kubernetes' own groups have no such kind. Another project's group may.
fn meant_kind(api_version: &str, kind: &str) -> Option<ObjectKind> {
    let group = api_version.rsplit_once('/').map_or("", |(group, _)| group);
    let built_in = !group.contains('.') || group.ends_with(".k8s.io");
    ObjectKind::ALL.into_iter().find(|known| built_in && known.as_str() == kind)
}

fn duplicate(first: &Object, second: &Object) -> Diagnostic {
    let place = |object: &Object| match &object.meta().origin {
        Some(origin) => (origin.file.clone(), origin.line),
        None => ("".into(), 0),
    };
    let ((first_file, first_line), (file, line)) = (place(first), place(second));
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
        .at(&file, line)
}

impl Found {
    /// A path as it was asked for: a file of any name, or a directory.
    fn root(&mut self, root: &Path) {
        // A root that is deleted and made again is noticed in the directory around it.
        let around = root.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or_else(|| Path::new("."));
        let existing = around.ancestors().find(|path| path.is_dir()).unwrap_or_else(|| Path::new("."));
        self.directories.insert(existing.to_path_buf());
        match fs::metadata(root) {
            Ok(metadata) if metadata.is_dir() => {
                // A link back to it is not another folder.
                self.real.insert(fs::canonicalize(root).unwrap_or_else(|_| root.to_path_buf()));
                self.directory(root, 0);
            }
            Ok(metadata) => self.file(root, &metadata),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                let text = "does not exist. Create it, and it is read at once.";
                self.problem(root, text);
            }
            Err(error) => self.unreadable(root, &error),
        }
    }

    fn directory(&mut self, path: &Path, depth: usize) {
        let entries = match fs::read_dir(path) {
            Ok(entries) => entries,
            // Deleted just now: then so are its files.
            Err(error) if error.kind() == io::ErrorKind::NotFound => return,
            Err(error) => return self.unreadable(path, &error),
        };
        self.directories.insert(path.to_path_buf());
        let is_link = |entry: &fs::DirEntry| entry.file_type().is_ok_and(|kind| kind.is_symlink());
        let named = |entry: fs::DirEntry| (is_link(&entry), entry.file_name());
        let mut names: Vec<_> = entries.filter_map(|entry| entry.ok().map(named)).collect();
        // Links come last: what is there under a name of its own is called by that.
        names.sort_unstable();
        for (is_link, name) in names {
            // Hidden: editors' and volumes' own.
            if name.to_string_lossy().starts_with('.') {
                continue;
            }
            let path = path.join(name);
            match fs::metadata(&path) {
                Ok(metadata) if metadata.is_dir() && depth < DEEPEST => {
                    // A link back up would never end.
                    let real = fs::canonicalize(&path).unwrap_or_else(|_| path.clone());
                    if self.real.insert(real) {
                        self.directory(&path, depth + 1);
                    } else if is_link {
                        let text = "is a link to a folder that is read already; it is not read again. Remove it.";
                        self.warning(&path, text);
                    }
                }
                Ok(metadata) if metadata.is_dir() => {
                    let text = format!(
                        "is deeper than {DEEPEST} folders; it is not read. Name it beside the others, or move it."
                    );
                    self.problem(&path, &text);
                }
                Ok(metadata) if is_manifest(&path) => self.file(&path, &metadata),
                Ok(_) => {}
                Err(error) if error.kind() == io::ErrorKind::NotFound && is_link && is_manifest(&path) => {
                    self.problem(&path, "is a link to something that does not exist. Correct or remove it.");
                }
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                Err(error) if is_manifest(&path) => self.unreadable(&path, &error),
                Err(_) => {}
            }
        }
    }

    fn file(&mut self, path: &Path, metadata: &Metadata) {
        if !metadata.is_file() {
            return self.problem(path, NO_FILE);
        }
        if self.files.len() >= MOST_FILES {
            if self.files.len() == MOST_FILES && !self.problems.iter().any(|p| p.reason == Reason::UnreadableFile) {
                self.problem(
                    path,
                    &format!("is more than the {MOST_FILES} files that are read; it is left out. Use fewer."),
                );
            }
            return;
        }
        let real = fs::canonicalize(path).unwrap_or_else(|_| path.to_path_buf());
        if self.real.insert(real.clone()) {
            if let Some(parent) = real.parent() {
                // Watched under the name it was found by, unless a link leads elsewhere.
                let known = path.parent().and_then(|parent| fs::canonicalize(parent).ok());
                if known.as_deref() != Some(parent) {
                    self.directories.insert(parent.to_path_buf());
                }
            }
            self.files.insert(path.to_path_buf(), (real, self.name(path)));
        }
    }

    fn unreadable(&mut self, path: &Path, error: &io::Error) {
        self.unseen.push(path.to_path_buf());
        self.problem(
            path,
            &format!("cannot be read: {error}; what it said before stays in force. Check its name and permissions."),
        );
    }

    fn warning(&mut self, path: &Path, text: &str) {
        let name = self.name(path);
        let warning = Diagnostic::warning(Reason::UnreadableFile, ObjectRef::file(&name), text).at(&name, 0);
        self.problems.push(warning.using("nothing"));
    }

    fn problem(&mut self, path: &Path, text: &str) {
        self.problems.push(about_file(Reason::UnreadableFile, &self.name(path), text));
    }

    /// What people call `path`: below the root as they gave it.
    fn name(&self, path: &Path) -> Arc<str> {
        let (given, root) = &self.shown;
        let shown = match path.strip_prefix(root) {
            Ok(rest) if rest.as_os_str().is_empty() => given.clone(),
            Ok(rest) => given.join(rest),
            Err(_) => path.to_path_buf(),
        };
        shown.to_string_lossy().into()
    }
}

fn about_file(reason: Reason, name: &Arc<str>, text: &str) -> Diagnostic {
    Diagnostic::error(reason, ObjectRef::file(name), text).at(name, 0)
}

fn is_manifest(path: &Path) -> bool {
    let extension = path.extension().and_then(|extension| extension.to_str());
    extension.is_some_and(|extension| ["yaml", "yml", "json"].iter().any(|known| extension.eq_ignore_ascii_case(known)))
}

impl File {
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
                self.failed(Reason::UnparsableFile, &format!("line {line} is not text in UTF-8. Save it as UTF-8."));
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
                let text = format!(
                    "holds only comments; the {held} objects that it held are removed. Write them again, or delete the file."
                );
                let only = Diagnostic::warning(Reason::OnlyComments, ObjectRef::file(&self.name), text);
                parsed.problems.push(only.using("nothing").at(&self.name, 0));
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
    format!("cannot be read: {error}. Check its permissions.")
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
        let text = format!("it is larger than {} MiB; split it", LARGEST_FILE >> 20);
        return Err(io::Error::new(io::ErrorKind::FileTooLarge, text));
    }
    Ok(bytes)
}
