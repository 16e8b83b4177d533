//! An object as it comes off the wire: any shape, so that one odd object cannot fail a whole list.

use std::borrow::Cow;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::Resource;
use maesh_compiler::kinds::ObjectKind;
use serde::{Deserialize, Deserializer};
use serde_json::Value;

/// An object of one of the kinds that are read.
#[derive(Clone, Debug)]
pub(super) struct Raw {
    metadata: ObjectMeta,
    pub(super) value: Value,
}

impl<'de> Deserialize<'de> for Raw {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let mut value = Value::deserialize(deserializer)?;
        let mut metadata = ObjectMeta::default();
        if let Some(Value::Object(fields)) = value.get_mut("metadata") {
            // The largest part of many objects, and nobody's business.
            fields.remove("managedFields");
            let text = |key: &str| fields.get(key).and_then(Value::as_str).map(str::to_owned);
            metadata.name = text("name");
            metadata.namespace = text("namespace");
            metadata.resource_version = text("resourceVersion");
        }
        Ok(Self { metadata, value })
    }
}

impl Raw {
    /// Namespace (empty if there is none) and name.
    pub(super) fn name(&self) -> (&str, &str) {
        (self.metadata.namespace.as_deref().unwrap_or_default(), self.metadata.name.as_deref().unwrap_or_default())
    }

    pub(super) fn version(&self) -> Option<&str> {
        self.metadata.resource_version.as_deref()
    }
}

/// Plural of a kind, as in the API's paths.
pub(super) fn plural(kind: ObjectKind) -> String {
    format!("{}s", kind.as_str().to_ascii_lowercase())
}

impl Resource for Raw {
    type DynamicType = ObjectKind;
    type Scope = kube::core::DynamicResourceScope;

    fn kind(kind: &ObjectKind) -> Cow<'_, str> {
        kind.as_str().into()
    }

    fn group(kind: &ObjectKind) -> Cow<'_, str> {
        kind.group().into()
    }

    fn version(_: &ObjectKind) -> Cow<'_, str> {
        "v1".into()
    }

    fn plural(kind: &ObjectKind) -> Cow<'_, str> {
        plural(*kind).into()
    }

    fn meta(&self) -> &ObjectMeta {
        &self.metadata
    }

    fn meta_mut(&mut self) -> &mut ObjectMeta {
        &mut self.metadata
    }
}
