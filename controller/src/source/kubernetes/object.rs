//! An object as it comes off the wire: any shape, so that one odd object cannot fail a whole list.

use std::borrow::Cow;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::Resource;
use maesh_compiler::kinds::Registration;
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

/// A kind in one of its versions.
#[derive(Clone, Copy, Debug)]
pub(super) struct ServedKind {
    pub(super) kind: &'static Registration,
    pub(super) version: &'static str,
}

impl Resource for Raw {
    type DynamicType = ServedKind;
    type Scope = kube::core::DynamicResourceScope;

    fn kind(of: &ServedKind) -> Cow<'_, str> {
        of.kind.name.into()
    }

    fn group(of: &ServedKind) -> Cow<'_, str> {
        of.kind.group.into()
    }

    fn version(of: &ServedKind) -> Cow<'_, str> {
        of.version.into()
    }

    fn plural(of: &ServedKind) -> Cow<'_, str> {
        of.kind.plural.into()
    }

    fn meta(&self) -> &ObjectMeta {
        &self.metadata
    }

    fn meta_mut(&mut self) -> &mut ObjectMeta {
        &mut self.metadata
    }
}
