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

pub use self::{
    matcher::{Matcher, MatcherKind, Regexp},
    parse::{BadRule, Hint, LONGEST, ParsedRule, parse, parse_checked, parse_until},
};

use crate::Logic;

/// What a request or connection has to be.
pub type Rule = Logic<Matcher>;

impl Rule {
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

    /// Whether it asks for the path.
    pub fn asks_for_path(&self) -> bool {
        match self {
            Self::All(parts) | Self::Any(parts) => parts.iter().any(Self::asks_for_path),
            Self::Not(part) => part.asks_for_path(),
            Self::Is(matcher) => {
                matches!(matcher, Matcher::Path(_) | Matcher::PathPrefix(_) | Matcher::PathRegexp(_))
            }
        }
    }
}

#[cfg(test)]
pub(crate) fn arbitrary() -> impl proptest::strategy::Strategy<Value = Rule> {
    crate::logic::arbitrary(matcher::arbitrary())
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
}
