//! Which route a request or connection takes at a port, decided by the functions that requests pass.

use std::net::IpAddr;

use http::{header, request};
use maesh_config::{
    model::Protocol,
    rule::{Matcher, Rule},
};

use super::{Explainer, Question, Sent, SentRequest};
use crate::{
    host::Host,
    http::{check_head, route_facts},
    reason::Reason,
    routes::{RouteFacts, RouteIndex},
    state::{Facts, Port},
};

/// Nobody called the Service.
pub(super) const UNUSED: &str =
    "the proxy has no routes of the Service until somebody calls it; send one request, and ask again";
const NO_LISTENER: &str = "the proxy has no listener open for this port";
const NO_CALLER: &str = "a rule asks for the caller's address; name the caller with --from";
const NO_NAME: &str =
    "on this shared port only TLS that says a server name is carried; other connections are closed without an answer";
const NO_HTTP: &str = "this port carries HTTP, and TLS that says a server name; nothing else";

/// What becomes of a request or connection at one port.
pub(super) enum Decision {
    /// The route of this number has it; the first number that no route has is the Service itself.
    Taken(usize),
    /// The proxy answers it by itself.
    Refused(Reason),
    /// It cannot be said, and why.
    Undecided(&'static str),
}

impl Explainer {
    /// Decides what becomes of `sent` at `port`, whose listener serves `facts`.
    pub(super) fn decide(&self, port: &Port, facts: Option<&Facts>, sent: &Sent, question: &Question) -> Decision {
        let Some(facts) = facts else { return Decision::Undecided(NO_LISTENER) };
        let found = match (port.protocol, sent) {
            (Protocol::Http, Sent::Request(request)) => match self.of_request(port, request, question) {
                Ok(found) => found,
                Err(reason) => return Decision::Refused(reason),
            },
            (Protocol::Http, Sent::Stream(None)) => return Decision::Undecided(NO_HTTP),
            (Protocol::Tcp, _) if facts.owner.is_none() && question.server_name().is_none() => {
                return Decision::Undecided(NO_NAME);
            }
            (Protocol::Http | Protocol::Tcp, _) => {
                // Where no rule asks for the server name, it is not read.
                let name = question.server_name().filter(|_| facts.tls || facts.http);
                let host = name.and_then(|name| Host::parse(name.as_bytes()));
                let host = host.as_ref().map_or("", Host::as_str);
                port.route_number(|| RouteFacts::of_connection(host, question.address()))
            }
            (Protocol::Udp, _) => port.route_number(|| RouteFacts::of_connection("", question.address())),
        };
        let number = found.unwrap_or(port.routes.len());
        let mut tried = port.routes.iter().take(number + 1).filter_map(|route| route.rule.as_ref());
        if question.caller.is_none() && tried.any(asks_caller) {
            return Decision::Undecided(NO_CALLER);
        }
        Decision::Taken(number)
    }

    fn of_request(&self, port: &Port, request: &SentRequest, question: &Question) -> Result<Option<usize>, Reason> {
        let mut head = request.head(&question.host);
        let host = check_head(&mut head, &self.shared.config.limits)?;
        Ok(port.route_number(|| route_facts(host.as_ref(), &head, question.address())))
    }
}

/// Which of these rules each request takes, where `None` is a connection: for tests of what writes rules.
///
/// # Errors
/// The number of a rule with an expression that cannot be used.
#[doc(hidden)]
pub fn first_rules<'a>(
    rules: impl IntoIterator<Item = Option<&'a Rule>>,
    requests: &[Option<request::Parts>],
    caller: IpAddr,
) -> Result<Vec<Option<usize>>, usize> {
    let index = RouteIndex::new(rules)?;
    let find = |request: &Option<request::Parts>| match request {
        None => index.find(&RouteFacts::of_connection("", caller)),
        Some(head) => index.find(&route_facts(head.headers.get(header::HOST), head, caller)),
    };
    Ok(requests.iter().map(find).collect())
}

fn asks_caller(rule: &Rule) -> bool {
    rule.conditions().iter().any(|condition| matches!(condition, Matcher::ClientIp(_)))
}
