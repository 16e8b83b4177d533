//! `Host`, and the server name of TLS, in the one form in which they are looked up.

use std::{borrow::Cow, net::Ipv6Addr};

/// Longest `Host` that can name anything: DNS names have at most 253 characters.
const HOST_LIMIT: usize = 253;

/// A `Host` in the one form in which it is looked up: lower case, without port and trailing dot.
#[derive(Debug)]
pub(crate) struct Host<'a>(Cow<'a, str>);

impl<'a> Host<'a> {
    /// Normalises `raw`. Refuses what cannot be a host: empty, too long, spaces, commas, user information, paths.
    pub(crate) fn parse(raw: &'a [u8]) -> Option<Self> {
        let name = match raw.strip_prefix(b"[") {
            Some(rest) => {
                let end = rest.iter().position(|byte| *byte == b']')?;
                valid_port(&rest[end + 1..])?;
                address(&rest[..end])?
            }
            None => match memchr::memchr(b':', raw) {
                Some(colon) => {
                    valid_port(&raw[colon..])?;
                    &raw[..colon]
                }
                None => raw,
            },
        };
        let name = name.strip_suffix(b".").unwrap_or(name);
        let kinds = name.iter().fold(0, |kinds, byte| kinds | KINDS[usize::from(*byte)]);
        if name.is_empty() || name.len() > HOST_LIMIT || kinds & FOREIGN != 0 {
            return None;
        }
        let name = std::str::from_utf8(name).ok()?;
        // Callers write small letters; then nothing is copied.
        Some(Self(if kinds & CAPITAL != 0 { name.to_ascii_lowercase().into() } else { name.into() }))
    }

    /// A host that has this form already.
    pub(crate) fn normalised(host: &'a str) -> Self {
        Self(host.into())
    }

    /// Whether it has one label, which is a Service of the caller's own namespace.
    pub(crate) fn is_one_label(&self) -> bool {
        !self.0.bytes().any(|byte| matches!(byte, b'.' | b':'))
    }

    /// The normalised text.
    pub(crate) fn as_str(&self) -> &str {
        &self.0
    }
}

/// An address of IPv6, with or without a zone: nothing else stands between brackets (RFC 3986 section 3.2.2).
fn address(text: &[u8]) -> Option<&[u8]> {
    let without_zone = text.split(|byte| *byte == b'%').next()?;
    std::str::from_utf8(without_zone).ok()?.parse::<Ipv6Addr>().ok()?;
    Some(text)
}

/// What a byte is in a host: a capital, or nothing that a host has.
const CAPITAL: u8 = 1;
const FOREIGN: u8 = 2;

/// The same for every byte.
const KINDS: [u8; 256] = {
    let mut kinds = [FOREIGN; 256];
    let mut byte = 0_u8;
    while byte < 128 {
        if byte.is_ascii_uppercase() {
            kinds[byte as usize] = CAPITAL;
        } else if byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'-' | b'_' | b':' | b'*' | b'%' | b'~') {
            kinds[byte as usize] = 0;
        }
        byte += 1;
    }
    kinds
};

fn valid_port(text: &[u8]) -> Option<()> {
    match text.strip_prefix(b":") {
        Some(digits) => (digits.len() <= 5 && digits.iter().all(u8::is_ascii_digit)).then_some(()),
        None => text.is_empty().then_some(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hosts_are_normalised() {
        for (raw, want) in [
            ("web.shop.maesh", Some("web.shop.maesh")),
            ("WEB.Shop.Maesh:8080", Some("web.shop.maesh")),
            ("web.shop.maesh.", Some("web.shop.maesh")),
            ("web.shop.maesh.:80", Some("web.shop.maesh")),
            ("10.0.0.1:80", Some("10.0.0.1")),
            ("[fd00::1]:80", Some("fd00::1")),
            ("[fd00::1]", Some("fd00::1")),
            ("", None),
            (".", None),
            (":80", None),
            ("[fe80::1%25eth0]", Some("fe80::1%25eth0")),
            ("[web.shop.maesh]", None),
            ("[127.0.0.1]", None),
            ("[]", None),
            ("[fd00::1", None),
            ("[fd00::1]x", None),
            ("web:80:90", None),
            ("web:http", None),
            ("web:123456", None),
            ("a b", None),
            ("a,b", None),
            ("user@web", None),
            ("web/path", None),
        ] {
            let host = Host::parse(raw.as_bytes());
            assert_eq!(host.as_ref().map(Host::as_str), want, "{raw:?}");
        }
        assert!(Host::parse(&[b'a'; 254]).is_none());
    }
}
