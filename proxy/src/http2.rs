//! What connections of HTTP/2 have in common, those of callers and those to endpoints.
//!
//! [`Driver`] carries bytes between a socket and the protocol, which is a crate of its own. [`FrameBounds`] follows the frames in
//! the bytes that arrive, and [`FrameBudget`] bounds those that do no work.

mod budget;
mod driver;
mod frames;

pub(crate) use self::{
    budget::FrameBudget,
    driver::{Driver, Progress as DriverProgress},
    frames::{FrameBounds, Progress},
};
