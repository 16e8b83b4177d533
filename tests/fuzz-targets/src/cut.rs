//! Cuts a stream into segments, as a network might.

/// The segments of `stream`: single bytes where `seed` is 0, else of lengths that follow from it.
pub(crate) fn cut(mut stream: &[u8], seed: u8) -> Vec<&[u8]> {
    let mut state = u32::from(seed);
    let mut segments = Vec::new();
    while !stream.is_empty() {
        // A linear congruential generator: long and short ones take turns.
        state = state.wrapping_mul(1_664_525).wrapping_add(if seed == 0 { 0 } else { 1_013_904_223 });
        let most = if state & 0x100 == 0 { 7 } else { 4 * u32::from(seed) + 1 };
        let length = 1 + (state >> 16) % most;
        let length = usize::try_from(length).unwrap_or(usize::MAX).min(stream.len());
        let (segment, rest) = stream.split_at(length);
        segments.push(segment);
        stream = rest;
    }
    segments
}
