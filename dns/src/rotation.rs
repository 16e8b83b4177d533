//! Whose turn it is among several addresses.
//!
//! Callers ask in patterns: for A and AAAA in pairs, or for two names in turn. A counter that steps by one would give each
//! of them the same address again and again. This one steps by the golden ratio of its range, so that every second query,
//! or every third, meets all addresses equally often too.

/// The golden ratio of 2^64, which is odd.
const STEP: u64 = 0x9e37_79b9_7f4a_7c15;

/// A counter for the argument `rotation` of [`crate::answer()`].
#[derive(Debug)]
pub(crate) struct Rotation(u64);

impl Rotation {
    /// Starts at a place that depends on `seed`.
    pub(crate) fn new(seed: usize) -> Self {
        Self((seed as u64).wrapping_mul(STEP))
    }

    /// The next turn.
    pub(crate) fn next(&mut self) -> usize {
        self.0 = self.0.wrapping_add(STEP);
        // The high half is what is spread evenly.
        (self.0 >> 32) as usize
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_nth_query_meets_all_addresses() {
        for addresses in 2..=5 {
            for stride in 1..=8 {
                let mut rotation = Rotation::new(0);
                let mut met = vec![0; addresses];
                for query in 0..4000 * stride {
                    let turn = rotation.next();
                    if query % stride == 0 {
                        met[turn % addresses] += 1;
                    }
                }
                let fair = 4000 / addresses;
                assert!(met.iter().all(|met| (fair * 9 / 10..=fair * 11 / 10).contains(met)), "{stride}: {met:?}");
            }
        }
    }
}
