//! The Huffman code of strings (RFC 7541 appendix B).
//!
//! The code is canonical: codes of one length are consecutive, in the order of their symbols, and follow those of the
//! next shorter length. So the lengths say it all, and the tables are made from them while compiling. A code of up to
//! [`SHORT`] bits, which is any letter, digit and usual sign, is found by one look into a table of 2 KiB; a longer one
//! by comparing it with the first code of each length.

use super::DecodeError;

/// The symbol that ends a string, by being the padding of its last byte; it must never be there in full.
const END_OF_STRING: u16 = 256;

const LONGEST: u32 = 30;

/// The length in bits of the code of each byte, and of the end of a string.
#[rustfmt::skip]
const LENGTHS: [u8; 257] = [
    // Control characters.
    13, 23, 28, 28, 28, 28, 28, 28, 28, 24, 30, 28, 28, 30, 28, 28,
    28, 28, 28, 28, 28, 28, 30, 28, 28, 28, 28, 28, 28, 28, 28, 28,
    // Space, signs and digits.
     6, 10, 10, 12, 13,  6,  8, 11, 10, 10,  8, 11,  8,  6,  6,  6,
     5,  5,  5,  6,  6,  6,  6,  6,  6,  6,  7,  8, 15,  6, 12, 10,
    // From `@` and the capital letters to `_`.
    13,  6,  7,  7,  7,  7,  7,  7,  7,  7,  7,  7,  7,  7,  7,  7,
     7,  7,  7,  7,  7,  7,  7,  7,  8,  7,  8, 13, 19, 13, 14,  6,
    // From the backtick and the small letters to DEL.
    15,  5,  6,  5,  6,  5,  6,  6,  6,  5,  7,  7,  6,  6,  6,  5,
     6,  7,  6,  5,  5,  6,  7,  7,  7,  7,  7, 15, 11, 14, 13, 28,
    // What is not ASCII.
    20, 22, 20, 20, 22, 22, 22, 23, 22, 23, 23, 23, 23, 23, 24, 23,
    24, 24, 22, 23, 24, 23, 23, 23, 23, 21, 22, 23, 22, 23, 23, 24,
    22, 21, 20, 22, 22, 23, 23, 21, 23, 22, 22, 24, 21, 22, 23, 23,
    21, 21, 22, 21, 23, 22, 23, 23, 20, 22, 22, 22, 23, 22, 22, 23,
    26, 26, 20, 19, 22, 23, 22, 25, 26, 26, 26, 27, 27, 26, 24, 25,
    19, 21, 26, 27, 27, 26, 27, 24, 21, 21, 26, 26, 28, 27, 27, 27,
    20, 24, 20, 21, 22, 21, 21, 23, 22, 22, 25, 25, 24, 24, 26, 23,
    26, 27, 26, 26, 27, 27, 27, 27, 27, 28, 27, 27, 27, 27, 27, 26,
    // The end of a string.
    30,
];

/// Codes up to this length are in the table of short ones.
const SHORT: u32 = 10;

/// By the next [`SHORT`] bits: the symbol, and the length of its code in the upper byte; 0 if the code is longer.
static SHORT_CODES: [u16; 1 << SHORT] = CODE.short;

/// The codes of one length, for those that are longer than [`SHORT`].
#[derive(Clone, Copy)]
struct LongCodes {
    /// All of this length and of shorter ones are less than this, when it is written in 32 bits from the left.
    end: u32,
    length: u32,
    /// The first code, and where its symbol is among [`SYMBOLS`].
    first: u32,
    position: u32,
}

static LONG_CODES: [LongCodes; LONG_LENGTHS] = CODE.long;

/// How many different lengths there are above [`SHORT`].
const LONG_LENGTHS: usize = 16;

/// All symbols in the order of their codes.
static SYMBOLS: [u16; 257] = CODE.symbols;

struct Code {
    short: [u16; 1 << SHORT],
    long: [LongCodes; LONG_LENGTHS],
    symbols: [u16; 257],
}

const CODE: Code = code();

const fn code() -> Code {
    let mut made = Code {
        short: [0; 1 << SHORT],
        long: [LongCodes { end: 0, length: 0, first: 0, position: 0 }; LONG_LENGTHS],
        symbols: [0; 257],
    };
    let (mut next, mut position, mut long) = (0u64, 0, 0);
    let mut length = 1;
    while length <= LONGEST {
        next <<= 1;
        let (first, start) = (next, position);
        let mut symbol = 0;
        while symbol < LENGTHS.len() {
            if LENGTHS[symbol] as u32 == length {
                made.symbols[position] = symbol as u16;
                if length <= SHORT {
                    let spare = SHORT - length;
                    let mut at = (next << spare) as usize;
                    while at < ((next + 1) << spare) as usize {
                        made.short[at] = symbol as u16 | (length as u16) << 8;
                        at += 1;
                    }
                }
                next += 1;
                position += 1;
            }
            symbol += 1;
        }
        if length > SHORT && position > start {
            let end = next << (32 - length);
            made.long[long] = LongCodes {
                end: if end > u32::MAX as u64 { u32::MAX } else { end as u32 },
                length,
                first: first as u32,
                position: start as u32,
            };
            long += 1;
        }
        length += 1;
    }
    assert!(next == 1 << LONGEST, "every sequence of bits begins with exactly one code");
    assert!(long == LONG_LENGTHS);
    made
}

/// The longest string that `coded` bytes may stand for: no code has less than five bits.
pub(super) fn longest_string(coded: usize) -> usize {
    coded * 8 / 5
}

/// Decodes `coded` into the beginning of `out`, which has room for [`longest_string`], and returns how long it is.
pub(super) fn decode(mut coded: &[u8], out: &mut [u8]) -> Result<usize, DecodeError> {
    // The bits not decoded yet, from the left, and how many.
    let (mut bits, mut count) = (0u64, 0u32);
    let mut length = 0;
    loop {
        if let Some(word) = coded.first_chunk::<8>() {
            bits |= u64::from_be_bytes(*word) >> count;
            let taken = (63 - count) / 8;
            coded = &coded[taken as usize..];
            count += taken * 8;
        } else {
            while let (true, Some((&byte, rest))) = (count <= 56, coded.split_first()) {
                bits |= u64::from(byte) << (56 - count);
                count += 8;
                coded = rest;
            }
            if count < LONGEST {
                break;
            }
        }
        while count >= LONGEST {
            let (symbol, taken) = next_symbol(bits);
            if symbol == END_OF_STRING {
                return Err(DecodeError::EndOfString);
            }
            out[length] = symbol as u8;
            length += 1;
            bits <<= taken;
            count -= taken;
        }
    }
    // The last bits: with ones behind them, what is not a symbol of its own looks like the end of the string.
    while count > 0 {
        let padded = bits | (u64::MAX >> count);
        let (symbol, taken) = next_symbol(padded);
        if taken > count {
            return if count < 8 && padded == u64::MAX { Ok(length) } else { Err(DecodeError::Padding) };
        }
        out[length] = symbol as u8;
        length += 1;
        bits <<= taken;
        count -= taken;
    }
    Ok(length)
}

/// The symbol whose code `bits` begin with, and the length of the code.
#[inline(always)]
fn next_symbol(bits: u64) -> (u16, u32) {
    match SHORT_CODES[(bits >> (64 - SHORT)) as usize] {
        0 => long_symbol((bits >> 32) as u32),
        found => (found & 0xff, u32::from(found >> 8)),
    }
}

#[inline(never)]
fn long_symbol(bits: u32) -> (u16, u32) {
    // Only the end of a string has all bits set, and it is of the last length.
    let codes = LONG_CODES.iter().find(|codes| bits < codes.end).unwrap_or(&LONG_CODES[LONG_LENGTHS - 1]);
    let position = codes.position + (bits >> (32 - codes.length)) - codes.first;
    (SYMBOLS[position as usize], codes.length)
}

/// Encodes a string. Only for tests: what [`super::Encoder`] writes out is not in any table of the peer's and goes a
/// short way, and the bits saved are not worth the time.
#[cfg(test)]
pub(super) fn encode(string: &[u8]) -> Vec<u8> {
    let mut bits = String::new();
    for &byte in string {
        let length = u32::from(LENGTHS[usize::from(byte)]);
        let code = |symbol: usize| (0..symbol).filter(|&s| u32::from(LENGTHS[s]) == length).count();
        let shorter: u64 =
            LENGTHS.iter().filter(|&&l| u32::from(l) < length).map(|&l| 1 << (length - u32::from(l))).sum();
        let code = shorter + code(usize::from(byte)) as u64;
        bits.push_str(&format!("{code:0width$b}", width = length as usize));
    }
    bits.push_str(&"1".repeat((8 - bits.len() % 8) % 8));
    bits.as_bytes()
        .chunks(8)
        .map(|byte| u8::from_str_radix(std::str::from_utf8(byte).expect("digits"), 2).expect("bits"))
        .collect()
}
