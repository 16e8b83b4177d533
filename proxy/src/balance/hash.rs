//! Consistent hashing: the same endpoint for the same caller, or the same value of a field.

use std::net::{IpAddr, SocketAddr};

use xxhash_rust::xxh3::{xxh3_64, xxh3_128};

/// What is hashed: an address, or the hash of a value.
pub(crate) type HashKey = [u8; 16];

/// Picks the same item for the same key while the items stay, and moves as few keys as possible when they do not: the item
/// whose hash together with the key is highest.
pub(crate) fn by_hash<T>(items: &[T], key: HashKey, address: impl Fn(&T) -> SocketAddr) -> Option<&T> {
    items.iter().max_by_key(|item| weight(key, address(item)))
}

/// The key of a caller.
pub(crate) fn of_address(address: IpAddr) -> HashKey {
    match address {
        IpAddr::V4(address) => address.to_ipv6_mapped(),
        IpAddr::V6(address) => address,
    }
    .octets()
}

/// The key of a value.
pub(crate) fn of_value(value: &[u8]) -> HashKey {
    xxh3_128(value).to_be_bytes()
}

/// A number for an endpoint that a cookie can carry: it says nothing of its address to whoever does not know it.
pub(crate) fn of_endpoint(endpoint: SocketAddr) -> u64 {
    weight([0; 16], endpoint)
}

/// XXH3 of fixed bytes: every worker, every proxy, every version and every architecture must come to the same result.
fn weight(key: HashKey, endpoint: SocketAddr) -> u64 {
    let mut bytes = [0; 34];
    bytes[..16].copy_from_slice(&key);
    bytes[16..32].copy_from_slice(&of_address(endpoint.ip()));
    bytes[32..].copy_from_slice(&endpoint.port().to_be_bytes());
    xxh3_64(&bytes)
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
            let got = weight(of_address(caller.parse().expect(caller)), endpoint.parse().expect(endpoint));
            assert_eq!(got, want, "{caller} {endpoint}");
        }
        assert_eq!(of_address("10.0.0.1".parse().expect("v4")), of_address("::ffff:10.0.0.1".parse().expect("v6")));
    }

    const WEIGHT_V4: u64 = 11_015_258_408_674_422_446;
    const WEIGHT_V6: u64 = 18_142_317_223_998_555_373;
}
