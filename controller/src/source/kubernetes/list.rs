//! What a list says: the objects that can be read, and what is wrong with any of them.

use std::{collections::BTreeMap, sync::Arc};

use maesh_compiler::{
    diagnostic::ObjectRef,
    kinds::{BadField, Object, ObjectId, Registration},
};

use super::{BadObject, follow::Follow, object::Raw};

/// Objects of a list, and those of which something is wrong.
#[derive(Default)]
pub(super) struct List {
    pub(super) objects: BTreeMap<ObjectId, Object>,
    pub(super) bad: BTreeMap<Arc<str>, BadObject>,
}

impl List {
    /// Takes an object in, in place of what was said of it before.
    pub(super) fn put(&mut self, follow: &Follow, raw: &Raw) {
        self.remove(follow, raw);
        let wrong = match follow.registration.read(&raw.value, &follow.door) {
            Ok((object, values)) => {
                self.objects.insert(object.id(), object);
                BadObject::inside(follow.registration, raw, &values)
            }
            Err(error) => Some(BadObject::whole(follow.registration, raw, &error)),
        };
        self.bad.extend(wrong.map(|wrong| (key(raw).into(), wrong)));
    }

    pub(super) fn remove(&mut self, follow: &Follow, raw: &Raw) {
        self.objects.remove(&follow.id(raw));
        if !self.bad.is_empty() {
            self.bad.remove(key(raw).as_str());
        }
    }
}

/// Namespace and name of an object, as one text.
pub(super) fn key(raw: &Raw) -> String {
    let (namespace, name) = raw.name();
    format!("{namespace}/{name}")
}

impl BadObject {
    /// An object that cannot be read.
    pub(super) fn whole(kind: &Registration, raw: &Raw, error: &BadField) -> Self {
        Self { left_out: true, found: vec![error.diagnostic(reference(kind, raw), true)] }
    }

    /// Values of an object that stands; `None` when all are good.
    pub(super) fn inside(kind: &Registration, raw: &Raw, values: &[BadField]) -> Option<Self> {
        let found: Vec<_> = values.iter().map(|value| value.diagnostic(reference(kind, raw), false)).collect();
        (!found.is_empty()).then_some(Self { left_out: false, found })
    }
}

fn reference(kind: &Registration, raw: &Raw) -> ObjectRef {
    let (namespace, name) = raw.name();
    ObjectRef::new(kind.name, namespace, name)
}
