//! Blocks that are not as they should be.

use super::*;

#[test]
fn blocks_that_end_the_connection() {
    let long_padding = hex("00 01 61 82 1fff");
    let end_of_string = hex("00 01 61 84 ffffffff");
    for (case, block, error) in [
        ("index 0", hex("80"), DecodeError::NoSuchEntry(0)),
        ("beyond the static table", hex("be"), DecodeError::NoSuchEntry(62)),
        ("far beyond both tables", hex("ff 80 ff ff ff 7f"), DecodeError::NoSuchEntry(34_359_738_367)),
        ("a name beyond the tables", hex("7f 00 01 61"), DecodeError::NoSuchEntry(63)),
        ("a name that is only in the tables of a later block", hex("0f 2f 01 61"), DecodeError::NoSuchEntry(62)),
        ("an integer of six bytes more", hex("ff 80 80 80 80 80 00"), DecodeError::IntegerTooLarge),
        ("an integer that does not end", hex("ff ff ff ff ff ff ff ff ff ff"), DecodeError::IntegerTooLarge),
        ("an integer cut off", hex("ff 80"), DecodeError::Truncated),
        ("no name", hex("40"), DecodeError::Truncated),
        ("a name cut off", hex("40 03 61 62"), DecodeError::Truncated),
        ("no value", hex("40 01 61"), DecodeError::Truncated),
        ("a value cut off", hex("40 01 61 02 62"), DecodeError::Truncated),
        ("a value of 34 GB", hex("40 01 61 7f ff ff ff ff 7f 62"), DecodeError::Truncated),
        ("a Huffman-coded value cut off", hex("40 01 61 82 62"), DecodeError::Truncated),
        ("a table larger than allowed", hex("3f e2 1f"), DecodeError::TableTooLarge(4097)),
        ("a table's size after a field", hex("82 3f e1 1f"), DecodeError::LateTableSize),
        ("padding of more than seven bits", long_padding, DecodeError::Padding),
        ("padding with zeros", hex("00 01 61 81 18"), DecodeError::Padding),
        ("nothing but padding, a byte of it", hex("00 01 61 81 ff"), DecodeError::Padding),
        ("the end of the string", end_of_string, DecodeError::EndOfString),
        ("the end of the string within it", hex("00 01 61 85 1f ff ff ff ff"), DecodeError::EndOfString),
        ("the same further in", hex("00 01 61 8a 1f ff ff ff ff 00 00 00 00 00"), DecodeError::EndOfString),
    ] {
        assert_eq!(decode(&mut Decoder::new(4096), &block), Err(error), "{case}");
    }
}

#[test]
fn blocks_that_are_unusual_only() {
    let indexed = || vec![(Field::Method(Method::GET), 42)];
    for (case, block, fields) in [
        ("an empty block", "", vec![]),
        ("the table's size three times", "20 3f45 3fe11f 82", indexed()),
        ("a length with zeros that need not be", "0f 80 80 80 00 00", vec![(field("accept-charset", ""), 46)]),
        ("an empty Huffman-coded value", "00 01 61 80", vec![(field("a", ""), 33)]),
        ("a field that is larger than the table", "3f 02 40 01 61 01 62", vec![(field("a", "b"), 34)]),
    ] {
        assert_eq!(decode(&mut Decoder::new(4096), &hex(block)), Ok(fields), "{case}");
    }
}

#[test]
fn malformed_fields_do_not_keep_the_rest_from_being_decoded() {
    for (case, name, value) in [
        ("a capital letter", "Accept", "a"),
        ("a capital letter in a long name", &format!("{}X", "x".repeat(80))[..], "a"),
        ("an empty name", "", "a"),
        ("a space in a name", "a b", "a"),
        ("a colon in a name", "a:", "a"),
        ("a quote in a name", "a\"", "a"),
        ("a name that is not ASCII", "\u{e4}", "a"),
        ("a pseudo-header field unknown to us", ":host", "a"),
        ("a pseudo-header field without a name", ":", "a"),
        ("a pseudo-header field in capital letters", ":Path", "/"),
        ("NUL", "a", "a\0"),
        ("the end of a line", "a", "a\r\nb"),
        ("DEL", "a", "\x7f"),
        ("NUL in a path", ":path", "/\0"),
        ("the end of a line in an authority", ":authority", "a\n"),
        ("no method", ":method", ""),
        ("a method that is none", ":method", "GET POST"),
        ("a status of two digits", ":status", "20"),
        ("a status below 100", ":status", "099"),
        ("a status that is no number", ":status", "2OO"),
    ] {
        let mut decoder = Decoder::new(4096);
        let literal = |flags| {
            let mut block = vec![flags];
            for text in [name, value] {
                block.push(text.len() as u8);
                block.extend_from_slice(text.as_bytes());
            }
            block
        };
        let size = name.len() + value.len() + OVERHEAD;
        for flags in [0x00, 0x10, 0x40] {
            let block = [literal(flags), hex("82")].concat();
            let want = vec![(Field::Malformed, size), (Field::Method(Method::GET), 42)];
            assert_eq!(decode(&mut decoder, &block), Ok(want), "{case}");
        }
        assert_eq!(decode(&mut decoder, &hex("be")), Ok(vec![(Field::Malformed, size)]), "{case}: from the table");
    }
}

#[test]
fn a_malformed_field_lends_its_name_if_that_is_good() {
    let mut decoder = Decoder::new(4096);
    let block = hex("40 01 61 01 00  40 01 41 01 62  45 01 00");
    let malformed = |size| (Field::Malformed, size);
    assert_eq!(decode(&mut decoder, &block), Ok(vec![malformed(34), malformed(34), malformed(38)]));
    // The entries from the newest to the oldest: a path with NUL, a capital letter, a good name with NUL.
    for (block, want) in [
        ("0f 2f 01 2f", (field(":path", "/"), 38)),
        ("0f 30 02 62 63", malformed(35)),
        ("0f 31 02 62 63", (field("a", "bc"), 35)),
    ] {
        assert_eq!(decode(&mut decoder, &hex(block)), Ok(vec![want]), "{block}");
    }
}

#[test]
fn an_entry_may_be_evicted_by_the_field_that_has_its_name_from_it() {
    let mut decoder = Decoder::new(4096);
    // Room for one entry: x-a, then the same name with another value.
    let block = hex("3f 09 40 03 78 2d 61 01 62 7e 01 63 be");
    let want = [("x-a", "b"), ("x-a", "c"), ("x-a", "c")].map(|(name, value)| (field(name, value), 36));
    assert_eq!(decode(&mut decoder, &block), Ok(want.to_vec()));
    assert_eq!(decoder.table_sizes(), (36, 1, 40));
}
