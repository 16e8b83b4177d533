//! Addresses: which are never an endpoint, whatever an EndpointSlice says, and the one form of those of IPv4.
//!
//! Kubernetes validates the endpoints that users write, but not everywhere and not for ever; the compiler and the proxy
//! both ask here.

use std::net::{IpAddr, Ipv4Addr};

use ipnet::{IpNet, Ipv4Net};

/// What `address` is, where that is nothing to dial: `unspecified`, `link-local`, `multicast`, `broadcast`, or, unless
/// `loopback` is allowed, `loopback`. IPv4 addresses mapped into IPv6 are what they map.
pub fn undialable(address: IpAddr, loopback: bool) -> Option<&'static str> {
    match address.to_canonical() {
        // All of 0.0.0.0/8 is "this host", which Linux connects to itself.
        IpAddr::V4(v4) if v4.octets()[0] == 0 => Some("unspecified"),
        IpAddr::V4(Ipv4Addr::BROADCAST) => Some("broadcast"),
        IpAddr::V6(v6) if v6.is_unspecified() => Some("unspecified"),
        IpAddr::V4(v4) if v4.is_link_local() => Some("link-local"),
        IpAddr::V6(v6) if v6.is_unicast_link_local() => Some("link-local"),
        other if other.is_multicast() => Some("multicast"),
        other if other.is_loopback() && !loopback => Some("loopback"),
        _ => None,
    }
}

/// The same range, of IPv4 where it is one that is mapped into IPv6 (RFC 4291 section 2.5.5.2): addresses of callers are
/// compared in that form.
pub fn canonical(range: IpNet) -> IpNet {
    let mapped = match (range.addr().to_canonical(), range.prefix_len().checked_sub(96)) {
        (IpAddr::V4(address), Some(length)) if range.addr().is_ipv6() => Ipv4Net::new(address, length).ok(),
        _ => None,
    };
    mapped.map_or(range, IpNet::V4)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_have_one_form() {
        for (text, want) in [
            ("10.0.0.0/8", "10.0.0.0/8"),
            ("::ffff:10.0.0.0/104", "10.0.0.0/8"),
            ("::ffff:0:0/96", "0.0.0.0/0"),
            ("::ffff:10.1.2.3/128", "10.1.2.3/32"),
            ("::/0", "::/0"),
            ("::fffe:0:0/95", "::fffe:0:0/95"),
            ("fd00::/104", "fd00::/104"),
        ] {
            let range = text.parse().expect("a range");
            assert_eq!(canonical(range).to_string(), want, "{text}");
        }
    }

    #[test]
    fn addresses_that_are_never_dialled() {
        for (text, in_cluster, in_dev) in [
            ("10.244.1.7", None, None),
            ("192.168.0.1", None, None),
            ("fd00::7", None, None),
            ("2001:db8::1", None, None),
            ("127.0.0.1", Some("loopback"), None),
            ("127.9.9.9", Some("loopback"), None),
            ("::1", Some("loopback"), None),
            ("::ffff:127.0.0.1", Some("loopback"), None),
            ("0.0.0.0", Some("unspecified"), Some("unspecified")),
            ("0.1.2.3", Some("unspecified"), Some("unspecified")),
            ("::", Some("unspecified"), Some("unspecified")),
            ("::ffff:0.0.0.0", Some("unspecified"), Some("unspecified")),
            ("169.254.169.254", Some("link-local"), Some("link-local")),
            ("::ffff:169.254.169.254", Some("link-local"), Some("link-local")),
            ("fe80::1", Some("link-local"), Some("link-local")),
            ("224.0.0.1", Some("multicast"), Some("multicast")),
            ("ff02::1", Some("multicast"), Some("multicast")),
            ("255.255.255.255", Some("broadcast"), Some("broadcast")),
        ] {
            let address = text.parse().expect("an address");
            assert_eq!(undialable(address, false), in_cluster, "{text} in a cluster");
            assert_eq!(undialable(address, true), in_dev, "{text} in maesh dev");
        }
    }
}
