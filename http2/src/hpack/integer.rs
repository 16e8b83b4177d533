//! Integers: a few bits of a byte, then seven bits in each byte that follows (RFC 7541 section 5.1).

use super::DecodeError;

/// No integer of a header block needs more: 35 bits.
const CONTINUATION_BYTES: u32 = 5;

/// Reads an integer whose first `prefix` bits are the low ones of the first byte.
#[inline]
pub(super) fn decode(input: &mut &[u8], prefix: u32) -> Result<u64, DecodeError> {
    let (&first, rest) = input.split_first().ok_or(DecodeError::Truncated)?;
    *input = rest;
    let mask = (1u8 << prefix) - 1;
    let value = first & mask;
    if value < mask { Ok(u64::from(value)) } else { continuation(input, u64::from(mask)) }
}

#[inline(never)]
fn continuation(input: &mut &[u8], mut value: u64) -> Result<u64, DecodeError> {
    for place in 0..CONTINUATION_BYTES {
        let (&byte, rest) = input.split_first().ok_or(DecodeError::Truncated)?;
        *input = rest;
        value += u64::from(byte & 0x7f) << (7 * place);
        if byte & 0x80 == 0 {
            return Ok(value);
        }
    }
    Err(DecodeError::IntegerTooLarge)
}

/// Writes `value`; `flags` are the bits of the first byte above its `prefix` low ones.
#[inline]
pub(super) fn encode(value: usize, prefix: u32, flags: u8, out: &mut Vec<u8>) {
    let mask = (1usize << prefix) - 1;
    if value < mask {
        out.push(flags | value as u8);
    } else {
        out.push(flags | mask as u8);
        continue_with(value - mask, out);
    }
}

#[inline(never)]
fn continue_with(mut value: usize, out: &mut Vec<u8>) {
    while value >= 0x80 {
        out.push(value as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}
