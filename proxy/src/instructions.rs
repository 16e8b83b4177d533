//! The work of a request in parts, for `tests/instructions`, which counts the instructions of each.
//!
//! Every part stands in a module `instructions` beside the code that it runs. Nothing here is in a proxy: only the feature
//! `instructions` has it.

mod mesh;

pub(crate) use self::mesh::{MeasuredMesh, endpoint};

/// One part of the work.
#[derive(Clone, Copy, Debug)]
pub struct Part {
    /// What it is called.
    pub name: &'static str,
    /// Makes everything that it needs, and returns what does it once.
    pub prepare: fn() -> Step,
}

/// Does the part once, with other values each time. What it gives to the function it is called with is counted, and nothing else.
pub type Step = Box<dyn FnMut(Counted<'_>)>;

/// Runs what is counted.
pub type Counted<'a> = &'a mut dyn FnMut(&mut dyn FnMut());

/// All parts that are the proxy's own.
#[must_use]
pub fn parts() -> Vec<Part> {
    use crate::{balance, http, policy, routes, upstream};
    let all = [
        http::instructions::PARTS,
        routes::instructions::PARTS,
        balance::instructions::PARTS,
        policy::instructions::PARTS,
        http::server_instructions::PARTS,
        upstream::instructions::PARTS,
    ];
    all.concat()
}

/// Numbers that look random and are the same in each run.
pub(crate) fn draw(step: u64) -> u64 {
    // The finaliser of SplitMix64.
    let mut value = step.wrapping_add(1).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    value = (value ^ (value >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    value = (value ^ (value >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    value ^ (value >> 31)
}
