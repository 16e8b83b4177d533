//! Power of two choices: of two endpoints drawn at random, the one that promises to answer sooner.

/// What an endpoint looks like to the balancer.
pub(crate) trait Load {
    /// Cost of sending one more request to it at `now` (milliseconds of a clock that wraps).
    fn cost(&self, now: u32) -> f32;
}

/// Picks the cheaper of two that `draw` (uniformly random) selects, which may be the same; `None` when there is none.
pub(crate) fn cheaper_of_two<T: Load>(items: &[T], now: u32, draw: u64) -> Option<&T> {
    match items {
        [] => None,
        [only] => Some(only),
        _ => {
            let len = items.len() as u64;
            let first = ((draw >> 32) * len) >> 32;
            // With replacement: now and then both draws are the same one, so that even the dearest is asked sometimes,
            // and a cheap one among two does not keep all of a slow caller's requests for itself.
            let second = ((draw & 0xffff_ffff) * len) >> 32;
            let (a, b) = (&items[index(first)], &items[index(second)]);
            Some(if b.cost(now) < a.cost(now) { b } else { a })
        }
    }
}

#[allow(clippy::cast_possible_truncation)]
fn index(of: u64) -> usize {
    of as usize
}
