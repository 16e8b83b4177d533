//! The list of what is in the binary, as SPDX 2.3: every crate that is linked in, with version, licence and checksum.
//!
//! From `cargo metadata` and `Cargo.lock`, so it can say nothing that the build did not use. Crates that only build or
//! test something, and macros, which leave no code of their own, are not in the binary and not in the list.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::process::Command;

use anyhow::{Context, Result};
use maesh_test_support::repository;
use serde::Deserialize;
use serde_json::{Value, json};

use crate::command::quietly;

/// The package whose binary is in the image.
const ROOT: &str = "maesh";

#[derive(Deserialize)]
struct Metadata {
    packages: Vec<Package>,
    resolve: Resolve,
}

#[derive(Deserialize)]
struct Package {
    id: String,
    name: String,
    version: String,
    license: Option<String>,
    source: Option<String>,
    targets: Vec<Target>,
}

#[derive(Deserialize)]
struct Target {
    kind: Vec<String>,
}

#[derive(Deserialize)]
struct Resolve {
    nodes: Vec<Node>,
}

#[derive(Deserialize)]
struct Node {
    id: String,
    deps: Vec<Dependency>,
}

#[derive(Deserialize)]
struct Dependency {
    pkg: String,
    dep_kinds: Vec<DependencyKind>,
}

#[derive(Deserialize)]
struct DependencyKind {
    /// Nothing for an ordinary one; `build`, `dev`.
    kind: Option<String>,
}

/// The document for the image with this digest, made `created` seconds after 1970.
///
/// # Errors
/// When cargo cannot resolve the workspace.
pub(super) fn document(target: &str, digest: &str, created: i64) -> Result<Value> {
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let mut command = Command::new(cargo);
    command.current_dir(repository()).args(["metadata", "--format-version", "1", "--locked", "--quiet"]);
    let text = quietly(command.args(["--features", super::FEATURES, "--filter-platform", target]))?;
    let metadata: Metadata = serde_json::from_str(&text).context("the answer of cargo metadata")?;
    let lock = fs::read_to_string(repository().join("Cargo.lock")).context("Cargo.lock")?;
    let compiler = quietly(Command::new("rustc").current_dir(repository()).arg("--version"))?;
    let created = jiff::Timestamp::from_second(created).context("the time of the document")?;
    Ok(render(&metadata, &checksums(&lock), compiler.trim(), digest, &created.to_string()))
}

fn render(
    metadata: &Metadata,
    checksums: &BTreeMap<(String, String), String>,
    compiler: &str,
    digest: &str,
    created: &str,
) -> Value {
    let (linked, edges) = linked(metadata);
    let mut packages: Vec<Value> = linked.values().map(|package| entry(package, checksums)).collect();
    packages.push(json!({
        "SPDXID": "SPDXRef-rust-std", "name": "rust-std", "versionInfo": compiler,
        "downloadLocation": "https://static.rust-lang.org/", "filesAnalyzed": false,
        "licenseConcluded": "NOASSERTION", "licenseDeclared": "MIT OR Apache-2.0", "copyrightText": "NOASSERTION",
        "comment": "The standard library, with musl (MIT) linked in",
    }));
    let root = linked.values().find(|package| package.name == ROOT).map(|package| id(package)).unwrap_or_default();
    let relation = |from: &str, kind: &str, to: &str| json!({ "spdxElementId": from, "relationshipType": kind, "relatedSpdxElement": to });
    let mut relations =
        vec![relation("SPDXRef-DOCUMENT", "DESCRIBES", &root), relation(&root, "DEPENDS_ON", "SPDXRef-rust-std")];
    relations.extend(edges.iter().map(|(from, to)| relation(from, "DEPENDS_ON", to)));
    json!({
        "spdxVersion": "SPDX-2.3",
        "dataLicense": "CC0-1.0",
        "SPDXID": "SPDXRef-DOCUMENT",
        "name": format!("maesh {}", env!("CARGO_PKG_VERSION")),
        "documentNamespace": format!("https://spdx.org/spdxdocs/maesh-{}", digest.replace(':', "-")),
        "creationInfo": { "created": created, "creators": ["Tool: cargo xtask image"] },
        "packages": packages,
        "relationships": relations,
    })
}

/// What is linked into the binary, by package id, and who needs whom, by SPDX id.
fn linked(metadata: &Metadata) -> (BTreeMap<&str, &Package>, BTreeSet<(String, String)>) {
    let packages: BTreeMap<&str, &Package> = metadata.packages.iter().map(|p| (p.id.as_str(), p)).collect();
    let nodes: BTreeMap<&str, &Node> = metadata.resolve.nodes.iter().map(|n| (n.id.as_str(), n)).collect();
    let mut open: Vec<&str> = metadata.packages.iter().filter(|p| p.name == ROOT).map(|p| p.id.as_str()).collect();
    let (mut found, mut edges) = (BTreeMap::new(), BTreeSet::new());
    // Every package is opened once: the graph has no more of them than this.
    while let Some(next) = open.pop() {
        let (Some(package), Some(node)) = (packages.get(next), nodes.get(next)) else { continue };
        if found.insert(next, *package).is_some() {
            continue;
        }
        for dependency in &node.deps {
            let Some(other) = packages.get(dependency.pkg.as_str()) else { continue };
            let ordinary = dependency.dep_kinds.iter().any(|kind| kind.kind.is_none());
            let is_macro = other.targets.iter().any(|target| target.kind.iter().any(|kind| kind == "proc-macro"));
            if ordinary && !is_macro {
                edges.insert((id(package), id(other)));
                open.push(&dependency.pkg);
            }
        }
    }
    (found, edges)
}

fn entry(package: &Package, checksums: &BTreeMap<(String, String), String>) -> Value {
    let Package { name, version, .. } = package;
    let public = package.source.as_deref().is_some_and(|source| source.contains("crates.io"));
    let place = if public { format!("https://crates.io/crates/{name}/{version}") } else { "NOASSERTION".to_owned() };
    let mut entry = json!({
        "SPDXID": id(package),
        "name": name,
        "versionInfo": version,
        "downloadLocation": place,
        "filesAnalyzed": false,
        "licenseConcluded": "NOASSERTION",
        // Old crates write a slash for "or".
        "licenseDeclared": package.license.as_ref().map_or_else(|| "NOASSERTION".to_owned(), |text| text.replace('/', " OR ")),
        "copyrightText": "NOASSERTION",
        "externalRefs": [{
            "referenceCategory": "PACKAGE-MANAGER", "referenceType": "purl",
            "referenceLocator": format!("pkg:cargo/{name}@{version}"),
        }],
    });
    if let Some(checksum) = checksums.get(&(name.clone(), version.clone())) {
        entry["checksums"] = json!([{ "algorithm": "SHA256", "checksumValue": checksum }]);
    }
    entry
}

fn id(package: &Package) -> String {
    let text = |text: &str| text.replace(|c: char| !c.is_ascii_alphanumeric() && c != '.' && c != '-', "-");
    format!("SPDXRef-{}-{}", text(&package.name), text(&package.version))
}

/// Name and version to checksum, from the text of `Cargo.lock`.
fn checksums(lock: &str) -> BTreeMap<(String, String), String> {
    let mut sums = BTreeMap::new();
    for package in lock.split("[[package]]") {
        let field = |key: &str| {
            let line = package.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix(" = "))?;
            Some(line.trim_matches('"').to_owned())
        };
        if let (Some(name), Some(version), Some(sum)) = (field("name"), field("version"), field("checksum")) {
            sums.insert((name, version), sum);
        }
    }
    sums
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_linked_is_listed_and_what_only_builds_or_tests_is_not() {
        let document = document("x86_64-unknown-linux-musl", "sha256:00", 0).unwrap();
        let packages = document["packages"].as_array().unwrap();
        let names: BTreeSet<&str> = packages.iter().filter_map(|package| package["name"].as_str()).collect();
        for name in ["maesh", "maesh-proxy", "rustls", "ring", "tikv-jemalloc-sys", "rust-std"] {
            assert!(names.contains(name), "{name} is missing");
        }
        for name in ["proptest", "serde_derive", "cc", "xtask", "maesh-test-support"] {
            assert!(!names.contains(name), "{name} is not in the binary");
        }
        for package in packages {
            assert_ne!(package["licenseDeclared"], "NOASSERTION", "{package}");
            let third_party = package["downloadLocation"].as_str().unwrap().starts_with("https://crates.io/");
            assert_eq!(package["checksums"].is_array(), third_party, "{package}");
        }
        let ids: BTreeSet<&str> = packages.iter().filter_map(|package| package["SPDXID"].as_str()).collect();
        assert_eq!(ids.len(), packages.len());
        for relation in document["relationships"].as_array().unwrap() {
            assert!(ids.contains(relation["relatedSpdxElement"].as_str().unwrap()), "{relation}");
        }
    }
}
