use super::*;

const TYPE: &str = "test/T";

fn put(store: &Store, name: &str, bytes: &'static str) -> u64 {
    store.apply_opaque(
        &[Opaque { type_url: TYPE.into(), name: name.into(), bytes: Bytes::from_static(bytes.as_bytes()) }],
        &[],
    )
}

fn remove(store: &Store, name: &str) -> u64 {
    store.apply_opaque(&[], &[(TYPE.into(), name.into())])
}

fn since(store: &Store, revision: u64) -> Vec<String> {
    let tables = store.read();
    let Some(table) = tables.table(TYPE) else { return Vec::new() };
    let said = |(_, name, encoded): (u64, &Arc<str>, Option<&EncodedResource>)| match encoded {
        Some(encoded) => format!("{name}={}", String::from_utf8_lossy(&encoded.bytes)),
        None => format!("{name} gone"),
    };
    table.since(revision).map(said).collect()
}

#[test]
fn the_log_names_each_resource_once_in_its_present_form() {
    let store = Store::new();
    put(&store, "a", "1");
    put(&store, "b", "1");
    let middle = put(&store, "a", "2");
    assert_eq!(since(&store, 0), ["b=1", "a=2"]);
    remove(&store, "b");
    assert_eq!(since(&store, middle), ["b gone"]);
    put(&store, "b", "3");
    assert_eq!(since(&store, 0), ["a=2", "b=3"]);
    assert_eq!(store.len(), 2);
}

#[test]
fn what_changes_nothing_makes_no_revision() {
    let store = Store::new();
    let first = put(&store, "a", "1");
    let changes = store.changes();
    assert_eq!(put(&store, "a", "1"), first, "same bytes");
    assert_eq!(remove(&store, "nobody"), first, "never was");
    assert!(!changes.has_changed().unwrap());
    remove(&store, "a");
    assert_eq!(remove(&store, "a"), first + 1, "gone already");
}

#[test]
fn tombstones_are_bounded_and_forgetting_shows() {
    let store = Store::new();
    let before = put(&store, "kept", "1");
    for i in 0..=TOMBSTONES {
        put(&store, &i.to_string(), "x");
        remove(&store, &i.to_string());
    }
    let tables = store.read();
    let table = tables.table(TYPE).unwrap();
    assert_eq!(table.tombstones.len(), TOMBSTONES);
    assert_eq!(table.entries.len(), TOMBSTONES + 1);
    assert!(table.forgot_since(before));
    assert!(!table.forgot_since(tables.revision()));
    assert_eq!(table.get("kept").map(|it| &it.bytes[..]), Some(&b"1"[..]));
}
