//! Rules of routes: what a request or connection has to be, in the language of Traefik's routers (version 3).
//!
//! ```text
//! rule    = all { "||" all }
//! all     = one { "&&" one }
//! one     = "!" one | "(" rule ")" | matcher
//! matcher = NAME "(" [ string { "," string } ] ")"
//! string  = "`" any but "`" "`" | '"' any, with \" and \\ '"'
//! ```
//!
//! A rule is written to the wire in this language too, so that it has one reader. A version that does not know a matcher
//! cannot read the rule, and refuses the route.

mod matcher;
mod parse;

use std::fmt;

use serde::{Serialize, Serializer};

pub use self::{
    matcher::{Matcher, MatcherKind, Regexp},
    parse::{BadRule, Hint, LONGEST, ParsedRule, parse, parse_until},
};

/// What a request or connection has to be.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Rule {
    /// One of them holds; two or more.
    Any(Vec<Self>),
    /// All of them hold; two or more.
    All(Vec<Self>),
    /// It does not hold.
    Not(Box<Self>),
    /// This is so.
    Is(Matcher),
}

impl Rule {
    /// Whether it holds; `is` says it of one matcher.
    pub fn holds(&self, is: &impl Fn(&Matcher) -> bool) -> bool {
        match self {
            Self::Any(parts) => parts.iter().any(|part| part.holds(is)),
            Self::All(parts) => parts.iter().all(|part| part.holds(is)),
            Self::Not(part) => !part.holds(is),
            Self::Is(matcher) => is(matcher),
        }
    }

    /// Every matcher in it, in the order in which they are written.
    pub fn matchers(&self) -> Vec<&Matcher> {
        match self {
            Self::Any(parts) | Self::All(parts) => parts.iter().flat_map(Self::matchers).collect(),
            Self::Not(part) => part.matchers(),
            Self::Is(matcher) => vec![matcher],
        }
    }

    /// The hosts that a request must have one of for the rule to hold, if the rule says so by `Host` or `HostSNI` alone; `None`
    /// where it may hold for others.
    pub fn hosts(&self) -> Option<Vec<&str>> {
        match self {
            // One of the parts is enough.
            Self::All(parts) => parts.iter().find_map(Self::hosts),
            Self::Any(parts) => {
                let all: Option<Vec<Vec<&str>>> = parts.iter().map(Self::hosts).collect();
                all.map(|all| all.into_iter().flatten().collect())
            }
            Self::Is(Matcher::Host(host) | Matcher::HostSni(host)) if &**host != "*" => Some(vec![host]),
            Self::Not(_) | Self::Is(_) => None,
        }
    }
}

impl fmt::Display for Rule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Any(parts) => joined(f, parts, " || "),
            Self::All(parts) => joined(f, parts, " && "),
            Self::Not(part) => write!(f, "!{}", Part(part)),
            Self::Is(matcher) => matcher.fmt(f),
        }
    }
}

fn joined(f: &mut fmt::Formatter<'_>, parts: &[Rule], between: &str) -> fmt::Result {
    for (i, part) in parts.iter().enumerate() {
        write!(f, "{}{}", if i == 0 { "" } else { between }, Part(part))?;
    }
    Ok(())
}

/// A part of a rule, in parentheses where it has parts itself.
struct Part<'a>(&'a Rule);

impl fmt::Display for Part<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            Rule::Any(_) | Rule::All(_) => write!(f, "({})", self.0),
            Rule::Not(_) | Rule::Is(_) => self.0.fmt(f),
        }
    }
}

impl Serialize for Rule {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

#[cfg(test)]
pub(crate) fn arbitrary() -> impl proptest::strategy::Strategy<Value = Rule> {
    use proptest::prelude::*;
    let leaf = matcher::arbitrary().prop_map(Rule::Is);
    leaf.prop_recursive(3, 12, 3, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 2..4).prop_map(Rule::Any),
            prop::collection::vec(inner.clone(), 2..4).prop_map(Rule::All),
            inner.prop_map(|part| Rule::Not(Box::new(part))),
        ]
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rule(text: &str) -> Rule {
        parse(text).unwrap_or_else(|bad| panic!("{text}: {bad}")).rule
    }

    #[test]
    fn a_rule_says_for_which_hosts_it_holds() {
        for (text, want) in [
            ("Host(`a.example`)", Some(&["a.example"][..])),
            ("Host(`a.example`) && PathPrefix(`/x`)", Some(&["a.example"])),
            ("PathPrefix(`/x`) && (Host(`a.example`) || Host(`b.example`))", Some(&["a.example", "b.example"])),
            ("Host(`a.example`) || PathPrefix(`/x`)", None),
            ("!Host(`a.example`)", None),
            ("!Host(`a.example`) && Host(`b.example`)", Some(&["b.example"])),
            ("PathPrefix(`/x`)", None),
            ("HostSNI(`a.example`)", Some(&["a.example"])),
            ("HostSNI(`*`)", None),
            ("HostRegexp(`a`)", None),
        ] {
            assert_eq!(rule(text).hosts().as_deref(), want, "{text}");
        }
    }

    #[test]
    fn a_rule_holds_as_its_parts_do() {
        for (text, path, want) in [
            ("Path(`/a`) || Path(`/b`)", "/b", true),
            ("Path(`/a`) || Path(`/b`)", "/c", false),
            ("Path(`/a`) && !Path(`/b`)", "/a", true),
            ("!(Path(`/a`) || Path(`/b`))", "/c", true),
            ("!(Path(`/a`) || Path(`/b`))", "/a", false),
        ] {
            let is = |matcher: &Matcher| matches!(matcher, Matcher::Path(wanted) if &**wanted == path);
            assert_eq!(rule(text).holds(&is), want, "{text} {path}");
        }
    }
}
