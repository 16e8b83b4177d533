//! From Kubernetes objects to the mesh's configuration.
//!
//! A [`source`] (the Kubernetes API, or a folder of manifests) delivers objects; the [`compile::Compiler`] keeps an
//! index of them and turns what changed into a [`maesh_config::Change`] and [`diagnostic`]s, purely and
//! deterministically; [`serve`] drives the two and hands the result on. Nothing here answers a name or carries a
//! request, and no bad object may ever take a good one with it.

pub mod admission;
pub mod api;
pub mod authority;
pub mod compile;
pub mod diagnostic;
mod index;
pub mod kinds;
pub mod leader;
pub mod own;
pub mod serve;
pub mod source;
