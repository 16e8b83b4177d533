//! Huffman-coded strings and integers.

use proptest::{collection::vec, prelude::*};

use super::{
    super::{huffman, integer},
    *,
};

fn decoded(coded: &[u8]) -> Result<Vec<u8>, DecodeError> {
    let mut out = vec![0; huffman::longest_string(coded.len())];
    let length = huffman::decode(coded, &mut out)?;
    out.truncate(length);
    Ok(out)
}

#[test]
fn each_byte_has_its_code() {
    for byte in 0..=u8::MAX {
        for length in 1..20 {
            let string = vec![byte; length];
            assert_eq!(decoded(&huffman::encode(&string)), Ok(string), "{byte:#x}, {length} times");
        }
    }
}

#[test]
fn integers_of_the_rfc() {
    // RFC 7541 appendix C.1.
    for (value, prefix, bytes) in [(10, 5, "0a"), (1337, 5, "1f9a0a")] {
        let mut out = Vec::new();
        integer::encode(value, prefix, 0, &mut out);
        assert_eq!(out, hex(bytes));
        assert_eq!(integer::decode(&mut &hex(bytes)[..], prefix), Ok(value as u64));
    }
}

proptest! {
    #[test]
    fn strings_come_back_as_they_were(string in vec(any::<u8>(), 0..300)) {
        prop_assert_eq!(decoded(&huffman::encode(&string)), Ok(string));
    }

    #[test]
    fn no_two_codings_mean_the_same_string(coded in vec(any::<u8>(), 0..60)) {
        if let Ok(string) = decoded(&coded) {
            prop_assert_eq!(huffman::encode(&string), coded);
        }
    }

    #[test]
    fn integers_come_back_as_they_were(
        value in prop_oneof![0..300u64, 0..1u64 << 34],
        prefix in 4..8u32,
        rest in vec(any::<u8>(), 0..3),
    ) {
        let mut out = Vec::new();
        integer::encode(value as usize, prefix, 0, &mut out);
        out.extend(&rest);
        let mut input = &out[..];
        prop_assert_eq!(integer::decode(&mut input, prefix), Ok(value));
        prop_assert_eq!(input, &rest);
    }
}
