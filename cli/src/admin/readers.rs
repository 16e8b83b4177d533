//! Who may read the status API.
//!
//! It names the Services of all namespaces, their endpoints and the pods of the mesh, and every pod of a cluster can connect
//! to the admin port. So `/api`, and the page `/`, which shows the same, are for loopback addresses. In a cluster, callers
//! come from there through a port-forward, for which the API server checks their rights. Others read it only where their
//! addresses were allowed. Probes and metrics are for everybody.

use std::net::IpAddr;

use ipnet::{IpNet, Ipv4Net};

/// Length of the prefix of addresses that are IPv4 addresses within IPv6.
const MAPPED: u8 = 96;

/// The addresses whose callers may read the status API, besides loopback addresses.
#[derive(Clone, Debug, Default)]
pub struct ApiReaders(Vec<IpNet>);

impl ApiReaders {
    /// Callers in these ranges.
    pub fn new(ranges: &[IpNet]) -> Self {
        Self(ranges.iter().map(|range| canonical(*range)).collect())
    }

    /// Whether a request for `path` from this address is answered; the error says why not.
    pub(super) fn check(&self, path: &str, from: IpAddr) -> Result<(), String> {
        let from = from.to_canonical();
        let is_public = matches!(path, "/livez" | "/readyz" | "/metrics");
        if is_public || from.is_loopback() || self.0.iter().any(|range| range.contains(&from)) {
            return Ok(());
        }
        Err(format!(
            "this port answers {from} only /livez, /readyz and /metrics; for the status API, connect from a loopback address \
             (kubectl port-forward), or allow this address with --api-from (api.allowFrom of the chart)\n"
        ))
    }
}

/// A range of IPv4 addresses within IPv6 as one of IPv4: callers' addresses are compared in that form.
fn canonical(range: IpNet) -> IpNet {
    let IpNet::V6(mapped) = range else { return range };
    let of_v4 = mapped.prefix_len().checked_sub(MAPPED);
    let v4 =
        mapped.network().to_ipv4_mapped().zip(of_v4).and_then(|(network, length)| Ipv4Net::new(network, length).ok());
    v4.map_or(range, IpNet::V4)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_is_answered() {
        let none: &[&str] = &[];
        for (ranges, from, want) in [
            (none, "127.0.0.1", true),
            (none, "127.77.0.9", true),
            (none, "::1", true),
            (none, "::ffff:127.0.0.1", true),
            (none, "10.244.1.7", false),
            (none, "::ffff:10.244.1.7", false),
            (none, "fd00:10:244::7", false),
            (none, "0.0.0.0", false),
            (none, "::", false),
            (none, "128.0.0.1", false),
            // The address is within IPv6 in another way than the one that the system uses.
            (none, "::127.0.0.1", false),
            (&["10.89.7.0/24"], "10.89.7.1", true),
            (&["10.89.7.0/24"], "::ffff:10.89.7.1", true),
            (&["10.89.7.0/24"], "10.89.8.1", false),
            (&["10.89.7.0/24"], "127.0.0.1", true),
            (&["10.89.7.9/24"], "10.89.7.1", true),
            (&["::ffff:10.89.7.0/120"], "10.89.7.1", true),
            (&["::ffff:10.89.7.0/120"], "::ffff:10.89.7.1", true),
            (&["::ffff:10.89.7.0/120"], "10.89.8.1", false),
            (&["10.89.7.1/32", "fd00:10:89::/64"], "fd00:10:89::1", true),
            (&["10.89.7.1/32", "fd00:10:89::/64"], "10.89.7.1", true),
            (&["10.89.7.1/32", "fd00:10:89::/64"], "10.89.7.2", false),
            (&["0.0.0.0/0"], "10.244.1.7", true),
            (&["0.0.0.0/0"], "fd00:10:244::7", false),
            (&["::/0"], "fd00:10:244::7", true),
            (&["::/0"], "10.244.1.7", false),
        ] {
            let ranges: Vec<IpNet> = ranges.iter().map(|range| range.parse().expect(range)).collect();
            let (readers, from) = (ApiReaders::new(&ranges), from.parse().expect(from));
            for path in ["/", "/api", "/api/", "/api/services", "/api/log-level", "//api", "/livez/", "/nothing"] {
                assert_eq!(readers.check(path, from).is_ok(), want, "{path} from {from}, {ranges:?}");
            }
            for path in ["/livez", "/readyz", "/metrics"] {
                assert_eq!(readers.check(path, from), Ok(()), "{path} from {from}, {ranges:?}");
            }
        }
    }

    #[test]
    fn who_is_refused_learns_what_to_do() {
        let refused = ApiReaders::default().check("/api/status", [10, 244, 1, 7].into()).expect_err("it is a pod");
        for part in ["10.244.1.7", "kubectl port-forward", "--api-from", "api.allowFrom"] {
            assert!(refused.contains(part), "{part}: {refused}");
        }
    }
}
