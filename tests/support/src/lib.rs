//! Where tests find programs of other projects, and how they say that one is missing.
//!
//! A test that needs such a program asks for it and returns when it is not there:
//! ```no_run
//! let Some(coredns) = maesh_test_support::need_tool("coredns") else { return };
//! ```
//! That prints `SKIPPED: reason`, and tells `cargo xtask test`, which names every skipped test and fails on them with
//! `--strict`. Nothing here installs or builds anything: `cargo xtask tool NAME` and `cargo xtask test --setup` do.

pub mod generated;
mod helm;
mod namespace;
mod place;
mod skip;
mod tool;
mod wait;

pub use helm::isolate_helm;
pub use namespace::{Namespace, RANGES};
pub use place::{cache, program, repository};
pub use skip::{SKIPS, need_program, need_root, need_tool, skip};
pub use tool::{Source, TOOLS, Tool, ToolError, tool};
pub use wait::until;
