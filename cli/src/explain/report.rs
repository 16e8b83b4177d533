//! What the roles said, put together: the answer and its reason in a sentence, and every problem with its next step.
//!
//! Pure. The JSON of `-o json` is this type; fields are added, never renamed or taken away.

mod because;
mod problems;

use maesh_compiler::compile::explain::{CallerSeen, EndpointSeen, Meshed};
use maesh_dns::Explanation as DnsExplanation;
use maesh_proxy::explain as proxy;
use serde::Serialize;

use self::{because::because, problems::problems};
use super::collect::Collected;

/// Everything `maesh explain` has to say.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Report {
    /// Who was asked.
    pub asked: String,
    /// The caller is served: there is no problem of severity `error`.
    pub served: bool,
    /// The name asked for.
    pub name: String,
    /// The Service, `namespace/name`.
    pub service: Option<String>,
    /// Whose address the caller's is.
    pub caller: Option<CallerSeen>,
    /// What is answered.
    pub dns: Option<Dns>,
    /// How the Service is meshed.
    pub meshed: Option<Meshed>,
    /// What the proxy on the way does.
    pub proxy: Option<Proxy>,
    /// Endpoints with their conditions.
    pub endpoints: Vec<EndpointSeen>,
    /// How many there are.
    pub endpoints_in_all: usize,
    /// What is wrong, the worst first.
    pub problems: Vec<Problem>,
    /// It was a `maesh dev`.
    #[serde(skip)]
    pub dev: bool,
    /// The Service that gets the request, where it is another, and how that is meshed.
    #[serde(skip)]
    pub reached: Option<(String, Option<Meshed>)>,
    /// Only this port was asked about.
    #[serde(skip)]
    pub port: Option<u16>,
    /// It is known who calls.
    #[serde(skip)]
    pub has_caller: bool,
    /// What is sent, if that was asked.
    #[serde(skip)]
    pub sent: Option<proxy::Sent>,
}

/// What dns answers.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Dns {
    /// Who was asked.
    pub by: String,
    /// Why it answers so, in a sentence.
    pub because: String,
    /// What it said.
    #[serde(flatten)]
    pub said: DnsExplanation,
}

/// What the proxy does.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Proxy {
    /// Who was asked.
    pub by: String,
    /// What it said.
    #[serde(flatten)]
    pub said: proxy::Explanation,
}

/// How bad a problem is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Severity {
    /// The caller is not served.
    Error,
    /// It is served otherwise than it should be.
    Warning,
    /// Worth knowing.
    Note,
}

/// Something that is wrong, with the next step.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub struct Problem {
    /// How bad it is.
    pub severity: Severity,
    /// What is wrong, and what to do.
    pub message: String,
}

impl Report {
    /// Puts together what was said.
    pub fn of(collected: Collected) -> Self {
        let mut problems = problems(&collected);
        problems.sort();
        problems.dedup();
        let Collected { asked, dev, name, port, sent, caller, controller, reached, dns, proxy, .. } = collected;
        let has_caller = caller.is_some();
        let known = controller.said.ok();
        let caller = known.as_ref().and_then(|known| known.caller.clone());
        let meshed = known.as_ref().and_then(|known| known.meshed.clone());
        let first = dns.into_iter().find_map(|part| Some((part.by, part.said.ok()?)));
        let dns = first.map(|(by, said)| Dns { because: because(&said, caller.as_ref(), meshed.as_ref()), by, said });
        let proxy = proxy.and_then(|part| Some(Proxy { by: part.by, said: part.said.ok()? }));
        let service = known.as_ref().and_then(|known| known.service.clone());
        let other = reached.as_ref().and_then(|reached| Some((reached.service.clone()?, reached.meshed.clone())));
        let (endpoints, endpoints_in_all) =
            reached.or(known).map_or((Vec::new(), 0), |known| (known.endpoints, known.endpoints_in_all));
        Self {
            asked,
            served: problems.iter().all(|problem| problem.severity > Severity::Error),
            name,
            service: service.or_else(|| proxy.as_ref()?.said.service.clone()),
            caller,
            dns,
            meshed,
            proxy,
            endpoints,
            endpoints_in_all,
            problems,
            dev,
            reached: other,
            port,
            has_caller,
            sent,
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test ends where something is missing")]
mod tests;
