//! The chart, checked without a cluster and against a real API server.
//!
//! Every test's name begins with `chart_`: `cargo xtask test --only chart` runs them, and the stage of the other tests
//! leaves them out. Files that are rendered and checked in are written anew when `MAESH_WRITE` is set.

mod alerts;
mod helm;
mod promql;
mod queries;
mod render;
mod server;
mod snippets;

/// The values that the chart is rendered with: none, and every file in its folder `ci`.
pub(crate) const VALUES: [&str; 4] = ["", "everything", "single", "kubectl"];

/// Versions of Kubernetes whose schemas are used: the oldest one that the chart allows, up to the newest.
pub(crate) const VERSIONS: [&str; 4] = ["1.31", "1.33", "1.35", "1.37"];
