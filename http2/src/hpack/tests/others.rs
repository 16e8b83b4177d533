//! Another implementation, httlib-hpack, understands what is written here, and is understood.

use httlib_hpack::{Decoder as OtherDecoder, Encoder as OtherEncoder};
use proptest::{collection::vec, prelude::*};

use super::*;

/// Names and values of which many are the same, with the way in which the other encoder writes each.
fn blocks() -> impl Strategy<Value = Vec<Vec<(String, String, u8)>>> {
    let names = vec!["accept", "cookie", "etag", "server", "x-a", "x-request-id", "grpc-timeout"];
    let name = prop::sample::select(names);
    let field = (name, "[ -~]{0,60}").prop_map(|(name, value)| (name.to_owned(), value));
    let flags = prop::sample::select(vec![
        OtherEncoder::BEST_FORMAT | OtherEncoder::WITH_INDEXING,
        OtherEncoder::BEST_FORMAT | OtherEncoder::WITH_INDEXING | OtherEncoder::HUFFMAN_VALUE,
        OtherEncoder::WITH_INDEXING | OtherEncoder::HUFFMAN_NAME | OtherEncoder::HUFFMAN_VALUE,
        OtherEncoder::BEST_FORMAT | OtherEncoder::HUFFMAN_NAME,
        OtherEncoder::NEVER_INDEXED,
        0,
    ]);
    vec(field, 1..20).prop_flat_map(move |fields| {
        let field =
            (prop::sample::select(fields), flags.clone()).prop_map(|((name, value), flags)| (name, value, flags));
        vec(vec(field, 0..12), 1..20)
    })
}

proptest! {
    #[test]
    fn the_others_blocks_are_decoded(blocks in blocks()) {
        let (mut encoder, mut decoder) = (OtherEncoder::with_dynamic_size(4096), Decoder::new(4096));
        for fields in blocks {
            let mut block = Vec::new();
            for (name, value, flags) in &fields {
                let field = (name.clone().into_bytes(), value.clone().into_bytes(), *flags);
                encoder.encode(field, &mut block).expect("a block");
            }
            let want = fields.iter().map(|(name, value, _)| field(name, value)).map(|f| (f.clone(), size(&f)));
            prop_assert_eq!(decode(&mut decoder, &block), Ok(want.collect::<Vec<_>>()));
        }
    }

    #[test]
    fn the_other_decodes_our_blocks(blocks in blocks()) {
        let (mut encoder, mut decoder) = (Encoder::new(), OtherDecoder::with_dynamic_size(4096));
        for fields in blocks {
            let fields: Vec<_> = fields.iter().map(|(name, value, _)| field(name, value)).collect();
            let mut block = encode(&mut encoder, &fields);
            let mut decoded = Vec::new();
            decoder.decode(&mut block, &mut decoded).expect("fields");
            let decoded = decoded.into_iter().map(|(name, value, _)| (String::from_utf8(name).expect("a name"), value));
            prop_assert_eq!(decoded.collect::<Vec<_>>(), fields.iter().map(text).collect::<Vec<_>>());
        }
    }
}
