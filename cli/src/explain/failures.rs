//! What a proxy counted of the requests to one Service: how many it answered by itself, and why.
//!
//! What a role says it would do can be right while every connection to an endpoint fails. The proxy counts that, and its
//! metrics are read here, because they are what it says in every version.

use std::collections::BTreeMap;

/// Requests to one Service since the proxy started.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Failures {
    /// All requests.
    pub requests: u64,
    /// Those that the proxy answered by itself, by reason.
    pub by_reason: BTreeMap<String, u64>,
}

impl Failures {
    /// Reads the exposition of a proxy's metrics; `service` is `namespace/name`, and `port` that of the Service.
    pub fn read(exposition: &str, service: &str, port: Option<u16>) -> Option<Self> {
        let (namespace, name) = service.split_once('/')?;
        let mut this = Self::default();
        for line in exposition.lines() {
            let Some(rest) = line.strip_prefix("maesh_http_requests_total{") else { continue };
            let Some((labels, count)) = rest.rsplit_once("} ") else { continue };
            let label = |key: &str| {
                let mut labels = labels.split(',').filter_map(|label| label.split_once('='));
                labels.find(|(name, _)| *name == key).map(|(_, value)| value.trim_matches('"'))
            };
            let of_port = port.is_none_or(|port| label("port").is_some_and(|it| it.parse() == Ok(port)));
            if label("service") != Some(name) || label("namespace") != Some(namespace) || !of_port {
                continue;
            }
            let count: u64 = count.trim().parse().unwrap_or(0);
            this.requests += count;
            if let Some(reason) = label("reason").filter(|reason| !reason.is_empty()) {
                *this.by_reason.entry(reason.to_owned()).or_default() += count;
            }
        }
        Some(this)
    }

    /// How many requests the proxy answered by itself.
    pub fn failed(&self) -> u64 {
        self.by_reason.values().sum()
    }

    /// `connect_failed 3, no_endpoints 1`: the most frequent first.
    pub fn reasons(&self) -> String {
        let mut reasons: Vec<_> = self.by_reason.iter().collect();
        reasons.sort_by_key(|(_, count)| std::cmp::Reverse(**count));
        reasons.into_iter().map(|(reason, count)| format!("{reason} {count}")).collect::<Vec<_>>().join(", ")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_counters_of_one_service() {
        let line = |service: &str, port: u16, reason: &str, count: u64| {
            format!(
                "maesh_http_requests_total{{service=\"{service}\",namespace=\"shop\",port=\"{port}\",protocol=\"1\",\
                 method=\"GET\",code=\"502\",reason=\"{reason}\"}} {count}\n"
            )
        };
        let text = format!(
            "# TYPE maesh_http_requests counter\n{}{}{}{}{}# EOF\n",
            line("web", 80, "", 5),
            line("web", 80, "connect_failed", 3),
            line("web", 81, "connect_failed", 1),
            line("web", 80, "no_endpoints", 4),
            line("other", 80, "connect_failed", 7),
        );
        let all = Failures::read(&text, "shop/web", None).unwrap();
        assert_eq!((all.requests, all.failed(), all.reasons()), (13, 8, "connect_failed 4, no_endpoints 4".into()));
        let one = Failures::read(&text, "shop/web", Some(81)).unwrap();
        assert_eq!((one.requests, one.reasons()), (1, "connect_failed 1".into()));
        assert_eq!(Failures::read(&text, "shop/none", None), Some(Failures::default()));
    }
}
