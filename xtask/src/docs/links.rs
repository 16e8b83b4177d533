//! Every link in the documentation leads somewhere, and every page can be found from the index.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use maesh_test_support::repository;

/// Pages outside of `docs/`.
const OTHERS: [&str; 5] =
    ["README.md", "CONTRIBUTING.md", "tests/README.md", "charts/maesh/README.md", "coredns-snippet/README.md"];

/// All pages, by their path in the repository.
fn pages() -> Vec<PathBuf> {
    let mut pages: Vec<PathBuf> = OTHERS.iter().map(PathBuf::from).collect();
    let mut folders = vec![PathBuf::from("docs")];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(repository().join(&folder)).unwrap() {
            let path = folder.join(entry.unwrap().file_name());
            if repository().join(&path).is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|extension| extension == "md") {
                pages.push(path);
            }
        }
    }
    pages
}

fn read(page: &Path) -> String {
    fs::read_to_string(repository().join(page)).unwrap_or_else(|error| panic!("{}: {error}", page.display()))
}

/// `text` without blocks of code.
fn prose(text: &str) -> String {
    text.split("\n```").step_by(2).collect::<Vec<_>>().join("\n")
}

/// Targets of the links in `text`.
fn links(text: &str) -> Vec<String> {
    let prose = prose(text);
    let targets = prose.split("](").skip(1).filter_map(|rest| rest.split_once(')'));
    targets.map(|(target, _)| target.to_owned()).collect()
}

/// The anchors of a page, as GitHub makes them of headings, and those that it sets itself.
fn anchors(text: &str) -> BTreeSet<String> {
    let headings = prose(text);
    let headings = headings.lines().filter(|line| line.starts_with('#')).map(|line| {
        let words = line.trim_start_matches('#').trim().to_lowercase();
        let kept = words.chars().filter(|letter| letter.is_alphanumeric() || matches!(letter, ' ' | '-' | '_'));
        kept.map(|letter| if letter == ' ' { '-' } else { letter }).collect::<String>()
    });
    let set = text.split("<a id=\"").skip(1).filter_map(|rest| rest.split_once('"')).map(|(id, _)| id.to_owned());
    headings.chain(set).collect()
}

/// A path without `.` and `..`.
fn plain(path: &Path) -> PathBuf {
    let mut plain = PathBuf::new();
    for part in path.components() {
        match part {
            std::path::Component::ParentDir => drop(plain.pop()),
            std::path::Component::CurDir => {}
            part => plain.push(part),
        }
    }
    plain
}

#[test]
fn every_link_leads_somewhere() {
    let mut broken = Vec::new();
    for page in pages() {
        for link in links(&read(&page)) {
            if link.contains("://") {
                continue;
            }
            let (file, anchor) = link.split_once('#').map_or((link.as_str(), None), |(file, id)| (file, Some(id)));
            let target = if file.is_empty() { page.clone() } else { plain(&page.with_file_name("").join(file)) };
            let there = repository().join(&target);
            let is_good = match anchor {
                None => there.exists(),
                Some(anchor) => there.is_file() && anchors(&read(&target)).contains(anchor),
            };
            if !is_good {
                broken.push(format!("{}: {link}", page.display()));
            }
        }
    }
    assert!(broken.is_empty(), "{broken:#?}");
}

#[test]
fn every_page_is_in_the_index() {
    let index: BTreeSet<PathBuf> =
        links(&read(Path::new("docs/README.md"))).iter().map(|link| plain(&Path::new("docs").join(link))).collect();
    let missing: Vec<PathBuf> = pages()
        .into_iter()
        .filter(|page| page.starts_with("docs") && page != Path::new("docs/README.md") && !index.contains(page))
        .collect();
    assert!(missing.is_empty(), "docs/README.md does not link {missing:?}");
}

/// Files that pages name in code exist: a page must not send a reader to where something was.
#[test]
fn every_file_that_a_page_names_exists() {
    let mut missing = Vec::new();
    for page in pages().into_iter().filter(|page| page.starts_with("docs") || page == Path::new("CONTRIBUTING.md")) {
        let text = prose(&read(&page));
        let named = text.split('`').skip(1).step_by(2);
        let roots = [
            "cli/",
            "compiler/",
            "config/",
            "controller/",
            "discovery/",
            "dns/",
            "proxy/",
            "tests/",
            "xtask/",
            "docs/",
        ];
        let paths = named.filter(|code| {
            let is_path = code.chars().all(|letter| letter.is_ascii_alphanumeric() || "/._-".contains(letter));
            is_path && roots.iter().any(|root| code.starts_with(root))
        });
        missing.extend(
            paths.filter(|path| !repository().join(path).exists()).map(|path| format!("{}: {path}", page.display())),
        );
    }
    assert!(missing.is_empty(), "{missing:#?}");
}
