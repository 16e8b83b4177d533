//! A regular expression, ready to be looked for.
//!
//! Most expressions in rules ask how a text begins, what it is or what it contains: `^/api/.*`, `^GET$`, `beta`. Those are compared as
//! text, which takes a tenth of the instructions and none of the memory of an automaton.

use maesh_config::rule::Regexp;
use regex::Regex;
use regex_syntax::hir::{Hir, HirKind, Look};

/// What is looked for.
pub(crate) enum Expression {
    /// Every text has it.
    Anything,
    Is(Box<str>),
    BeginsWith(Box<str>),
    EndsWith(Box<str>),
    Contains(Box<str>),
    Regex(Regex),
}

impl Expression {
    /// # Errors
    /// An expression that this version of the library refuses.
    pub(crate) fn of(written: &Regexp) -> Result<Self, regex::Error> {
        // What one refuses, the other one says.
        let parsed = regex_syntax::parse(written.as_str()).ok();
        match parsed.as_ref().and_then(as_text) {
            Some(found) => Ok(found),
            None => Ok(Self::Regex(written.compiled()?)),
        }
    }

    /// Whether it is somewhere in `text`.
    pub(crate) fn is_in(&self, text: &str) -> bool {
        match self {
            Self::Anything => true,
            Self::Is(wanted) => text == &**wanted,
            Self::BeginsWith(wanted) => text.starts_with(&**wanted),
            Self::EndsWith(wanted) => text.ends_with(&**wanted),
            Self::Contains(wanted) => text.contains(&**wanted),
            Self::Regex(expression) => expression.is_match(text),
        }
    }
}

/// The text that an expression means, if it means one.
fn as_text(expression: &Hir) -> Option<Expression> {
    let mut parts = Vec::new();
    flatten(expression, &mut parts);
    let behind_starts = parts.iter().position(|part| !is_look(part, Look::Start)).unwrap_or(parts.len());
    let (starts, mut rest) = (behind_starts > 0, &parts[behind_starts..]);
    let ends = rest.last().is_some_and(|part| is_look(part, Look::End));
    if ends {
        rest = &rest[..rest.len() - 1];
    }
    // Where the end is not asked for, what may be there need not be.
    while let Some((last, others)) = rest.split_last()
        && !ends
        && may_be_nothing(last)
    {
        rest = others;
    }
    let mut text = Vec::new();
    for part in rest {
        let HirKind::Literal(literal) = part.kind() else { return None };
        text.extend_from_slice(&literal.0);
    }
    let text = String::from_utf8(text).ok()?.into_boxed_str();
    Some(match (starts, ends) {
        (true, true) => Expression::Is(text),
        (_, false) if text.is_empty() => Expression::Anything,
        (false, true) if text.is_empty() => Expression::Anything,
        (true, false) => Expression::BeginsWith(text),
        (false, true) => Expression::EndsWith(text),
        (false, false) => Expression::Contains(text),
    })
}

/// Parts one behind the other, groups resolved.
fn flatten<'a>(expression: &'a Hir, parts: &mut Vec<&'a Hir>) {
    match expression.kind() {
        HirKind::Empty => {}
        HirKind::Concat(all) => all.iter().for_each(|part| flatten(part, parts)),
        HirKind::Capture(group) => flatten(&group.sub, parts),
        _ => parts.push(expression),
    }
}

fn is_look(part: &Hir, wanted: Look) -> bool {
    matches!(part.kind(), HirKind::Look(look) if *look == wanted)
}

fn may_be_nothing(part: &Hir) -> bool {
    matches!(part.kind(), HirKind::Repetition(repetition) if repetition.min == 0)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn of(text: &str) -> Expression {
        Expression::of(&Regexp::new(text).expect("an expression")).expect("accepted")
    }

    fn shown(expression: &Expression) -> String {
        match expression {
            Expression::Anything => "anything".to_owned(),
            Expression::Is(text) => format!("is {text}"),
            Expression::BeginsWith(text) => format!("begins {text}"),
            Expression::EndsWith(text) => format!("ends {text}"),
            Expression::Contains(text) => format!("contains {text}"),
            Expression::Regex(_) => "regex".to_owned(),
        }
    }

    #[test]
    fn what_is_plain_text_is_compared_as_text() {
        for (expression, want) in [
            ("", "anything"),
            (".*", "anything"),
            ("^", "anything"),
            ("$", "anything"),
            ("^$", "is "),
            ("^(?:/)", "begins /"),
            ("^(?:/api/.*)", "begins /api/"),
            ("^(?:^/api/(.*))", "begins /api/"),
            ("^/api/?", "begins /api"),
            ("^/api/?$", "regex"),
            ("^/api/(v1)?", "begins /api/"),
            ("^/api/v[12]", "regex"),
            ("^/metrics$", "is /metrics"),
            ("^/a\\.b$", "is /a.b"),
            ("^/a.b$", "regex"),
            ("/api", "contains /api"),
            ("\\.png$", "ends .png"),
            ("(?i)^/api", "regex"),
            ("^/a|^/b", "regex"),
            ("(?m)^/a", "regex"),
            ("^/a/.*$", "regex"),
            ("^/a/[^/]*", "begins /a/"),
            ("^/ü", "begins /ü"),
        ] {
            assert_eq!(shown(&of(expression)), want, "{expression}");
        }
    }

    proptest! {
        #[test]
        fn it_finds_what_the_library_finds(
            expression in "[\\^]?(\\(\\?:)?[ab/.*$?|\\[\\]()\\^+]{0,6}[$)]?",
            texts in proptest::collection::vec("[ab/.\n]{0,6}", 8),
        ) {
            let Ok(written) = Regexp::new(&expression) else { return Ok(()) };
            let (found, library) = (Expression::of(&written).expect("accepted"), written.compiled().expect("accepted"));
            for text in texts {
                prop_assert_eq!(found.is_in(&text), library.is_match(&text), "{} in {:?}", expression, text);
            }
        }
    }
}
