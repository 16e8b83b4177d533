//! The configuration of the mesh: its model, the policies in it, and the bytes that carry them.
//!
//! The controller compiles Kubernetes objects into small, independent [`Resource`]s. The dns and proxy roles act on them.
//! This crate knows neither Kubernetes nor DNS nor HTTP, and it does no I/O: `maesh-discovery` is how resources travel.

mod address;
mod decode;
pub mod duration;
pub mod intern;
mod logic;
pub mod model;
pub mod name;
pub mod policy;
pub mod rule;
mod skew;
pub mod wire;

pub use address::{canonical, undialable};
pub use logic::Logic;
pub use model::{Change, Key, Kind, Resource};
pub use name::{NodeName, ServiceName, Zone};
