//! The endpoint with the fewest requests in flight.

/// Picks the item for which `in_flight` is least. Of equal ones, the first behind a place that `draw` (uniformly random)
/// selects.
pub(crate) fn least<T>(items: &[T], draw: u64, in_flight: impl Fn(&T) -> u32) -> Option<&T> {
    let len = items.len();
    if len == 0 {
        return None;
    }
    #[allow(clippy::cast_possible_truncation)]
    let first = (draw % len as u64) as usize;
    let (before, behind) = items.split_at(first);
    behind.iter().chain(before).min_by_key(|item| in_flight(item))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_least_busy_is_picked_and_equal_ones_share() {
        assert_eq!(least(&[3, 1, 2], 0, |n| *n), Some(&1));
        assert_eq!(least::<u32>(&[], 5, |n| *n), None);
        let items = [(0, 7), (1, 7), (2, 7)];
        let picked: Vec<_> = (0..3).filter_map(|draw| least(&items, draw, |item| item.1)).map(|item| item.0).collect();
        assert_eq!(picked, [0, 1, 2]);
    }
}
