//! Reading the logs of the load in pods, so that "0 failed" is a count.

use std::collections::BTreeMap;
use std::fmt;
use std::time::{Duration, SystemTime};

use anyhow::{Context, Result};
use serde::Deserialize;

use crate::kube::Kube;

/// One request, as `tests/workload` logs it.
#[derive(Debug, Clone, Deserialize)]
pub struct Request {
    /// When it began, in milliseconds since 1970.
    pub at: u64,
    /// How long it took, in microseconds.
    pub took_us: u64,
    /// The plan that it belongs to.
    pub plan: String,
    /// Whether it was a long stream.
    pub long: bool,
    /// Whether the plain name was asked, because the DNS does not serve the mesh's.
    pub plain: bool,
    /// Where it went.
    pub address: Option<String>,
    /// DNS queries that were sent again because nobody answered the first.
    pub resent: u32,
    /// The pod that answered.
    pub pod: String,
    /// The node of that pod.
    pub node: String,
    /// Whence that pod saw it come: the proxy, or the caller where there was none.
    pub source: String,
    /// Exchanges on a long stream.
    pub exchanges: u32,
    /// How a long stream ended in order.
    pub ended: Option<String>,
    /// Why it failed.
    pub failure: Option<String>,
    /// The node of the pod that asked.
    #[serde(default)]
    pub asker: String,
}

/// Milliseconds since 1970, as in the logs: all pods have this machine's clock.
pub fn now() -> u64 {
    SystemTime::UNIX_EPOCH.elapsed().map_or(0, |time| time.as_millis() as u64)
}

/// All requests that the pods `app=NAME` in `namespace` began from `since` on and know the outcome of.
///
/// # Errors
/// When a log cannot be read.
pub fn requests(kube: &Kube, namespace: &str, name: &str, since: u64) -> Result<Vec<Request>> {
    let mut all = Vec::new();
    for pod in kube.list(&format!("pods --namespace={namespace} --selector=app={name}"))? {
        let (pod, node) = (&pod["metadata"]["name"], &pod["spec"]["nodeName"]);
        let pod = pod.as_str().context("a pod without a name")?;
        let text =
            kube.run(&format!("--namespace={namespace} exec {pod} -- /program read /log/requests --since={since}"))?;
        for line in text.lines() {
            let mut request: Request = serde_json::from_str(line).with_context(|| format!("{pod}: {line}"))?;
            request.asker = node.as_str().unwrap_or_default().to_owned();
            all.push(request);
        }
    }
    Ok(all)
}

/// What came of the requests of a span of time.
#[derive(Debug, Clone, Default)]
pub struct Counts {
    /// Requests, long streams left out.
    pub requests: usize,
    /// Those that failed.
    pub failed: usize,
    /// Those on a connection of their own, for which the name was looked up.
    pub looked_up: usize,
    /// Those that asked the plain name, because the DNS does not serve the mesh's.
    pub plain: usize,
    /// DNS queries that were sent again because nobody answered the first.
    pub resent: u32,
    /// The median and the 99th of a hundred.
    pub took: [Duration; 2],
    /// Long streams that were opened.
    pub streams: usize,
    /// Failures by plan and reason.
    pub reasons: BTreeMap<String, usize>,
    /// Ends of long streams, in order or not, by plan and how.
    pub ends: BTreeMap<String, usize>,
}

impl Counts {
    /// Counts the requests that began in the span.
    pub fn of(requests: &[Request], span: std::ops::Range<u64>) -> Self {
        let mut counts = Self::default();
        let mut took = Vec::new();
        for request in requests.iter().filter(|request| span.contains(&request.at)) {
            let kind = request.plan.split(' ').next().unwrap_or_default();
            if request.long {
                counts.streams += 1;
                let end = request.failure.as_ref().or(request.ended.as_ref()).map_or("?", String::as_str);
                *counts.ends.entry(format!("{kind}: {end}")).or_default() += 1;
                continue;
            }
            counts.requests += 1;
            counts.looked_up += usize::from(request.address.is_some());
            counts.plain += usize::from(request.plain);
            counts.resent += request.resent;
            took.push(request.took_us);
            if let Some(failure) = &request.failure {
                counts.failed += 1;
                *counts.reasons.entry(format!("{kind} from {}: {failure}", request.asker)).or_default() += 1;
            }
        }
        took.sort_unstable();
        let share = |percent: usize| {
            let index = (took.len() * percent / 100).min(took.len().saturating_sub(1));
            Duration::from_micros(took.get(index).copied().unwrap_or_default())
        };
        counts.took = [share(50), share(99)];
        counts
    }
}

impl fmt::Display for Counts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [half, most] = self.took;
        write!(f, "{} requests, {} failed", self.requests, self.failed)?;
        write!(f, ", {} of {} by the plain name", self.plain, self.looked_up)?;
        write!(f, ", median {:.1} ms, p99 {:.1} ms", half.as_secs_f64() * 1e3, most.as_secs_f64() * 1e3)?;
        if self.resent > 0 {
            write!(f, ", {} queries sent again", self.resent)?;
        }
        if self.streams > 0 {
            write!(f, "; {} long streams", self.streams)?;
        }
        for (what, count) in self.reasons.iter().chain(&self.ends) {
            write!(f, "\n    {count} x {what}")?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn requests_of_a_span_are_counted() {
        let line = |at: u64, rest: &str| -> Request {
            let text = format!(
                r#"{{"at":{at},"took_us":{at},"plan":"tcp 1 a:1","long":false,"plain":false,"address":null,"resent":1,"pod":"",
                "node":"","source":"","exchanges":0,"ended":null,"failure":null{rest}}}"#
            );
            let mut value: serde_json::Value = serde_json::from_str(&text.replace(rest, "")).unwrap();
            let more: serde_json::Value =
                serde_json::from_str(&format!("{{{}}}", rest.trim_start_matches(','))).unwrap();
            value.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
            serde_json::from_value(value).unwrap()
        };
        let all = [
            line(1, ""),
            line(2, r#","failure":"timeout""#),
            line(3, r#","long":true,"ended":"close 1001""#),
            line(4, r#","plain":true"#),
            line(5, r#","failure":"timeout""#),
        ];
        let counts = Counts::of(&all, 2..5);
        let seen = (counts.requests, counts.failed, counts.plain, counts.streams, counts.resent);
        assert_eq!(seen, (2, 1, 1, 1, 2), "{counts}");
        assert!(
            counts.to_string().contains("1 x tcp from : timeout") && counts.to_string().contains("tcp: close 1001")
        );
    }
}
