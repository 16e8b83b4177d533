//! Reads a rule; a mistake is told with its column and what was expected there.
//!
//! Spellings of Traefik's version 2 are understood, and a [`Hint`] tells today's form: several values in one matcher, `Headers`,
//! `HeadersRegexp`, `HostHeader`, `Query` with `key=value`, and expressions in braces.

use super::{Matcher, MatcherKind, Regexp, Rule, matcher::network};
use crate::logic::{Mistake, Scanner};

/// Longest rule, in bytes.
pub const LONGEST: usize = 4096;

/// Where a text stops being a rule.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("column {column}: {what}")]
pub struct BadRule {
    /// The place, counted in characters from 1.
    pub column: usize,
    /// What is wrong there: what was expected, as a rule.
    pub what: String,
    /// The name of a matcher that there is not.
    pub unknown: Option<String>,
}

/// An old spelling.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Hint {
    /// The place, counted in characters from 1.
    pub column: usize,
    /// Today's form.
    pub now: String,
}

/// What was read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ParsedRule {
    /// The rule.
    pub rule: Rule,
    /// What is written in an old way.
    pub hints: Vec<Hint>,
    /// How many bytes of the text it takes, with blanks.
    pub bytes: usize,
}

/// Reads a rule.
///
/// # Errors
/// The text is none.
pub fn parse(text: &str) -> Result<ParsedRule, BadRule> {
    parse_until(text, None)
}

/// Reads a rule whose expressions were found good before it was written. They are taken as they are: making them ready to see
/// whether they still are takes a thousand times as long as all the rest.
///
/// # Errors
/// The text is no rule.
pub fn parse_checked(text: &str) -> Result<Rule, BadRule> {
    read(text, None, false).map(|parsed| parsed.rule)
}

/// Reads a rule up to `end`, or up to the end of the text.
///
/// # Errors
/// The text does not begin with a rule and this end.
pub fn parse_until(text: &str, end: Option<&'static str>) -> Result<ParsedRule, BadRule> {
    read(text, end, true)
}

fn read(text: &str, end: Option<&'static str>, tries_expressions: bool) -> Result<ParsedRule, BadRule> {
    let (mut scanner, mut hints) = (Scanner::new(text), Vec::new());
    let rule = scanner.logic(&mut |scanner| Matchers { scanner, hints: &mut hints, tries_expressions }.matcher())?;
    let length = text[..scanner.at()].trim().len();
    if length > LONGEST {
        let what = format!("the rule has {length} bytes; at most {LONGEST} are read");
        return Err(BadRule { column: scanner.column(scanner.at()), what, unknown: None });
    }
    let is_over = match end {
        Some(end) => scanner.rest().starts_with(end),
        None => scanner.rest().is_empty(),
    };
    if !is_over {
        let column = scanner.column(scanner.at());
        let what = format!("expected &&, || or {}", end.unwrap_or("the end"));
        return Err(BadRule { column, what, unknown: None });
    }
    Ok(ParsedRule { rule, hints, bytes: scanner.at() })
}

impl From<Mistake> for BadRule {
    fn from(Mistake { column, expected }: Mistake) -> Self {
        Self { column, what: format!("expected {expected}"), unknown: None }
    }
}

/// Reads matchers.
struct Matchers<'s, 'a> {
    scanner: &'s mut Scanner<'a>,
    hints: &'s mut Vec<Hint>,
    tries_expressions: bool,
}

/// A text between quotes, and where it begins.
struct Argument {
    at: usize,
    text: String,
}

impl Matchers<'_, '_> {
    fn column(&self, at: usize) -> usize {
        self.scanner.column(at)
    }

    fn matcher(&mut self) -> Result<Rule, BadRule> {
        let rest = self.scanner.rest();
        let begins = self.scanner.at();
        let length = rest.find(|c: char| !c.is_ascii_alphanumeric()).unwrap_or(rest.len());
        let name = &rest[..length];
        if name.is_empty() {
            return Err(self.scanner.expected("a matcher such as Host(`shop.example`) or PathPrefix(`/api`)").into());
        }
        let Some((kind, is_old)) = known(name) else {
            let what = format!("{name} is no matcher");
            return Err(BadRule { column: self.column(begins), what, unknown: Some(name.to_owned()) });
        };
        self.scanner.skip(length);
        let arguments = self.arguments()?;
        let before = self.hints.len();
        let rule = self.build(kind, arguments, begins)?;
        if is_old && self.hints.len() == before {
            self.hints.push(Hint { column: self.column(begins), now: rule.to_string() });
        }
        Ok(rule)
    }

    fn arguments(&mut self) -> Result<Vec<Argument>, Mistake> {
        self.scanner.expect("(")?;
        let mut arguments = Vec::new();
        if self.scanner.take(")") {
            return Ok(arguments);
        }
        loop {
            arguments.push(self.string()?);
            if self.scanner.take(")") {
                return Ok(arguments);
            }
            if !self.scanner.take(",") {
                return Err(self.scanner.expected(", or )"));
            }
        }
    }

    fn string(&mut self) -> Result<Argument, Mistake> {
        let rest = self.scanner.rest();
        let at = self.scanner.at();
        let (text, length) = match rest.as_bytes().first() {
            Some(b'`') => match rest[1..].find('`') {
                Some(length) => (rest[1..=length].to_owned(), length + 2),
                None => return Err(self.scanner.expected("a text that ends with another `")),
            },
            Some(b'"') => {
                quoted(rest).ok_or_else(|| self.scanner.expected("a text that ends with another double quote"))?
            }
            _ => return Err(self.scanner.expected("a text between ` and `, or between double quotes")),
        };
        self.scanner.skip(length);
        Ok(Argument { at, text })
    }

    /// The rule that a matcher with these arguments is. `begins`: where its name does.
    fn build(&mut self, kind: MatcherKind, mut arguments: Vec<Argument>, begins: usize) -> Result<Rule, BadRule> {
        if takes_pair(kind) {
            if kind == MatcherKind::Query && arguments.len() == 1 {
                arguments = self.of_old_query(arguments, begins);
            }
            let [key, value] = &arguments[..] else {
                let what = format!("{} takes two texts, the name and the value", kind.name());
                return Err(BadRule { column: self.column(begins), what, unknown: None });
            };
            return Ok(Rule::Is(self.pair(kind, key, value)?));
        }
        if arguments.is_empty() {
            let what = format!("{} takes a text", kind.name());
            return Err(BadRule { column: self.column(begins), what, unknown: None });
        }
        let mut parts = Vec::new();
        for argument in &arguments {
            parts.push(Rule::Is(self.single(kind, argument)?));
        }
        if parts.len() == 1 {
            return Ok(Rule::one_or(parts, Rule::Any));
        }
        let rule = Rule::Any(parts);
        self.hints.push(Hint { column: self.column(begins), now: rule.to_string() });
        Ok(rule)
    }

    /// `Query` with one text: a key alone, or version 2's `key=value`.
    fn of_old_query(&mut self, mut arguments: Vec<Argument>, begins: usize) -> Vec<Argument> {
        let Some(Argument { at, text }) = arguments.pop() else { return arguments };
        let (key, value) = match text.split_once('=') {
            Some((key, value)) => {
                let now = Matcher::Query(key.into(), value.into()).to_string();
                self.hints.push(Hint { column: self.column(begins), now });
                (key.to_owned(), value.to_owned())
            }
            None => (text, String::new()),
        };
        vec![Argument { at, text: key }, Argument { at, text: value }]
    }

    fn single(&mut self, kind: MatcherKind, argument: &Argument) -> Result<Matcher, BadRule> {
        let text = argument.text.as_str();
        if matches!(kind, MatcherKind::HostRegexp | MatcherKind::Path | MatcherKind::PathPrefix)
            && let Some(expression) = of_braces(text, kind)
        {
            let it = self.regexp(&Argument { at: argument.at, text: expression })?;
            let matcher =
                if kind == MatcherKind::HostRegexp { Matcher::HostRegexp(it) } else { Matcher::PathRegexp(it) };
            self.hints.push(Hint { column: self.column(argument.at), now: matcher.to_string() });
            return Ok(matcher);
        }
        Ok(match kind {
            MatcherKind::Host => Matcher::Host(self.host(argument)?),
            MatcherKind::HostSni if text == "*" => Matcher::HostSni(text.into()),
            MatcherKind::HostSni => Matcher::HostSni(self.host(argument)?),
            MatcherKind::HostRegexp => Matcher::HostRegexp(self.regexp(argument)?),
            MatcherKind::HostSniRegexp => Matcher::HostSniRegexp(self.regexp(argument)?),
            MatcherKind::Path => Matcher::Path(self.path(argument)?),
            MatcherKind::PathPrefix => Matcher::PathPrefix(self.path(argument)?),
            MatcherKind::PathRegexp => Matcher::PathRegexp(self.regexp(argument)?),
            MatcherKind::Method => Matcher::Method(self.method(argument)?),
            _ => Matcher::ClientIp(
                network(text).ok_or_else(|| self.not(argument, "an address such as 10.0.0.7, or 10.0.0.0/8"))?,
            ),
        })
    }

    fn pair(&self, kind: MatcherKind, key: &Argument, value: &Argument) -> Result<Matcher, BadRule> {
        let (name, text) = (key.text.as_str(), value.text.as_str());
        Ok(match kind {
            MatcherKind::Header => Matcher::Header(self.token(key)?, text.into()),
            MatcherKind::HeaderRegexp => Matcher::HeaderRegexp(self.token(key)?, self.regexp(value)?),
            MatcherKind::Query => Matcher::Query(name.into(), text.into()),
            MatcherKind::QueryRegexp => Matcher::QueryRegexp(name.into(), self.regexp(value)?),
            MatcherKind::Cookie if is_token(name) => Matcher::Cookie(name.into(), text.into()),
            MatcherKind::CookieRegexp if is_token(name) => Matcher::CookieRegexp(name.into(), self.regexp(value)?),
            _ => return Err(self.not(key, "the name of a cookie")),
        })
    }

    fn not(&self, argument: &Argument, expected: &str) -> BadRule {
        let what = format!("{:?} is not {expected}", shortened(&argument.text));
        BadRule { column: self.column(argument.at), what, unknown: None }
    }

    fn regexp(&self, argument: &Argument) -> Result<Regexp, BadRule> {
        if !self.tries_expressions {
            return Ok(Regexp::checked(&argument.text));
        }
        Regexp::new(&argument.text).map_err(|why| {
            let what = format!("{:?} is no regular expression: {why}", shortened(&argument.text));
            BadRule { column: self.column(argument.at), what, unknown: None }
        })
    }

    fn host(&self, argument: &Argument) -> Result<Box<str>, BadRule> {
        let host = argument.text.strip_suffix('.').unwrap_or(&argument.text).to_ascii_lowercase();
        let is_char = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.' | b':');
        let is_address = host.parse::<std::net::Ipv6Addr>().is_ok();
        let is_host = (1..=253).contains(&host.len())
            && host.bytes().all(is_char)
            && !host.starts_with('.')
            && (is_address || !host.contains(':'));
        if is_host {
            Ok(host.into())
        } else {
            Err(self.not(argument, "a host such as shop.example, without port and *"))
        }
    }

    fn path(&self, argument: &Argument) -> Result<Box<str>, BadRule> {
        let is_path = argument.text.starts_with('/') && !argument.text.contains(['?', '#']);
        let expected = "a path, which begins with / and has no query";
        if is_path { Ok(argument.text.as_str().into()) } else { Err(self.not(argument, expected)) }
    }

    fn method(&self, argument: &Argument) -> Result<Box<str>, BadRule> {
        let method = argument.text.to_ascii_uppercase();
        if is_token(&method) { Ok(method.into()) } else { Err(self.not(argument, "a method such as GET")) }
    }

    fn token(&self, argument: &Argument) -> Result<Box<str>, BadRule> {
        let name = argument.text.to_ascii_lowercase();
        if is_token(&name) { Ok(name.into()) } else { Err(self.not(argument, "the name of a header field")) }
    }
}

/// The matcher of this name, and whether that is an old one.
fn known(name: &str) -> Option<(MatcherKind, bool)> {
    let old = match name {
        "Headers" => Some(MatcherKind::Header),
        "HeadersRegexp" => Some(MatcherKind::HeaderRegexp),
        "HostHeader" => Some(MatcherKind::Host),
        _ => None,
    };
    old.map(|kind| (kind, true)).or_else(|| MatcherKind::of(name).map(|kind| (kind, false)))
}

fn takes_pair(kind: MatcherKind) -> bool {
    matches!(
        kind,
        MatcherKind::Header
            | MatcherKind::HeaderRegexp
            | MatcherKind::Query
            | MatcherKind::QueryRegexp
            | MatcherKind::Cookie
            | MatcherKind::CookieRegexp
    )
}

/// A token of HTTP (RFC 9110 section 5.6.2).
fn is_token(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte))
}

fn shortened(text: &str) -> String {
    let short: String = text.chars().take(60).collect();
    if short.len() < text.len() { format!("{short}...") } else { short }
}

/// The text in front of which a double quote stands, and how long it is with both. `\"` and `\\` stand for what follows the
/// backslash; before anything else it stands for itself, as expressions have many.
fn quoted(text: &str) -> Option<(String, usize)> {
    let (mut read, mut escaped) = (String::new(), false);
    for (at, letter) in text.char_indices().skip(1) {
        match (escaped, letter) {
            (true, '"' | '\\') => read.push(letter),
            (true, _) => read.extend(['\\', letter]),
            (false, '\\') => {
                escaped = true;
                continue;
            }
            (false, '"') => return Some((read, at + 1)),
            (false, _) => read.push(letter),
        }
        escaped = false;
    }
    None
}

/// The expression that version 2 wrote with braces, such as `{sub:[a-z]+}.shop.example` or `/items/{id}`; `None` where there are
/// none of its kind.
fn of_braces(text: &str, kind: MatcherKind) -> Option<String> {
    let any = if kind == MatcherKind::HostRegexp { "[^.]+" } else { "[^/]+" };
    let (mut expression, mut rest, mut found) = (String::from("^"), text, false);
    while let Some(open) = rest.find('{') {
        let inside = &rest[open + 1..];
        let close = closing(inside)?;
        let (name, wanted) = inside[..close].split_once(':').unwrap_or((&inside[..close], any));
        let is_name = name.starts_with(|c: char| c.is_ascii_alphabetic())
            && name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_');
        if !is_name {
            return None;
        }
        found = true;
        expression.push_str(&regex::escape(&rest[..open]));
        expression.push_str(&format!("(?:{wanted})"));
        rest = &inside[close + 1..];
    }
    expression.push_str(&regex::escape(rest));
    if kind != MatcherKind::PathPrefix {
        expression.push('$');
    }
    found.then_some(expression)
}

/// Where the brace is that closes one which was opened before.
fn closing(text: &str) -> Option<usize> {
    let mut depth = 0_u32;
    for (at, letter) in text.char_indices() {
        match letter {
            '{' => depth += 1,
            '}' if depth == 0 => return Some(at),
            '}' => depth -= 1,
            _ => {}
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::rule::arbitrary;

    fn written(text: &str) -> Result<String, String> {
        parse(text).map(|parsed| parsed.rule.to_string()).map_err(|bad| bad.to_string())
    }

    #[test]
    fn rules_are_read_as_they_are_written() {
        for (text, want) in [
            ("Host(`Shop.Example.`)", "Host(`shop.example`)"),
            (" Host( \"shop.example\" )&&PathPrefix(`/api`) ", "Host(`shop.example`) && PathPrefix(`/api`)"),
            ("Path(`/a`) || Path(`/b`) && Method(`get`)", "Path(`/a`) || (Path(`/b`) && Method(`GET`))"),
            ("!(Path(`/a`) || Path(`/b`))", "!(Path(`/a`) || Path(`/b`))"),
            ("((Path(`/a`)))", "Path(`/a`)"),
            ("Header(`X-User`, `a \"b\"`)", "Header(`x-user`, `a \"b\"`)"),
            ("Header(`x`, \"a`\\\"\\\\b\")", "Header(`x`, \"a`\\\"\\\\b\")"),
            ("PathRegexp(\"^/\\d+$\")", "PathRegexp(`^/\\d+$`)"),
            ("Query(`debug`)", "Query(`debug`, ``)"),
            ("Query(`a`, `b=c`)", "Query(`a`, `b=c`)"),
            ("Cookie(`beta`, `1`) && CookieRegexp(`user`, `^1`)", "Cookie(`beta`, `1`) && CookieRegexp(`user`, `^1`)"),
            ("ClientIP(`10.1.2.3`) || ClientIP(`10.1.2.3/8`)", "ClientIP(`10.1.2.3`) || ClientIP(`10.0.0.0/8`)"),
            ("ClientIP(`::ffff:10.1.2.3`)", "ClientIP(`10.1.2.3`)"),
            ("ClientIP(`::ffff:10.0.0.0/104`)", "ClientIP(`10.0.0.0/8`)"),
            ("HostSNI(`*`) || HostSNIRegexp(`^db`)", "HostSNI(`*`) || HostSNIRegexp(`^db`)"),
            ("HostRegexp(`^[a-z]{2,3}\\.shop`)", "HostRegexp(`^[a-z]{2,3}\\.shop`)"),
        ] {
            assert_eq!(written(text).as_deref(), Ok(want), "{text:?}");
        }
    }

    #[test]
    fn mistakes_have_their_column() {
        for (text, want) in [
            ("", "column 1: expected a matcher such as Host(`shop.example`) or PathPrefix(`/api`)"),
            ("Hots(`a`)", "column 1: Hots is no matcher"),
            ("Host", "column 5: expected ("),
            ("Host(a)", "column 6: expected a text between ` and `, or between double quotes"),
            ("Host(`a", "column 6: expected a text that ends with another `"),
            ("Host(\"a\\\")", "column 6: expected a text that ends with another double quote"),
            ("Host(`a` `b`)", "column 10: expected , or )"),
            ("Host()", "column 1: Host takes a text"),
            ("Host(`a`) Host(`b`)", "column 11: expected &&, || or the end"),
            ("Host(`a`) && ", "column 14: expected a matcher such as Host(`shop.example`) or PathPrefix(`/api`)"),
            ("(Host(`a`)", "column 11: expected &&, || or )"),
            ("Host(`*.shop`)", "column 6: \"*.shop\" is not a host such as shop.example, without port and *"),
            ("Host(`a.b:80`)", "column 6: \"a.b:80\" is not a host such as shop.example, without port and *"),
            ("Path(`api`)", "column 6: \"api\" is not a path, which begins with / and has no query"),
            ("Path(`/a?b`)", "column 6: \"/a?b\" is not a path, which begins with / and has no query"),
            ("Method(`G T`)", "column 8: \"G T\" is not a method such as GET"),
            ("Header(`a`)", "column 1: Header takes two texts, the name and the value"),
            ("Header(`a b`, `c`)", "column 8: \"a b\" is not the name of a header field"),
            ("ClientIP(`10.0.0.0/33`)", "column 10: \"10.0.0.0/33\" is not an address such as 10.0.0.7, or 10.0.0.0/8"),
            ("Path(`/ä`) && PathRegexp(`(`)", "column 26: \"(\" is no regular expression: unclosed group"),
        ] {
            assert_eq!(written(text), Err(want.to_owned()), "{text:?}");
        }
        assert!(parse(&format!("{}Path(`/`)", "!".repeat(17))).is_err());
        assert!(parse(&format!("Path(`/{}`)", "a".repeat(LONGEST))).is_err());
    }

    #[test]
    fn a_rule_that_was_checked_is_read_the_same_without_its_expressions_being_tried() {
        let text = "PathRegexp(`^/a`) && !HeaderRegexp(`x-a`, `b+`)";
        assert_eq!(parse_checked(text), parse(text).map(|parsed| parsed.rule));
        assert!(parse("PathRegexp(`(`)").is_err());
        assert_eq!(parse_checked("PathRegexp(`(`)").map(|rule| rule.to_string()), Ok("PathRegexp(`(`)".to_owned()));
        assert!(parse_checked("PathRegexp(`a`").is_err(), "all else is still asked for");
    }

    #[test]
    fn old_spellings_are_understood() {
        for (text, want, hints) in [
            ("Host(`a.b`, `c.d`)", "Host(`a.b`) || Host(`c.d`)", &[(1, "Host(`a.b`) || Host(`c.d`)")][..]),
            ("Path(`/`) && Headers(`a`, `b`)", "Path(`/`) && Header(`a`, `b`)", &[(14, "Header(`a`, `b`)")]),
            ("HeadersRegexp(`a`, `b`)", "HeaderRegexp(`a`, `b`)", &[(1, "HeaderRegexp(`a`, `b`)")]),
            ("HostHeader(`a`)", "Host(`a`)", &[(1, "Host(`a`)")]),
            ("Query(`a=b`)", "Query(`a`, `b`)", &[(1, "Query(`a`, `b`)")]),
            (
                "HostRegexp(`{sub:[a-z]{2}}.shop.example`)",
                "HostRegexp(`^(?:[a-z]{2})\\.shop\\.example$`)",
                &[(12, "HostRegexp(`^(?:[a-z]{2})\\.shop\\.example$`)")],
            ),
            ("PathPrefix(`/i/{id}/x`)", "PathRegexp(`^/i/(?:[^/]+)/x`)", &[(12, "PathRegexp(`^/i/(?:[^/]+)/x`)")]),
            ("Path(`/i/{id:[0-9]+}`)", "PathRegexp(`^/i/(?:[0-9]+)$`)", &[(6, "PathRegexp(`^/i/(?:[0-9]+)$`)")]),
        ] {
            let parsed = parse(text).unwrap_or_else(|bad| panic!("{text}: {bad}"));
            assert_eq!(parsed.rule.to_string(), want, "{text}");
            let said: Vec<_> = parsed.hints.iter().map(|hint| (hint.column, hint.now.as_str())).collect();
            assert_eq!(said, hints, "{text}");
        }
    }

    #[test]
    fn a_rule_may_be_followed_by_something() {
        let parsed = parse_until("Path(`/a=>b`) => web", Some("=>")).expect("a rule");
        assert_eq!((parsed.rule.to_string().as_str(), parsed.bytes), ("Path(`/a=>b`)", 14));
        assert_eq!(parse_until("Path(`/a`) web", Some("=>")).expect_err("bad").column, 12);
    }

    proptest! {
        #[test]
        fn what_is_written_is_read(rule in arbitrary()) {
            let text = rule.to_string();
            let parsed = parse(&text).map_err(|bad| TestCaseError::fail(format!("{text}: {bad}")))?;
            prop_assert_eq!(parsed.rule.to_string(), text);
            prop_assert!(parsed.hints.is_empty(), "{:?}", parsed.hints);
        }

        #[test]
        fn any_text_is_a_rule_or_a_mistake(text in "[`\"(){}!&|,A-Za-z/.* ]{0,60}") {
            if let Ok(parsed) = parse(&text) {
                prop_assert!(parse(&parsed.rule.to_string()).is_ok());
            }
        }
    }
}
