//! Where objects come from.
//!
//! A source sends [`Batch`]es: what one batch says takes effect together. It never says less than it knows: a source
//! that starts over sends [`Event::Reset`] with everything there is, and the index computes what is gone, so that
//! there is never an empty configuration in between.

pub mod kubernetes;
pub mod manifests;

pub use maesh_compiler::event::Event;
use tokio::sync::mpsc;

/// Events that take effect together.
pub type Batch = Vec<Event>;

/// Receives what a source sends.
pub type Batches = mpsc::Receiver<Batch>;
