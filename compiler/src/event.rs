//! What changes in the objects that the mesh reads.
//!
//! A source never says less than it knows: when it starts over it sends [`Event::Reset`] with everything there is, and
//! the index computes what is gone, so that there is never an empty configuration in between.

use std::sync::Arc;

use crate::{
    diagnostic::Diagnostic,
    kinds::{Object, ObjectId, ObjectKind},
};

/// What a source says.
#[derive(Clone, Debug, PartialEq)]
pub enum Event {
    /// This object is new or differs.
    Apply(Object),
    /// This object is gone.
    Delete(ObjectId),
    /// This object was asked for, and cannot be read, for this reason.
    Unreadable(ObjectId, Arc<str>),
    /// These are all objects of the kind; all others of it are gone.
    Reset(ObjectKind, Vec<Object>),
    /// With what was sent before, everything that the cluster did to objects of this kind up to this resource version
    /// has been delivered.
    Reached(ObjectKind, u64),
    /// Everything of this kind has been delivered at least once.
    Synced(ObjectKind),
    /// What is wrong with the source itself, in full: replaces what it said before.
    Problems(Vec<Diagnostic>),
}
