//! Consistent hashing of the caller's address.

use std::net::{IpAddr, SocketAddr};

use xxhash_rust::xxh3::xxh3_64;

/// Picks the same item for the same caller while the items stay, and moves as few callers as possible when they do
/// not: the item whose hash together with the caller's address is highest.
pub(crate) fn by_source<T>(items: &[T], caller: IpAddr, address: impl Fn(&T) -> SocketAddr) -> Option<&T> {
    items.iter().max_by_key(|item| weight(caller, address(item)))
}

/// XXH3 of fixed bytes: every worker, every proxy, every version and every architecture must come to the same result.
fn weight(caller: IpAddr, endpoint: SocketAddr) -> u64 {
    let mut key = [0; 34];
    key[..16].copy_from_slice(&octets(caller));
    key[16..32].copy_from_slice(&octets(endpoint.ip()));
    key[32..].copy_from_slice(&endpoint.port().to_be_bytes());
    xxh3_64(&key)
}

fn octets(address: IpAddr) -> [u8; 16] {
    match address {
        IpAddr::V4(address) => address.to_ipv6_mapped(),
        IpAddr::V6(address) => address,
    }
    .octets()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Proxies of the version before must agree with those of this one while a rollout lasts.
    #[test]
    fn the_hash_is_the_same_everywhere() {
        for (caller, endpoint, want) in
            [("10.0.0.1", "10.1.0.1:80", WEIGHT_V4), ("fd00::1", "[fd00::2]:8080", WEIGHT_V6)]
        {
            let got = weight(caller.parse().expect(caller), endpoint.parse().expect(endpoint));
            assert_eq!(got, want, "{caller} {endpoint}");
        }
        assert_eq!(octets("10.0.0.1".parse().expect("v4")), octets("::ffff:10.0.0.1".parse().expect("v6")));
    }

    const WEIGHT_V4: u64 = 11_015_258_408_674_422_446;
    const WEIGHT_V6: u64 = 18_142_317_223_998_555_373;
}
