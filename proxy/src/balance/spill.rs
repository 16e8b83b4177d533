//! When endpoints further away help out.
//!
//! Hints keep requests near, as long as enough of what is near is well. Where many near endpoints are ejected, the rest would get
//! all of their requests. Then a part of the requests goes further, as large as the part of capacity that is missing.

/// Percent of the near endpoints that carry all requests to them.
const ENOUGH: u64 = 70;

/// Whether a request leaves the near endpoints, of which `well` of `near` are not ejected. `draw` is uniformly random, and may
/// be used again to choose an endpoint.
pub(super) fn spills(well: usize, near: usize, draw: u64) -> bool {
    let enough = near as u64 * ENOUGH;
    let missing = enough.saturating_sub(well as u64 * 100);
    // Other bits than those by which the endpoint is chosen.
    let share = draw.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 32;
    (share * enough) >> 32 < missing
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn as_much_spills_as_is_missing() {
        for (well, near, share) in [
            (10, 10, 0.0),
            (7, 10, 0.0),
            (6, 10, 1.0 / 7.0),
            (1, 2, 2.0 / 7.0),
            (2, 10, 5.0 / 7.0),
            (0, 3, 1.0),
            (1, 1, 0.0),
        ] {
            let draws = (1..=10_000_u64).map(|n| n.wrapping_mul(0xbf58_476d_1ce4_e5b9));
            let spilt = draws.filter(|draw| spills(well, near, *draw)).count() as f64 / 10_000.0;
            assert!((spilt - share).abs() < 0.02, "{well} of {near}: {spilt}, not {share}");
        }
    }
}
