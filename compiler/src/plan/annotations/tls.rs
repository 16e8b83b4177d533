//! How endpoints that are spoken to over TLS are verified.

use std::net::IpAddr;

use maesh_config::{model::Protocol, policy::TlsRoots};

use super::{About, Annotation, BadValue, Scope, Side};

const NAME: &str = "a DNS name or an IP address";
const CONFIG_MAP: &str = "the name of a ConfigMap";

/// The name of `tls-ca`.
pub(crate) const CA_NAME: &str = "tls-ca";

/// The name that certificates must have.
pub(crate) static SERVER_NAME: Annotation<String> = Annotation {
    about: About {
        name: "tls-server-name",
        side: Side::Backend,
        on_namespace: false,
        protocols: &[Protocol::Http],
        values: NAME,
        default: "SERVICE.NAMESPACE.svc",
        purpose: "With `scheme: https`, the name that the certificate of each endpoint must have. A DNS name is also sent to \
                  the endpoint as the server name (SNI).",
        example: "web.shop.svc",
    },
    scope: Scope::Port(|port| {
        port.policy.tls.as_ref().map_or_else(|| "none".into(), |tls| tls.server_name.to_string())
    }),
    parse: |text| server_name(text).ok_or(BadValue::expected(NAME)),
    unsupported: |_| None,
};

/// Who may issue certificates.
pub(crate) static CA: Annotation<String> = Annotation {
    about: About {
        name: CA_NAME,
        side: Side::Backend,
        on_namespace: false,
        protocols: &[Protocol::Http],
        values: CONFIG_MAP,
        default: "the certificate authorities of the image, which are Mozilla's",
        purpose: "With `scheme: https`, the ConfigMap of the Service's namespace that has under `ca.crt` the certificates of \
                  the authorities which may issue those of the endpoints, and of no others. A change is used for new \
                  connections. While the ConfigMap is missing or cannot be read, requests are answered 502 \
                  `connect_failed`.",
        example: "internal-ca",
    },
    scope: Scope::Port(|port| match &port.policy.tls {
        None => "none".into(),
        Some(tls) => match tls.roots {
            TlsRoots::System => "those of the image".into(),
            TlsRoots::Certificates(_) => "those of a ConfigMap".into(),
            TlsRoots::Unusable(_) => "no authority, so requests are answered 502".into(),
        },
    }),
    parse: |text| if is_object_name(text) { Ok(text.to_owned()) } else { Err(BadValue::expected(CONFIG_MAP)) },
    unsupported: |_| None,
};

/// A name as certificates have it: lower case, without a wildcard.
fn server_name(text: &str) -> Option<String> {
    if let Ok(address) = text.parse::<IpAddr>() {
        return Some(address.to_string());
    }
    let name = text.strip_suffix('.').unwrap_or(text).to_ascii_lowercase();
    let is_char = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_';
    let is_label = |label: &str| {
        (1..=63).contains(&label.len())
            && label.bytes().all(is_char)
            && !label.starts_with('-')
            && !label.ends_with('-')
    };
    // A name whose last label is a number would be taken for an address.
    let last = name.rsplit('.').next().unwrap_or_default();
    let numeric = last.bytes().all(|byte| byte.is_ascii_digit());
    (name.len() <= 253 && !numeric && name.split('.').all(is_label)).then_some(name)
}

/// A name as Kubernetes gives them to ConfigMaps (RFC 1123, with dots).
pub(crate) fn is_object_name(text: &str) -> bool {
    let is_char = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit();
    let is_label = |label: &str| {
        !label.is_empty()
            && label.bytes().all(|byte| is_char(byte) || byte == b'-')
            && !label.starts_with('-')
            && !label.ends_with('-')
    };
    text.len() <= 253 && text.split('.').all(is_label)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn server_names() {
        for (text, want) in [
            ("web.shop.svc", Some("web.shop.svc")),
            ("Web.Example.COM.", Some("web.example.com")),
            ("localhost", Some("localhost")),
            ("10.0.0.1", Some("10.0.0.1")),
            ("fd00::0001", Some("fd00::1")),
            ("*.example.com", None),
            ("web..svc", None),
            ("-web", None),
            ("10.0.0.256", None),
            ("web:443", None),
            ("https://web", None),
            ("ü", None),
            ("", None),
        ] {
            assert_eq!(server_name(text).as_deref(), want, "{text:?}");
        }
    }

    #[test]
    fn names_of_config_maps() {
        for (text, want) in [("ca", true), ("kube-root-ca.crt", true), ("CA", false), ("a/b", false), ("", false)] {
            assert_eq!(is_object_name(text), want, "{text:?}");
        }
    }
}
