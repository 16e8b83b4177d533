//! Addresses, ranges and names as people write them, and what is said where that is not what is meant.

use std::net::{IpAddr, SocketAddr};

use ipnet::IpNet;
use maesh_config::model::AccessSource;

/// Longest name of DNS.
const LONGEST_NAME: usize = 253;
/// Longest part of a name between two dots.
const LONGEST_LABEL: usize = 63;

/// An address with its port.
pub(super) fn socket(text: &str) -> Result<SocketAddr, String> {
    if let Ok(address) = text.parse() {
        return Ok(address);
    }
    if let Some((_, rest)) = text.split_once("://") {
        let rest = rest.split('/').next().unwrap_or_default();
        return Err(format!("write it without scheme and path: {rest}"));
    }
    match text.strip_prefix("localhost:") {
        Some(port) => Err(format!("write an address instead of a name: 127.0.0.1:{port}")),
        None => Err("write ADDRESS:PORT, such as 127.0.0.1:5354 or [::1]:5354".to_owned()),
    }
}

/// The same as a `maesh dev` prints it: with the scheme of its pages.
pub(super) fn admin(text: &str) -> Result<SocketAddr, String> {
    socket(text.strip_prefix("http://").map_or(text, |rest| rest.trim_end_matches('/')))
}

/// A range of addresses.
pub(super) fn network(text: &str) -> Result<IpNet, String> {
    if let Ok(network) = text.parse() {
        return Ok(maesh_config::canonical(network));
    }
    let Ok(address) = text.parse::<IpAddr>() else {
        return Err("write ADDRESS/PREFIX, such as 127.77.0.0/16 or fd00:77::/64".to_owned());
    };
    Err(format!("a range has a prefix; write {address}/{}", likely_prefix(address)))
}

/// A range of addresses, and the ServiceAccount that it counts as.
pub fn access_source(text: &str) -> Result<AccessSource, String> {
    const EXAMPLE: &str = "write CIDR=NAMESPACE/NAME, such as 192.168.1.7/32=ingress/nginx";
    let Some((range, account)) = text.split_once('=') else { return Err(EXAMPLE.to_owned()) };
    let account = account.parse().map_err(|_| format!("{account:?} is no ServiceAccount; {EXAMPLE}"))?;
    Ok(AccessSource { range: network(range)?.trunc(), account })
}

/// The name of a namespace, without blanks around it. An empty one, as an unset variable in a template gives it, counts as none.
pub(super) fn namespace(text: &str) -> Result<String, String> {
    let name = text.trim();
    let is_label = name.len() <= 63
        && name.bytes().all(|byte| matches!(byte, b'a'..=b'z' | b'0'..=b'9' | b'-'))
        && !name.starts_with('-')
        && !name.ends_with('-');
    if is_label {
        return Ok(name.to_owned());
    }
    Err("a namespace's name has lower-case letters, digits and hyphens; see kubectl get namespaces".to_owned())
}

/// The prefix that was probably meant: what is 0 at the end is free.
fn likely_prefix(address: IpAddr) -> usize {
    let (length, unit, parts): (_, _, Vec<u16>) = match address {
        IpAddr::V4(address) => (32, 8, address.octets().map(u16::from).to_vec()),
        IpAddr::V6(address) => (128, 16, address.segments().to_vec()),
    };
    length - unit * parts.iter().rev().take_while(|part| **part == 0).count()
}

/// A name that can be asked for: of DNS, `NAMESPACE/SERVICE`, or an address.
pub(super) fn name(text: &str) -> Result<(), String> {
    const EXAMPLE: &str = "write a name such as web.shop.maesh, or shop/web";
    if text.parse::<IpAddr>().is_ok() {
        return Ok(());
    }
    if text.is_empty() {
        return Err(format!("there is no name in it; {EXAMPLE}"));
    }
    let length = text.chars().count();
    if length > LONGEST_NAME {
        return Err(format!("it has {length} characters, and a name has {LONGEST_NAME} at most; {EXAMPLE}"));
    }
    if let Some(odd) = text.chars().find(|c| !(c.is_ascii_alphanumeric() || "-_./".contains(*c))) {
        return Err(format!("{odd:?} cannot be part of a name; {EXAMPLE}"));
    }
    let parts: Vec<&str> = text.strip_suffix('.').unwrap_or(text).split(['.', '/']).collect();
    if text.matches('/').count() > 1 || parts.iter().any(|part| part.is_empty()) {
        return Err(format!("it is not a name; {EXAMPLE}"));
    }
    match parts.iter().find(|part| part.len() > LONGEST_LABEL) {
        Some(long) => {
            Err(format!("{long:?} has {} characters, and a part of a name has {LONGEST_LABEL} at most", long.len()))
        }
        None => Ok(()),
    }
}

/// A caller: an address, `NAMESPACE/POD`, or a pod's name.
pub(super) fn caller(text: &str) -> Result<String, String> {
    match name(text) {
        Ok(()) => Ok(text.to_owned()),
        Err(_) => Err("write an address such as 10.1.2.3, or a pod: shop/client-5c9d, client-5c9d".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_without_a_prefix() {
        for (text, want) in [
            ("127.77.0.0", "write 127.77.0.0/16"),
            ("10.0.0.0", "write 10.0.0.0/8"),
            ("10.1.2.3", "write 10.1.2.3/32"),
            ("fd00:77::", "write fd00:77::/32"),
            ("fd00::1", "write fd00::1/128"),
            ("127.77.0.0/33", "write ADDRESS/PREFIX"),
            ("nonsense", "write ADDRESS/PREFIX"),
        ] {
            assert!(network(text).expect_err(text).contains(want), "{text}: {:?}", network(text));
        }
        assert_eq!(network("127.77.0.0/16").map(|network| network.prefix_len()), Ok(16));
    }

    #[test]
    fn sources_of_access() {
        let source = access_source("192.168.1.7/24=ingress/nginx").unwrap();
        assert_eq!(
            (source.range.to_string(), source.account.to_string()),
            ("192.168.1.0/24".into(), "ingress/nginx".into())
        );
        for (text, want) in [
            ("192.168.1.7/32", "write CIDR=NAMESPACE/NAME"),
            ("192.168.1.7/32=nginx", "\"nginx\" is no ServiceAccount"),
            ("192.168.1.7=ingress/nginx", "write 192.168.1.7/32"),
            ("=ingress/nginx", "write ADDRESS/PREFIX"),
        ] {
            assert!(access_source(text).expect_err(text).contains(want), "{text}: {:?}", access_source(text));
        }
    }

    #[test]
    fn names_of_namespaces() {
        for (text, want) in [
            ("shop", Some("shop")),
            (" shop-2 ", Some("shop-2")),
            ("", Some("")),
            ("A B", None),
            ("shop/web", None),
            ("-shop", None),
            ("shop.", None),
        ] {
            assert_eq!(namespace(text).ok().as_deref(), want, "{text:?}");
        }
        assert!(namespace(&"a".repeat(64)).is_err());
    }

    #[test]
    fn addresses_as_they_are_printed() {
        for (text, want) in [
            ("http://127.0.0.1:5380", "without scheme and path: 127.0.0.1:5380"),
            ("localhost:5380", "127.0.0.1:5380"),
            ("5380", "ADDRESS:PORT"),
        ] {
            assert!(socket(text).expect_err(text).contains(want), "{text}: {:?}", socket(text));
        }
        let at = "127.0.0.1:5380".parse();
        for text in ["127.0.0.1:5380", "http://127.0.0.1:5380", "http://127.0.0.1:5380/"] {
            assert_eq!(admin(text).ok(), at.clone().ok(), "{text}");
        }
    }

    #[test]
    fn what_is_no_name() {
        for text in ["web.shop.maesh", "web.shop.maesh.", "shop/web", "web", "_http._tcp.web.shop", "fd00::1"] {
            assert_eq!(name(text), Ok(()), "{text}");
        }
        for (text, want) in [
            ("", "there is no name"),
            ("//", "it is not a name"),
            ("/", "it is not a name"),
            ("shop/", "it is not a name"),
            ("shop/web/x", "it is not a name"),
            ("web..maesh", "it is not a name"),
            ("web.\u{1b}[2J", "'\\u{1b}' cannot be part"),
            ("we b", "' ' cannot be part"),
        ] {
            assert!(name(text).expect_err(text).contains(want), "{text:?}: {:?}", name(text));
        }
        assert!(name(&"a.".repeat(150)).expect_err("long").contains("300 characters"));
        assert!(name(&"a".repeat(64)).expect_err("long").contains("63 at most"));
        assert!(caller("").is_err() && caller("a/b").is_ok() && caller("10.0.0.1").is_ok());
    }
}
