//! The controller beside real and hostile API servers. One test program, because each one more takes its time to be
//! linked, and because its tests, which mostly wait, wait side by side.

#![allow(clippy::unwrap_used, reason = "tests")]

mod admission;
mod authority;
mod budget;
mod events;
mod hostile;
mod kubernetes;
mod lab;
mod leader;
mod manifests;
mod objects;
mod own;
mod replica;
mod stanza;
mod support;
mod uninstall;
