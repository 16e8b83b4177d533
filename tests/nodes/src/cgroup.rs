//! Cgroups, in every hierarchy that is mounted: one folder a node, so that limits and sums hold, and so that whatever
//! escapes its namespaces is still found.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

/// The folder of all of ours, in every hierarchy.
pub(crate) const ROOT: &str = "maesh-cluster";

/// The mount points of all hierarchies.
fn hierarchies() -> Vec<PathBuf> {
    let mounts = fs::read_to_string("/proc/mounts").unwrap_or_default();
    let mut words = Vec::new();
    for line in mounts.lines() {
        let fields: Vec<&str> = line.split(' ').collect();
        if let [_, at, "cgroup" | "cgroup2", ..] = fields[..] {
            words.push(PathBuf::from(at));
        }
    }
    words
}

/// Makes `maesh-cluster/NAME/system` everywhere and returns these folders, for what is started first.
pub(crate) fn make(name: &str) -> Result<Vec<PathBuf>> {
    hierarchies().iter().map(|hierarchy| make_in(hierarchy, name)).collect()
}

fn make_in(hierarchy: &Path, name: &str) -> Result<PathBuf> {
    let mut folder = hierarchy.to_owned();
    for part in [ROOT, name, "system"] {
        // The second version hands controllers down only when told; the first has no such file.
        if let Ok(controllers) = fs::read_to_string(folder.join("cgroup.controllers")) {
            for controller in controllers.split_whitespace() {
                let _ = fs::write(folder.join("cgroup.subtree_control"), format!("+{controller}"));
            }
        }
        let child = folder.join(part);
        fs::create_dir_all(&child).with_context(|| child.display().to_string())?;
        // A new group of the first version has no processors and no memory until it is given some.
        for file in ["cpuset.cpus", "cpuset.mems"] {
            if !hierarchy.join("cgroup.controllers").exists()
                && let Ok(value) = fs::read_to_string(folder.join(file))
            {
                fs::write(child.join(file), value.trim()).with_context(|| child.join(file).display().to_string())?;
            }
        }
        folder = child;
    }
    Ok(folder)
}

/// The processes in all our groups.
pub(crate) fn processes() -> Vec<i32> {
    let mut found = Vec::new();
    for hierarchy in hierarchies() {
        walk(&hierarchy.join(ROOT), &mut |folder| {
            let text = fs::read_to_string(folder.join("cgroup.procs")).unwrap_or_default();
            found.extend(text.lines().filter_map(|line| line.parse::<i32>().ok()).filter(|pid| *pid > 0));
        });
    }
    found
}

/// Removes all our groups; says whether none is left.
pub(crate) fn remove() -> bool {
    let roots: Vec<PathBuf> = hierarchies().iter().map(|hierarchy| hierarchy.join(ROOT)).collect();
    for root in &roots {
        walk(root, &mut |folder| {
            let _ = fs::remove_dir(folder);
        });
    }
    roots.iter().all(|root| !root.exists())
}

/// Calls `visit` for every folder in `folder`, deepest first, and for itself.
fn walk(folder: &Path, visit: &mut impl FnMut(&Path)) {
    let Ok(entries) = fs::read_dir(folder) else { return };
    for entry in entries.flatten() {
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            walk(&entry.path(), visit);
        }
    }
    visit(folder);
}
