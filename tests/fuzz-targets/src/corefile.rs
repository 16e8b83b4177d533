//! Corefiles of anybody: the stanza goes in once and comes out to the byte, or the file is left alone.

use std::sync::LazyLock;

use maesh_config::Zone;
use maesh_controller::duties::stanza::{NotUnderstood, Stanza, StanzaState, add, facts, remove, state};

static STANZAS: LazyLock<[Stanza; 2]> = LazyLock::new(|| {
    let zones: Vec<Zone> = ["maesh", "traefik.mesh"].map(|zone| zone.parse().expect("a zone")).to_vec();
    [53, 9].map(|last| Stanza { zones: zones.clone(), port: 53, forward: [10, 96, 0, last].into() })
});

pub(crate) fn run(bytes: &[u8]) {
    let corefile = crate::text(bytes);
    let [stanza, other] = &*STANZAS;
    let was = state(corefile, stanza);
    let removed = remove(corefile, &stanza.zones);
    let Ok(after) = add(corefile, stanza) else {
        assert_ne!(was, Ok(StanzaState::Present));
        return;
    };
    assert!(facts(&after).is_ok(), "the result can be read");
    assert_eq!(was == Ok(StanzaState::Present), after == corefile);
    assert_eq!(state(&after, stanza), Ok(StanzaState::Present));
    assert_eq!(add(&after, stanza).as_ref(), Ok(&after), "a second time changes nothing");
    assert_eq!(remove(&after, &stanza.zones), removed, "what else is in it stays");
    if was == Ok(StanzaState::Absent) {
        assert_eq!(removed.as_deref(), Ok(corefile), "to the byte");
    }
    let moved = match add(&after, other) {
        // A person's stanza over TLS is its owner's to change.
        Err(NotUnderstood::Tls { .. }) if after == corefile => return,
        moved => moved.expect("the address can change"),
    };
    assert_eq!(state(&moved, stanza), Ok(StanzaState::Outdated));
    assert_eq!(remove(&moved, &stanza.zones), removed);
}
