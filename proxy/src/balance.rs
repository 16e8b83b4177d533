//! Which endpoint a request or a stream goes to.
//!
//! [`pick()`] narrows the endpoints of a backend to those that fit the caller, and lets the backend's strategy choose among
//! them: [`p2c`] by cost, [`source`] by the caller's address. [`latency`] is what is learnt of each endpoint. Everything
//! here is a function of its arguments: time and chance come in from outside.

mod latency;
mod p2c;
mod pick;
mod source;

pub(crate) use latency::{FAILURE, Latency};
pub(crate) use pick::{fitting, pick};

#[cfg(test)]
mod tests;
