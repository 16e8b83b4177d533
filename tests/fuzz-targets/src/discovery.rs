//! The discovery stream: bytes of a controller, and what a subscriber makes of them. What was read survives being written, and
//! a resource that cannot be read takes no other with it.
//!
//! The first byte says what the rest is: a resource, a message, a text in one, or a sequence of responses.

// What the state has is visible beside it only.
#[allow(dead_code)]
#[path = "../../../discovery/src/subscriber"]
mod subscriber {
    mod state;
    #[path = "../../../tests/fuzz-targets/src/discovery/stream.rs"]
    pub(super) mod stream;
}

use maesh_config::{Kind, wire};
use maesh_discovery::{
    Progress, RevisionMark,
    xds::{DeltaDiscoveryRequest, DeltaDiscoveryResponse},
};
use prost::Message;

use crate::wire_form;

pub(crate) fn run(bytes: &[u8]) {
    let Some((what, rest)) = bytes.split_first() else { return };
    match what % 8 {
        0 | 1 => resource(rest),
        2 => message::<DeltaDiscoveryRequest>(rest),
        3 => message::<DeltaDiscoveryResponse>(rest),
        4 => text(crate::text(rest)),
        _ => subscriber::stream::run(rest),
    }
}

/// The first byte says of which kind.
fn resource(bytes: &[u8]) {
    let Some((kind, bytes)) = bytes.split_first() else { return };
    let kind = Kind::ALL[usize::from(*kind) % Kind::ALL.len()];
    let Ok(resource) = wire::decode(kind, bytes) else { return };
    assert_eq!(resource.kind(), kind);
    wire_form::survives(&resource);
    // A field that only newer versions know.
    let newer = [bytes, &[0xa2, 0x38, 1, b'x']].concat();
    assert_eq!(wire::decode(kind, &newer), Ok(resource));
}

fn message<M: Message + Default + PartialEq>(bytes: &[u8]) {
    let Ok(message) = M::decode(bytes) else { return };
    let written = message.encode_to_vec();
    let [again, once_more] = [(); 2].map(|()| M::decode(&*written).expect("what we have written"));
    // One with a number that is none is not even equal to itself.
    assert!(again == message || again != once_more);
}

fn text(text: &str) {
    if let Ok(mark) = text.parse::<RevisionMark>() {
        assert_eq!(mark.to_string().parse(), Ok(mark));
    }
    let progress = Progress::read(text);
    assert_eq!(Progress::read(&progress.to_string()), progress);
}
