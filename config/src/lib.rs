//! What the mesh is told, how that travels, and how it rests on disk.
//!
//! The controller compiles Kubernetes objects into small, independent [`Resource`]s; one discovery stream carries them
//! to the dns and proxy roles. This crate is the only thing the three share: it knows neither Kubernetes nor DNS nor
//! HTTP proxying, and nothing here decides what a caller is answered.

pub mod discovery;
pub mod duration;
pub mod model;
pub mod name;
pub mod update;
pub mod wire;

pub use model::{Change, Key, Kind, Resource};
pub use name::{NodeName, ServiceName, Zone};
