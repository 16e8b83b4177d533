//! Which Services of other namespaces may lead to the pods of a Namespace.

use maesh_config::model::Protocol;

use super::{About, Annotation, BadValue, Scope, Side};
use crate::kinds::Namespace;

const NAMESPACES: &str = "names of namespaces, separated by commas, or *";

/// Namespaces whose Services may lead to a Namespace's pods.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum AllowedNamespaces {
    /// Every one.
    All,
    /// These.
    Named(Vec<String>),
}

impl AllowedNamespaces {
    /// Whether Services of `namespace` may lead to pods of `owner`.
    pub(crate) fn allow(owner: &Namespace, namespace: &str) -> bool {
        let find = super::find(&owner.annotations, ENDPOINTS_FOR.about.name, &[], false);
        match find.and_then(|written| (ENDPOINTS_FOR.parse)(written.text).ok()) {
            None => false,
            Some(Self::All) => true,
            Some(Self::Named(names)) => names.iter().any(|name| name == namespace),
        }
    }
}

/// Whose EndpointSlices may name the Namespace's pods.
pub(crate) static ENDPOINTS_FOR: Annotation<AllowedNamespaces> = Annotation {
    about: About {
        name: "endpoints-for",
        side: Side::Backend,
        on_namespace: true,
        protocols: &[Protocol::Http, Protocol::Tcp, Protocol::Udp],
        values: NAMESPACES,
        default: "none",
        purpose: "For a Namespace alone: the namespaces whose Services may have its pods as endpoints, by EndpointSlices that \
                  somebody wrote. Such endpoints of other Services are left out.",
        example: "shop,pay",
    },
    scope: Scope::Namespace,
    parse: |text| {
        if text == "*" {
            return Ok(AllowedNamespaces::All);
        }
        let names: Vec<String> = text.split(',').map(|name| name.trim().to_owned()).collect();
        let is_label = |name: &String| {
            let inner = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
            !name.is_empty()
                && name.len() <= 63
                && name.bytes().all(inner)
                && !name.starts_with('-')
                && !name.ends_with('-')
        };
        if names.iter().all(is_label) {
            Ok(AllowedNamespaces::Named(names))
        } else {
            Err(BadValue::expected(NAMESPACES))
        }
    },
    unsupported: |_| None,
};
