//! A rule with its expressions made ready.

use maesh_config::rule::{Matcher, Rule};

use super::{
    RouteFacts,
    expression::Expression,
    facts::{decoded, finds_pair, has_pair},
};

/// A rule that can be tried.
pub(crate) enum CompiledRule {
    Always,
    Any(Vec<Self>),
    All(Vec<Self>),
    Not(Box<Self>),
    /// A matcher without an expression.
    Is(Matcher),
    Finds(Searched, Expression),
}

/// Where an expression is looked for.
pub(crate) enum Searched {
    Host,
    Path,
    Field(Box<str>),
    Query(Box<str>),
    Cookie(Box<str>),
}

impl CompiledRule {
    /// Of a rule; `None` is one that always holds.
    ///
    /// # Errors
    /// An expression that this version of the library refuses.
    pub(crate) fn of(rule: Option<&Rule>) -> Result<Self, regex::Error> {
        let Some(rule) = rule else { return Ok(Self::Always) };
        let all = |parts: &[Rule]| parts.iter().map(|part| Self::of(Some(part))).collect::<Result<Vec<_>, _>>();
        Ok(match rule {
            Rule::Any(parts) => Self::Any(all(parts)?),
            Rule::All(parts) => Self::All(all(parts)?),
            Rule::Not(part) => Self::Not(Box::new(Self::of(Some(part))?)),
            Rule::Is(matcher) => Self::matcher(matcher)?,
        })
    }

    fn matcher(matcher: &Matcher) -> Result<Self, regex::Error> {
        let (searched, expression) = match matcher {
            Matcher::HostRegexp(it) | Matcher::HostSniRegexp(it) => (Searched::Host, it),
            Matcher::PathRegexp(it) => (Searched::Path, it),
            Matcher::HeaderRegexp(name, it) => (Searched::Field(name.clone()), it),
            Matcher::QueryRegexp(name, it) => (Searched::Query(name.clone()), it),
            Matcher::CookieRegexp(name, it) => (Searched::Cookie(name.clone()), it),
            // As requests are seen, or `/%61` would fit nothing.
            Matcher::Path(path) => return Ok(Self::Is(Matcher::Path(decoded(path).into()))),
            Matcher::PathPrefix(path) => return Ok(Self::Is(Matcher::PathPrefix(decoded(path).into()))),
            _ => return Ok(Self::Is(matcher.clone())),
        };
        Ok(Self::Finds(searched, Expression::of(expression)?))
    }

    /// Whether it holds.
    pub(crate) fn holds(&self, facts: &RouteFacts<'_>) -> bool {
        match self {
            Self::Always => true,
            Self::Any(parts) => parts.iter().any(|part| part.holds(facts)),
            Self::All(parts) => parts.iter().all(|part| part.holds(facts)),
            Self::Not(part) => !part.holds(facts),
            Self::Is(matcher) => is(matcher, facts),
            Self::Finds(searched, expression) => finds(searched, expression, facts),
        }
    }
}

fn is(matcher: &Matcher, facts: &RouteFacts<'_>) -> bool {
    match matcher {
        Matcher::HostSni(name) if &**name == "*" => true,
        Matcher::Host(host) | Matcher::HostSni(host) => facts.host() == &**host,
        Matcher::Path(path) => facts.path() == &**path,
        Matcher::PathPrefix(prefix) => facts.path().starts_with(&**prefix),
        Matcher::Method(method) => facts.method == &**method,
        Matcher::Header(name, wanted) => facts.has_field(name, wanted),
        Matcher::Query(key, wanted) => has_pair(facts.query(), key, wanted),
        Matcher::Cookie(name, wanted) => has_pair(facts.cookies(), name, wanted),
        Matcher::ClientIp(net) => net.contains(&facts.caller),
        // Those with an expression were made ready.
        Matcher::HostRegexp(_)
        | Matcher::HostSniRegexp(_)
        | Matcher::PathRegexp(_)
        | Matcher::HeaderRegexp(..)
        | Matcher::QueryRegexp(..)
        | Matcher::CookieRegexp(..) => false,
    }
}

fn finds(searched: &Searched, expression: &Expression, facts: &RouteFacts<'_>) -> bool {
    let is_found = |text: &str| expression.is_in(text);
    match searched {
        Searched::Host => is_found(facts.host()),
        Searched::Path => is_found(facts.path()),
        Searched::Field(name) => facts.finds_field(name, is_found),
        Searched::Query(key) => finds_pair(facts.query(), key, is_found),
        Searched::Cookie(name) => finds_pair(facts.cookies(), name, is_found),
    }
}
