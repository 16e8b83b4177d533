//! From Kubernetes objects to the configuration of the mesh: objects in, resources and diagnostics out.
//!
//! A source delivers [`kinds::Object`]s. The [`compile::Compiler`] keeps an index of them and turns what changed into a
//! [`maesh_config::Change`] and [`diagnostic`]s. The result is a function of the objects: every replica comes to the
//! same one. This crate has no client of the Kubernetes API and no clock: what depends on time takes it as an argument.
//! One bad object never takes a good one with it.

pub mod compile;
pub mod diagnostic;
pub mod event;
mod facts;
mod graph;
mod index;
pub mod kinds;
pub mod own_address;
mod placement;
pub mod plan;
mod publication;
mod step;
