//! Which files there are on disk: a walk through the given paths, with bounds, that says of everything it leaves out why.

use std::{
    collections::{BTreeMap, BTreeSet, HashSet},
    fs::{self, Metadata},
    io,
    path::{Path, PathBuf},
    sync::Arc,
};

use maesh_compiler::diagnostic::{Diagnostic, ObjectRef, Reason};

use super::{MOST_FILES, MOST_FOLDERS, files::about_file};

/// Directories deeper than this are not entered: links can make circles.
const DEEPEST: usize = 32;

/// What is said of a pipe, a socket or a device: reading it may never end.
pub(super) const NO_FILE: &str =
    "is neither a file nor a folder; it is not read. To read a pipe, name - and give it as standard input.";

/// What a look at the disk found.
#[derive(Debug, Default)]
pub(super) struct FoundFiles {
    /// All roots, as the system knows them: without links.
    roots: Vec<PathBuf>,
    /// The root that is being looked at, as it was given and as the system knows it.
    shown: (PathBuf, PathBuf),
    /// Files by path, with the path they really have, and the one they are called by.
    pub(super) files: BTreeMap<PathBuf, (PathBuf, Arc<str>)>,
    /// The real paths among them, to see each file once.
    real: HashSet<PathBuf>,
    /// How many folders were entered.
    folders: usize,
    /// Some folders or files were left out, which is said once of each.
    left_out: LeftOut,
    /// Directories in which something may appear or change.
    pub(super) directories: BTreeSet<PathBuf>,
    /// Paths that could not be looked at: what is known of them and below stays.
    pub(super) unseen: Vec<PathBuf>,
    pub(super) problems: Vec<Diagnostic>,
}

/// What there was too much of.
#[derive(Debug, Default)]
struct LeftOut {
    folders: bool,
    files: bool,
}

impl FoundFiles {
    /// What there is at `roots`, given as people wrote them and as absolute paths.
    pub(super) fn of(roots: &[(PathBuf, PathBuf)]) -> Self {
        let real = |(_, root): &(PathBuf, PathBuf)| fs::canonicalize(root).unwrap_or_else(|_| root.clone());
        let mut found = Self { roots: roots.iter().map(real).collect(), ..Self::default() };
        for (given, root) in roots {
            found.shown = (given.clone(), root.clone());
            found.root(root);
        }
        found
    }

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
        if self.folders >= MOST_FOLDERS {
            if !std::mem::replace(&mut self.left_out.folders, true) {
                let text = format!(
                    "is beyond the first {MOST_FOLDERS} folders; it and all that follow are not read. Give the folders that hold \
                     manifests instead of one around them."
                );
                self.problem(path, &text);
            }
            return;
        }
        self.folders += 1;
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
                Ok(metadata) if metadata.is_dir() => self.folder(&path, is_link, depth + 1),
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

    /// A folder in a folder, or a link to one. A link is followed only to what is in one of the roots: behind others may be
    /// the whole disk.
    fn folder(&mut self, path: &Path, is_link: bool, depth: usize) {
        let real = fs::canonicalize(path).unwrap_or_else(|_| path.to_path_buf());
        if is_link && !self.roots.iter().any(|root| real.starts_with(root)) {
            let text = format!(
                "is a link to the folder {}, which is in none of the given paths; it is not read. To read it, give that folder \
                 as a further path.",
                real.display()
            );
            return self.warning(path, &text);
        }
        if depth > DEEPEST {
            let text =
                format!("is deeper than {DEEPEST} folders; it is not read. Name it beside the others, or move it.");
            return self.problem(path, &text);
        }
        // A link back up would never end.
        if self.real.insert(real) {
            self.directory(path, depth);
        } else if is_link {
            self.warning(path, "is a link to a folder that is read already; it is not read again. Remove it.");
        }
    }

    fn file(&mut self, path: &Path, metadata: &Metadata) {
        if !metadata.is_file() {
            return self.problem(path, NO_FILE);
        }
        if self.files.len() >= MOST_FILES {
            if !std::mem::replace(&mut self.left_out.files, true) {
                let text = format!(
                    "is beyond the first {MOST_FILES} files; it and all that follow are not read. Give fewer files, or join them."
                );
                self.problem(path, &text);
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
        let warning = Diagnostic::warning(Reason::UnreadableFile, ObjectRef::file(&name), text).file(&name);
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

fn is_manifest(path: &Path) -> bool {
    let extension = path.extension().and_then(|extension| extension.to_str());
    extension.is_some_and(|extension| ["yaml", "yml", "json"].iter().any(|known| extension.eq_ignore_ascii_case(known)))
}
