//! An object as the API sent it: what the watch needs of its metadata, and the rest untouched.

use std::borrow::Cow;

use kube::{
    Resource,
    api::{ApiResource, ObjectMeta},
    core::DynamicResourceScope,
};
use serde::{Deserialize, Deserializer, de::Error as _};
use serde_json::Value;

use crate::kinds::{ObjectId, ObjectKind};

/// Reads any JSON map; nothing in it can make a whole list or watch fail.
#[derive(Clone, Debug)]
pub(super) struct Raw {
    metadata: ObjectMeta,
    pub(super) value: Value,
}

impl Raw {
    pub(super) fn id(&self, kind: ObjectKind) -> ObjectId {
        let text = |field: &Option<String>| field.as_deref().unwrap_or_default().to_owned();
        ObjectId::new(kind, text(&self.metadata.namespace), text(&self.metadata.name))
    }
}

impl<'de> Deserialize<'de> for Raw {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let mut value = Value::deserialize(deserializer)?;
        let Some(metadata) = value.get_mut("metadata").and_then(Value::as_object_mut) else {
            return Err(D::Error::custom("an object without metadata"));
        };
        // Often the largest part of an object, and nothing to us.
        metadata.remove("managedFields");
        let text = |key: &str| metadata.get(key).and_then(Value::as_str).map(str::to_owned);
        let metadata = ObjectMeta {
            name: text("name"),
            namespace: text("namespace"),
            resource_version: text("resourceVersion"),
            uid: text("uid"),
            ..ObjectMeta::default()
        };
        Ok(Self { metadata, value })
    }
}

impl Resource for Raw {
    type DynamicType = ApiResource;
    type Scope = DynamicResourceScope;

    fn kind(resource: &ApiResource) -> Cow<'_, str> {
        resource.kind.as_str().into()
    }

    fn group(resource: &ApiResource) -> Cow<'_, str> {
        resource.group.as_str().into()
    }

    fn version(resource: &ApiResource) -> Cow<'_, str> {
        resource.version.as_str().into()
    }

    fn api_version(resource: &ApiResource) -> Cow<'_, str> {
        resource.api_version.as_str().into()
    }

    fn plural(resource: &ApiResource) -> Cow<'_, str> {
        resource.plural.as_str().into()
    }

    fn meta(&self) -> &ObjectMeta {
        &self.metadata
    }

    fn meta_mut(&mut self) -> &mut ObjectMeta {
        &mut self.metadata
    }
}
