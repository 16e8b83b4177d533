//! Flows of datagrams, as a sequence of what happens to them: the limits on them, and the table of one listener.
//!
//! The first byte says which of the two, the rest what happens.

use crate::{flow_limits, flow_table};

pub(crate) fn run(bytes: &[u8]) {
    let Some((which, steps)) = bytes.split_first() else { return };
    if which & 1 == 0 { flow_limits::run(steps) } else { flow_table::run(steps) }
}
