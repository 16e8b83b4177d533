//! What an encoder writes, a decoder reads.

use proptest::{collection::vec, prelude::*};

use super::*;

/// The peer's settings, and the fields of the next block.
#[derive(Clone, Debug)]
enum Step {
    Setting(usize),
    Block(Vec<Field>),
}

fn name() -> impl Strategy<Value = String> {
    prop_oneof![
        prop::sample::select(vec![
            "accept",
            "cookie",
            "content-length",
            "date",
            "etag",
            "accept-encoding",
            "x-a",
            "te"
        ])
        .prop_map(str::to_owned),
        vec(prop::sample::select(b"abcxyz-_!~|0189".to_vec()), 1..80)
            .prop_map(|name| String::from_utf8(name).expect("ASCII")),
    ]
}

fn value() -> impl Strategy<Value = Vec<u8>> {
    let byte = prop_oneof![Just(b'\t'), b' '..0x7f, 0x80u8..];
    prop_oneof![
        3 => prop::sample::select(vec!["", "0", "gzip, deflate", "a=0123456789; b=0123456789", "/some/path", "trailers"])
            .prop_map(|value| value.as_bytes().to_vec()),
        3 => vec(byte.clone(), 0..40),
        1 => vec(byte, 0..1500),
    ]
}

fn any_field() -> impl Strategy<Value = Field> {
    let text = || value().prop_map(Bytes::from);
    let sensitive = prop::bool::weighted(0.1);
    prop_oneof![
        1 => prop::sample::select(vec!["GET", "POST", "PUT", "HEAD", "SOMETHING-OF-YOUR-OWN"])
            .prop_map(|method| Field::Method(Method::from_bytes(method.as_bytes()).expect("a method"))),
        1 => (100..1000u16).prop_map(|status| Field::Status(StatusCode::from_u16(status).expect("a status"))),
        1 => prop::sample::select(vec!["http", "https", "other"]).prop_map(|scheme| Field::Scheme(Bytes::from(scheme))),
        1 => text().prop_map(Field::Authority),
        1 => text().prop_map(Field::Path),
        1 => text().prop_map(Field::Protocol),
        8 => (name(), value(), sensitive).prop_map(|(name, value, sensitive)| {
            let mut value = HeaderValue::from_bytes(&value).expect("a value");
            value.set_sensitive(sensitive);
            Field::Header(HeaderName::from_bytes(name.as_bytes()).expect("a name"), value)
        }),
    ]
}

/// Blocks of fields of which many are the same.
fn steps() -> impl Strategy<Value = Vec<Step>> {
    let step = |fields: Vec<Field>| {
        let setting = prop_oneof![Just(0), 0..4096usize, Just(4096), Just(65536)];
        prop_oneof![
            1 => setting.prop_map(Step::Setting),
            4 => vec(prop::sample::select(fields), 0..12).prop_map(Step::Block),
        ]
    };
    vec(any_field(), 1..20).prop_flat_map(move |fields| vec(step(fields), 1..40))
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(100))]

    #[test]
    fn what_is_encoded_is_decoded(steps in steps()) {
        let (mut encoder, mut decoder) = (Encoder::new(), Decoder::new(4096));
        for step in steps {
            match step {
                Step::Setting(size) => encoder.set_max_size(size),
                Step::Block(fields) => {
                    let block = encode(&mut encoder, &fields);
                    let want = fields.iter().map(|field| (field.clone(), size(field))).collect::<Vec<_>>();
                    prop_assert_eq!(decode(&mut decoder, &block), Ok(want));
                    let (ours, entries, limit) = decoder.table_sizes();
                    prop_assert_eq!(encoder.table_sizes(), (ours, limit), "both tables are the same");
                    prop_assert!(ours <= limit && limit <= 4096 && entries <= 128);
                }
            }
        }
    }

    #[test]
    fn no_bytes_make_the_decoder_keep_more_than_its_table(
        blocks in vec(vec(any::<u8>(), 0..400), 1..20),
        max_size in prop_oneof![Just(0usize), Just(4096), Just(65536)],
    ) {
        let mut decoder = Decoder::new(max_size);
        for block in blocks {
            let _ = decode(&mut decoder, &block);
            let (size, entries, limit) = decoder.table_sizes();
            prop_assert!(size <= limit && limit <= max_size.max(4096) && entries <= limit / 32);
        }
    }
}

#[test]
fn a_field_is_written_out_twice_and_indexed_from_then_on() {
    let request = [
        field(":method", "GET"),
        field(":scheme", "https"),
        field(":authority", "web.shop.maesh"),
        field(":path", "/shop.Basket/Add"),
        field("content-type", "application/grpc"),
        field("x-own", "something"),
    ];
    let mut encoder = Encoder::new();
    let blocks: Vec<_> = (0..4).map(|_| encode(&mut encoder, &request)).collect();
    assert!(blocks[0].len() > 60, "{:x?}", blocks[0]);
    assert!(blocks[1].len() > 60, "{:x?}", blocks[1]);
    assert_eq!(blocks[2], hex("82 87 c1 c0 bf be"));
    assert_eq!(blocks[3], blocks[2]);
}

#[test]
fn fields_that_nothing_repeats_leave_the_table_as_it_is() {
    let (mut encoder, stable) = (Encoder::new(), field("user-agent", "somebody/1.0"));
    for _ in 0..2 {
        encode(&mut encoder, [&stable]);
    }
    for number in 0..10_000u64 {
        let id = number.wrapping_mul(0x9e37_79b9_7f4a_7c15);
        let block = encode(&mut encoder, [&stable, &field("x-request-id", &format!("{id:016x}{number:08}"))]);
        assert!((0xbe..0xc6).contains(&block[0]), "the stable field is found: {block:x?}");
    }
    // One in some thousand is taken for one that was there before.
    assert!(encoder.table_sizes().0 < 8 * 100, "{:?}", encoder.table_sizes());
}

#[test]
fn tables_stay_the_same_after_more_entries_than_the_encoder_counts() {
    let (mut encoder, mut decoder) = (Encoder::new(), Decoder::new(4096));
    let stable = field("user-agent", "somebody/1.0");
    for number in 0..70_000 {
        let fields = [stable.clone(), field("x-number", &number.to_string())];
        for _ in 0..2 {
            let block = encode(&mut encoder, &fields);
            let decoded = decode(&mut decoder, &block).expect("a block");
            assert!(decoded.iter().map(|(field, _)| field).eq(&fields), "{number}: {decoded:?}");
        }
    }
    let new = field("x-own", "a");
    let blocks: Vec<_> = (0..3).map(|_| encode(&mut encoder, [&new])).collect();
    assert_eq!(blocks[2], hex("be"), "a new field is found");
}

#[test]
fn secrets_and_what_changes_each_time_are_not_put_into_the_table() {
    let mut secret = HeaderValue::from_static("a secret of somebody");
    secret.set_sensitive(true);
    let long = "session=0123456789abcdef0123456789abcdef";
    for (case, field, first) in [
        ("credentials", field("authorization", "Bearer 0123456789"), &[0x1f, 0x08][..]),
        ("credentials for a proxy", field("proxy-authorization", "Basic 0123456789"), &[0x1f, 0x22]),
        ("a cookie that could be guessed", field("cookie", "pin=1234"), &[0x1f, 0x11]),
        ("what is marked as sensitive", Field::Header(HeaderName::from_static("x-a"), secret), &[0x10, 0x03]),
        ("a length", field("content-length", "1234"), &[0x0f, 0x0d]),
        ("a cookie that is set", field("set-cookie", long), &[0x0f, 0x28]),
        ("an entity tag", field("etag", "\"0123456789\""), &[0x0f, 0x13]),
        ("a path with a query", field(":path", "/login?pin=1234"), &[0x04, 0x0f]),
    ] {
        let mut encoder = Encoder::new();
        for _ in 0..4 {
            let block = encode(&mut encoder, [&field]);
            assert_eq!(block[..2], *first, "{case}");
        }
        assert_eq!(encoder.table_sizes().0, 0, "{case}");
    }
    let mut encoder = Encoder::new();
    let blocks: Vec<_> = (0..3).map(|_| encode(&mut encoder, [&field("cookie", long)])).collect();
    assert_eq!((blocks[1][0], &blocks[2][..]), (0x60, &[0xbe][..]), "a long cookie is indexed");
}

#[test]
fn a_field_that_nobody_may_index_is_passed_on_as_one() {
    let mut decoder = Decoder::new(4096);
    let fields = decode(&mut decoder, &hex("1008 7061 7373 776f 7264 0673 6563 7265 74")).expect("a block");
    let [(Field::Header(name, value), _)] = &fields[..] else { panic!("{fields:?}") };
    assert!(value.is_sensitive());
    let mut block = Vec::new();
    Encoder::new().header(name, value, &mut block);
    assert_eq!(block[0], 0x10);
}

#[test]
fn changes_of_the_peers_setting_are_told_at_the_beginning_of_the_next_block() {
    for (case, settings, told) in [
        ("as it is", &[4096][..], ""),
        ("larger", &[65536], ""),
        ("smaller", &[1000], "3fc907"),
        ("none at all", &[0], "20"),
        ("smaller, then as it was", &[100, 4096], "3f45 3fe11f"),
        ("smaller, then larger than it was", &[100, 65536], "3f45 3fe11f"),
        ("smaller, then less small", &[0, 100, 50, 1000], "20 3fc907"),
        ("smaller in two steps", &[1000, 100], "3f45"),
    ] {
        let mut encoder = Encoder::new();
        for size in settings {
            encoder.set_max_size(*size);
        }
        assert_eq!(encode(&mut encoder, []), hex(told), "{case}");
        assert_eq!(encode(&mut encoder, []), [], "{case}: once");
    }
    let mut encoder = Encoder::new();
    let own = field("x-own", "something");
    for _ in 0..2 {
        encode(&mut encoder, [&own]);
    }
    encoder.set_max_size(0);
    encoder.set_max_size(4096);
    let block = encode(&mut encoder, [&own]);
    assert_eq!(block[..5], hex("20 3fe11f 40"), "what was in the table is gone");
}
