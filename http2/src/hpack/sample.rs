//! A hash of few bytes.
//!
//! The encoder asks its table about every field, so this has to cost no more than the few bytes it looks at. Nothing
//! depends on it but speed: what is found is compared, and fields with the same hash are only compressed less well.

const FACTORS: [u64; 2] = [0x9e37_79b9_7f4a_7c15, 0xd6e8_feb8_6659_fd93];

/// A hash of the length of `bytes` and their beginning, middle and end.
#[inline(always)]
pub(super) const fn sample(bytes: &[u8]) -> u64 {
    let length = bytes.len() as u64;
    if let (Some(head), Some(tail)) = (bytes.first_chunk::<8>(), bytes.last_chunk::<8>()) {
        let (head, tail) = (u64::from_le_bytes(*head), u64::from_le_bytes(*tail));
        let middle = if bytes.len() > 16 {
            match bytes.split_at(bytes.len() / 2 - 4).1.first_chunk::<8>() {
                Some(middle) => u64::from_le_bytes(*middle),
                None => 0,
            }
        } else {
            0
        };
        fold(head ^ length, tail ^ middle.rotate_left(23))
    } else if let (Some(head), Some(tail)) = (bytes.first_chunk::<4>(), bytes.last_chunk::<4>()) {
        fold(u32::from_le_bytes(*head) as u64 ^ length << 32, u32::from_le_bytes(*tail) as u64)
    } else {
        let (mut all, mut rest) = (0, bytes);
        while let Some((&byte, others)) = rest.split_first() {
            all = all << 8 | byte as u64;
            rest = others;
        }
        fold(all ^ length << 32, 0)
    }
}

/// Mixes two numbers to one, in whose upper and lower bits all of theirs tell.
#[inline(always)]
pub(super) const fn fold(left: u64, right: u64) -> u64 {
    let product = (left ^ FACTORS[0]) as u128 * (right ^ FACTORS[1]) as u128;
    product as u64 ^ (product >> 64) as u64
}
