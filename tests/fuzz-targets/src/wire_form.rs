//! Resources as bytes: what is read is what was written.

use std::sync::Arc;

use maesh_config::{
    Resource,
    wire::{self, Version},
};

use crate::breaker::is_within_bounds;

/// `resource` survives being sent.
pub(crate) fn survives(resource: &Resource) {
    let bytes = wire::encode(resource);
    assert_eq!(wire::encode(resource), bytes, "the same bytes every time");
    let version = Version::of(&bytes);
    assert_eq!(Version::parse(&version.to_string()), Some(version));
    let key = resource.key();
    let read = wire::decode_named(key.kind, &key.name, &bytes);
    assert_eq!(read.as_ref(), Ok(&without_what_is_lost(resource.clone())));
    assert!(wire::decode_named(key.kind, &format!("{}x", key.name), &bytes).is_err(), "under another name");
}

/// `resource` as it is after it was sent: what a newer version said of it is not said again.
fn without_what_is_lost(mut resource: Resource) -> Resource {
    if let Resource::Service(service) = &mut resource {
        for port in &mut service.ports {
            let (called, backend) = (Arc::make_mut(&mut port.called), Arc::make_mut(&mut port.backend));
            called.not_understood = None;
            backend.not_understood = None;
            port.routes.iter_mut().for_each(|route| route.not_understood = None);
            // An expression is sent as its text, which may be longer than one that is read.
            backend.breaker.take_if(|breaker| !is_within_bounds(&breaker.to_string()));
        }
    }
    resource
}
