//! What a peer of HTTP/2 sends, as far as the `h2` crate does not bound it: for connections of callers, and to
//! endpoints.
//!
//! [`FrameBounds`] follows the frames in the bytes before the crate gets them. [`FrameBudget`] bounds those that do no
//! work.

mod budget;
mod frames;

pub(crate) use self::{
    budget::FrameBudget,
    frames::{FrameBounds, Progress},
};
