//! Names that routes claim on a port, besides the mesh names that need no claim.

use std::{collections::HashMap, sync::Arc};

use maesh_config::{ServiceName, model::Claim};

/// Claimed names of one port.
#[derive(Default)]
pub(crate) struct Claims {
    exact: HashMap<Arc<str>, ServiceName, ahash::RandomState>,
    /// What follows the `*`, with its dot.
    suffixes: HashMap<Box<str>, ServiceName, ahash::RandomState>,
}

impl Claims {
    /// A table of these claims.
    pub(crate) fn new(claims: &[Claim]) -> Self {
        let mut table = Self::default();
        for claim in claims {
            match claim.host.strip_prefix('*') {
                Some(suffix) => table.suffixes.insert(suffix.into(), claim.service.clone()),
                None => table.exact.insert(claim.host.clone(), claim.service.clone()),
            };
        }
        table
    }

    /// Who claims `host` (lower case, no trailing dot): an exact claim first, then the longest wildcard.
    pub(crate) fn find(&self, host: &str) -> Option<&ServiceName> {
        if let Some(service) = self.exact.get(host) {
            return Some(service);
        }
        if self.suffixes.is_empty() {
            return None;
        }
        let dots = host.bytes().enumerate().filter(|(at, byte)| *byte == b'.' && *at > 0);
        dots.map(|(at, _)| &host[at..]).find_map(|suffix| self.suffixes.get(suffix))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn claims() {
        let claim = |host: &str, name: &str| Claim { host: host.into(), service: ServiceName::new("ns", name) };
        let table = Claims::new(&[
            claim("www.example.com", "www"),
            claim("*.example.com", "any"),
            claim("*.deep.example.com", "deep"),
        ]);
        for (host, want) in [
            ("www.example.com", Some("www")),
            ("other.example.com", Some("any")),
            ("a.b.example.com", Some("any")),
            ("a.deep.example.com", Some("deep")),
            ("deep.example.com", Some("any")),
            ("example.com", None),
            (".example.com", None),
            ("example.org", None),
        ] {
            assert_eq!(table.find(host).map(|service| &*service.name), want, "{host}");
        }
    }
}
