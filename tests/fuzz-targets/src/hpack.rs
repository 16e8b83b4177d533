//! Header blocks of a peer: no bytes make the tables grow, and what was read is the same when it is written and read
//! once more.
//!
//! Blocks are behind one another, each after a byte that says how long it is.

use maesh_http2::HeaderCompression;

/// The table that each side lets the other one have.
const TABLE: usize = 4096;

pub(crate) fn run(bytes: &[u8]) {
    let (mut peer, mut again) = (HeaderCompression::new(TABLE), HeaderCompression::new(TABLE));
    let mut rest = bytes;
    while let Some((&length, blocks)) = rest.split_first() {
        let (block, others) = blocks.split_at(usize::from(length).min(blocks.len()));
        rest = others;
        let decoded = peer.decode(block);
        assert!(peer.table_sizes().0 <= TABLE);
        let Some(decoded) = decoded else { return };
        let mut fields = Vec::new();
        for (field, size) in decoded {
            if let Some((name, value)) = field {
                assert_eq!(size, name.len() + value.len() + 32, "{name:?}: {value:?}");
                assert!(value.iter().all(|byte| !matches!(byte, b'\0' | b'\r' | b'\n')), "{name:?}: {value:?}");
                assert!(!name.iter().any(u8::is_ascii_uppercase), "{name:?}");
                fields.push((name, value));
            }
        }
        // The length is a setting, too, now and then.
        let setting = length.is_multiple_of(8).then(|| usize::from(length) * 32);
        let written = again.encode(setting, &fields);
        let read = again.decode(&written).expect("our own block");
        let read: Vec<_> = read.into_iter().filter_map(|(field, _)| field).collect();
        assert_eq!(read, fields);
        assert!(again.table_sizes().0 == again.table_sizes().1, "{:?}", again.table_sizes());
    }
}
