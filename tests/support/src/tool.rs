//! The programs of other projects that tests use and no package of the system has: where each comes from, and where
//! it lies once it is built.
//!
//! A program lies in a folder of the cache that is named after its version and after everything it is built from.
//! So two clones at different commits share a cache without disturbing each other, and a change of either makes a new
//! folder.

use std::fs;
use std::path::{Path, PathBuf};

use xxhash_rust::xxh3::Xxh3;

use crate::{cache, repository};

/// A program that is built into the cache.
#[derive(Debug, Clone, Copy)]
pub struct Tool {
    /// What tests and people call it.
    pub name: &'static str,
    /// The version that is built; part of the folder's name.
    pub version: &'static str,
    /// What it is needed for, as the end of "needed for ...".
    pub needed_for: &'static str,
    /// How it is built.
    pub source: Source,
}

/// How a program is built.
#[derive(Debug, Clone, Copy)]
pub enum Source {
    /// From Go modules whose sums are committed.
    Go {
        /// Folder of our module, from the repository's root.
        folder: &'static str,
        /// The package to build: `.` for our own main.
        package: &'static str,
        /// Names under which the program is found as well, because it behaves by its name.
        names: &'static [&'static str],
        /// Settings given to the linker as `-X NAME=VALUE`.
        variables: &'static [&'static str],
        /// Build tags.
        tags: &'static [&'static str],
        /// The file with the modules' versions, beside another version's: `go.mod` where there is one only. Their sums
        /// are in the file of the same name that ends in `.sum`.
        modules: &'static str,
    },
    /// From a crate that is not a part of the workspace.
    Crate,
    /// From Python packages whose sums are committed in `requirements.txt`.
    Python {
        /// Folder with `requirements.txt`, from the repository's root.
        folder: &'static str,
        /// The program inside the installed packages; empty when the folder itself is wanted, for `PYTHONPATH`.
        program: &'static str,
    },
}

const GO_MOD: &str = "go.mod";

const PROMETHEUS: &str = "tests/tools/promtool";

const PYTHON: &str = "tests/tools/python";

/// Every program of this kind.
pub const TOOLS: &[Tool] = &[
    Tool {
        name: "etcd",
        version: "3.7.3",
        needed_for: "a real Kubernetes API server",
        source: Source::Go {
            folder: "tests/tools/etcd",
            package: "go.etcd.io/etcd/server/v3",
            names: &[],
            variables: &[],
            tags: &[],
            modules: GO_MOD,
        },
    },
    Tool {
        name: "etcdctl",
        version: "3.7.3",
        needed_for: "compaction under a watch",
        source: Source::Go {
            folder: "tests/tools/etcd",
            package: "go.etcd.io/etcd/etcdctl/v3",
            names: &[],
            variables: &[],
            tags: &[],
            modules: GO_MOD,
        },
    },
    Tool {
        name: "kube",
        version: "1.35.4",
        needed_for: "a real Kubernetes API server",
        source: Source::Go {
            folder: "tests/tools/kubernetes",
            package: ".",
            names: &["kube-apiserver", "kube-controller-manager", "kube-scheduler", "kubelet", "kube-proxy", "kubectl"],
            // Without a version, components take each other for ancient ones.
            variables: &[
                "k8s.io/component-base/version.gitVersion=v1.35.4",
                "k8s.io/component-base/version.gitMajor=1",
                "k8s.io/component-base/version.gitMinor=35",
                "k8s.io/client-go/pkg/version.gitVersion=v1.35.4",
                "k8s.io/client-go/pkg/version.gitMajor=1",
                "k8s.io/client-go/pkg/version.gitMinor=35",
            ],
            tags: &[],
            modules: GO_MOD,
        },
    },
    Tool {
        name: "coredns",
        version: "1.15.0",
        needed_for: "names through a real CoreDNS",
        source: Source::Go {
            folder: "tests/tools/coredns",
            package: ".",
            names: &[],
            variables: &[],
            tags: &[],
            modules: GO_MOD,
        },
    },
    Tool {
        name: "coredns-old",
        version: "1.11.1",
        needed_for: "the DNS of clusters of some years ago",
        source: Source::Go {
            folder: "tests/tools/coredns",
            package: ".",
            names: &[],
            variables: &[],
            tags: &[],
            modules: "old.mod",
        },
    },
    Tool {
        name: "helm4",
        version: "4.3.1",
        needed_for: "the chart",
        source: Source::Go {
            folder: "tests/tools/helm4",
            package: "helm.sh/helm/v4/cmd/helm",
            names: &["helm"],
            variables: &["helm.sh/helm/v4/internal/version.version=v4.3.1"],
            tags: &[],
            modules: GO_MOD,
        },
    },
    Tool {
        name: "helm3",
        version: "3.22.0",
        needed_for: "the chart",
        source: Source::Go {
            folder: "tests/tools/helm3",
            package: "helm.sh/helm/v3/cmd/helm",
            names: &[],
            // Helm 3 takes the version of Kubernetes that it renders for from here, and 1.20 without it.
            variables: &[
                "helm.sh/helm/v3/internal/version.version=v3.22.0",
                "helm.sh/helm/v3/pkg/chartutil.k8sVersionMajor=1",
                "helm.sh/helm/v3/pkg/chartutil.k8sVersionMinor=37",
                "helm.sh/helm/v3/pkg/lint/rules.k8sVersionMajor=1",
                "helm.sh/helm/v3/pkg/lint/rules.k8sVersionMinor=37",
            ],
            tags: &[],
            modules: GO_MOD,
        },
    },
    Tool {
        name: "promtool",
        version: "3.16.0",
        needed_for: "the alerts and the dashboard",
        source: Source::Go {
            folder: PROMETHEUS,
            package: "github.com/prometheus/prometheus/cmd/promtool",
            names: &[],
            variables: &[],
            // Without the ways to find targets, which tests do not need, it builds in half the time.
            tags: &["remove_all_sd"],
            modules: GO_MOD,
        },
    },
    Tool {
        name: "prometheus",
        version: "3.16.0",
        needed_for: "the pictures of the dashboards",
        source: Source::Go {
            folder: PROMETHEUS,
            package: "github.com/prometheus/prometheus/cmd/prometheus",
            names: &[],
            variables: &[],
            tags: &["remove_all_sd"],
            modules: GO_MOD,
        },
    },
    Tool {
        name: "otelcol",
        version: "0.161.0",
        needed_for: "traces at a real OpenTelemetry collector",
        source: Source::Go {
            folder: "tests/tools/otelcol",
            package: ".",
            names: &[],
            variables: &[],
            tags: &[],
            modules: GO_MOD,
        },
    },
    Tool {
        name: "h2spec",
        version: "2.2.1",
        needed_for: "what HTTP/2 asks of a server",
        source: Source::Go {
            folder: "tests/tools/h2spec",
            package: "github.com/summerwind/h2spec/cmd/h2spec",
            names: &[],
            variables: &[],
            tags: &[],
            modules: GO_MOD,
        },
    },
    Tool {
        name: "grpc-interop-client",
        version: "1.85.0",
        needed_for: "gRPC through the proxy, as gRPC's own programs speak it",
        source: Source::Go {
            folder: "tests/tools/grpc-interop",
            package: "google.golang.org/grpc/interop/client",
            names: &[],
            variables: &[],
            tags: &[],
            modules: GO_MOD,
        },
    },
    Tool {
        name: "grpc-interop-server",
        version: "1.85.0",
        needed_for: "gRPC through the proxy, as gRPC's own programs speak it",
        source: Source::Go {
            folder: "tests/tools/grpc-interop",
            package: "google.golang.org/grpc/interop/server",
            names: &[],
            variables: &[],
            tags: &[],
            modules: GO_MOD,
        },
    },
    Tool {
        name: "kubernetes-validate",
        version: "1.37.0",
        needed_for: "the chart's objects against the schemas of several versions of Kubernetes",
        source: Source::Python { folder: "tests/tools/kubernetes-validate", program: "" },
    },
    Tool {
        name: "go-control-plane",
        version: "0.14.0",
        needed_for: "the discovery stream with a server of others",
        source: Source::Go {
            folder: "tests/compat/go-control-plane",
            package: ".",
            names: &[],
            variables: &[],
            tags: &[],
            modules: GO_MOD,
        },
    },
    Tool {
        name: "envoy",
        version: "1.40.0",
        needed_for: "the discovery stream with a real Envoy, and the HTTP bench",
        source: Source::Python { folder: PYTHON, program: "envoy/_bin/envoy" },
    },
    Tool {
        name: "dnspython",
        version: "2.9.2",
        needed_for: "DNS packets read by an independent decoder",
        source: Source::Python { folder: PYTHON, program: "" },
    },
    Tool {
        name: "cargo-deny",
        version: "0.20.2",
        needed_for: "licences, bans and sources of third-party crates",
        source: Source::Crate,
    },
];

/// Why a program is not there.
#[derive(Debug, thiserror::Error)]
pub enum ToolError {
    /// It has not been built for this state of the repository.
    #[error("{name} {version} is not built, needed for {needed_for}: cargo xtask tool {name}")]
    Missing {
        /// The program.
        name: &'static str,
        /// Its version.
        version: &'static str,
        /// What for.
        needed_for: &'static str,
    },
    /// Nothing of this name is in [`TOOLS`].
    #[error("no tool is called {0}")]
    Unknown(String),
}

/// The file of the program that is called `name` (a tool's name, or one of the names it is found under as well).
///
/// # Errors
/// When no tool has this name, or it has not been built.
pub fn tool(name: &str) -> Result<PathBuf, ToolError> {
    let Some(tool) = TOOLS.iter().find(|tool| tool.answers_to(name)) else {
        return Err(ToolError::Unknown(name.to_owned()));
    };
    let file = tool.file(name);
    if file.exists() {
        return Ok(file);
    }
    Err(ToolError::Missing { name: tool.name, version: tool.version, needed_for: tool.needed_for })
}

impl Tool {
    /// Says whether the program is found under `name`.
    pub fn answers_to(&self, name: &str) -> bool {
        self.name == name || matches!(self.source, Source::Go { names, .. } if names.contains(&name))
    }

    /// The folder in the cache where this program lies, or will, for the present state of the repository.
    pub fn folder(&self) -> PathBuf {
        let mut hash = Xxh3::new();
        let stem = match self.source {
            Source::Go { folder, package, names, variables, tags, modules } => {
                let modules = if modules == GO_MOD { &[][..] } else { &[modules] };
                for part in [&[package][..], names, variables, tags, modules].concat() {
                    hash.update(part.as_bytes());
                    hash.update(&[0]);
                }
                hash_folder(&mut hash, &repository().join(folder));
                format!("{}-{}", self.name, self.version)
            }
            Source::Crate => format!("{}-{}", self.name, self.version),
            // Installed together, for all that need one of them.
            Source::Python { folder, .. } => {
                hash_folder(&mut hash, &repository().join(folder));
                "python".to_owned()
            }
        };
        cache().join("tools").join(format!("{stem}-{:016x}", hash.digest()))
    }

    /// The file of the program under the name `name`, see [`Tool::answers_to`].
    pub fn file(&self, name: &str) -> PathBuf {
        match self.source {
            Source::Go { .. } => self.folder().join(name),
            Source::Crate => self.folder().join("bin").join(name),
            Source::Python { program, .. } => self.folder().join(program),
        }
    }
}

/// Adds the names and contents of the files in `folder`, in a fixed order. What cannot be read counts as empty: the
/// build itself then says what is wrong.
fn hash_folder(hash: &mut Xxh3, folder: &Path) {
    let mut files: Vec<PathBuf> =
        fs::read_dir(folder).into_iter().flatten().filter_map(|entry| Some(entry.ok()?.path())).collect();
    files.sort();
    for file in files.iter().filter(|file| file.is_file()) {
        let content = fs::read(file).unwrap_or_default();
        hash.update(file.file_name().unwrap_or_default().as_encoded_bytes());
        hash.update(&[0]);
        hash.update(&content.len().to_le_bytes());
        hash.update(&content);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn folders_follow_contents() {
        let folder = tempfile::tempdir().unwrap();
        let digest = || {
            let mut hash = Xxh3::new();
            hash_folder(&mut hash, folder.path());
            hash.digest()
        };
        let empty = digest();
        fs::write(folder.path().join("a"), "12").unwrap();
        let one = digest();
        assert_ne!(empty, one, "a file came");
        assert_eq!(one, digest(), "nothing changed");
        fs::write(folder.path().join("a"), "1").unwrap();
        fs::write(folder.path().join("b"), "2").unwrap();
        assert_ne!(one, digest(), "the same bytes in two files");
    }

    #[test]
    fn every_tool_has_its_sources_and_a_name_of_its_own() {
        for (index, tool) in TOOLS.iter().enumerate() {
            let file = match tool.source {
                Source::Go { folder, modules, .. } => {
                    Some(repository().join(folder).join(modules).with_extension("sum"))
                }
                Source::Python { folder, .. } => Some(repository().join(folder).join("requirements.txt")),
                Source::Crate => None,
            };
            assert!(file.is_none_or(|file| file.exists()), "{}", tool.name);
            assert!(!TOOLS[..index].iter().any(|other| other.answers_to(tool.name)), "{} twice", tool.name);
        }
    }

    #[test]
    fn what_is_missing_says_how_to_get_it() {
        let Tool { name, version, needed_for, .. } = TOOLS[0];
        assert_eq!(
            ToolError::Missing { name, version, needed_for }.to_string(),
            "etcd 3.7.3 is not built, needed for a real Kubernetes API server: cargo xtask tool etcd"
        );
        assert!(matches!(tool("no-such-thing"), Err(ToolError::Unknown(_))));
    }
}
