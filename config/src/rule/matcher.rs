//! One thing that a rule asks of a request or connection.

use std::{fmt, net::IpAddr};

use ipnet::IpNet;

/// One thing that a rule asks.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Matcher {
    /// `Host` is this name, in small letters and without port.
    Host(Box<str>),
    /// `Host`, in that form, contains what the expression describes.
    HostRegexp(Regexp),
    /// The server name of TLS is this one, in small letters; `*` is any or none.
    HostSni(Box<str>),
    /// The server name of TLS contains what the expression describes.
    HostSniRegexp(Regexp),
    /// The path is this one.
    Path(Box<str>),
    /// The path begins with this.
    PathPrefix(Box<str>),
    /// The path contains what the expression describes.
    PathRegexp(Regexp),
    /// The method is this one, in capitals.
    Method(Box<str>),
    /// A field of this name, in small letters, has just this value.
    Header(Box<str>, Box<str>),
    /// A field of this name has a value that contains what the expression describes.
    HeaderRegexp(Box<str>, Regexp),
    /// The query has this key with just this value.
    Query(Box<str>, Box<str>),
    /// The query has this key with a value that contains what the expression describes.
    QueryRegexp(Box<str>, Regexp),
    /// A cookie of this name has just this value.
    Cookie(Box<str>, Box<str>),
    /// A cookie of this name has a value that contains what the expression describes.
    CookieRegexp(Box<str>, Regexp),
    /// The caller's address is in this network.
    ClientIp(IpNet),
}

/// The name of a matcher.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum MatcherKind {
    /// [`Matcher::Host`]
    Host,
    /// [`Matcher::HostRegexp`]
    HostRegexp,
    /// [`Matcher::HostSni`]
    HostSni,
    /// [`Matcher::HostSniRegexp`]
    HostSniRegexp,
    /// [`Matcher::Path`]
    Path,
    /// [`Matcher::PathPrefix`]
    PathPrefix,
    /// [`Matcher::PathRegexp`]
    PathRegexp,
    /// [`Matcher::Method`]
    Method,
    /// [`Matcher::Header`]
    Header,
    /// [`Matcher::HeaderRegexp`]
    HeaderRegexp,
    /// [`Matcher::Query`]
    Query,
    /// [`Matcher::QueryRegexp`]
    QueryRegexp,
    /// [`Matcher::Cookie`]
    Cookie,
    /// [`Matcher::CookieRegexp`]
    CookieRegexp,
    /// [`Matcher::ClientIp`]
    ClientIp,
}

impl MatcherKind {
    /// All of them, as they are written.
    pub const ALL: [(Self, &'static str); 15] = [
        (Self::Host, "Host"),
        (Self::HostRegexp, "HostRegexp"),
        (Self::HostSni, "HostSNI"),
        (Self::HostSniRegexp, "HostSNIRegexp"),
        (Self::Path, "Path"),
        (Self::PathPrefix, "PathPrefix"),
        (Self::PathRegexp, "PathRegexp"),
        (Self::Method, "Method"),
        (Self::Header, "Header"),
        (Self::HeaderRegexp, "HeaderRegexp"),
        (Self::Query, "Query"),
        (Self::QueryRegexp, "QueryRegexp"),
        (Self::Cookie, "Cookie"),
        (Self::CookieRegexp, "CookieRegexp"),
        (Self::ClientIp, "ClientIP"),
    ];

    /// As it is written.
    pub fn name(self) -> &'static str {
        Self::ALL.iter().find(|(kind, _)| *kind == self).map_or("", |(_, name)| name)
    }

    /// The one that is written like this.
    pub fn of(name: &str) -> Option<Self> {
        Self::ALL.iter().find(|(_, known)| *known == name).map(|(kind, _)| *kind)
    }

    /// Whether connections of TCP have what it asks for.
    pub fn is_of_connections(self) -> bool {
        matches!(self, Self::HostSni | Self::HostSniRegexp | Self::ClientIp)
    }

    /// Whether requests of HTTP have what it asks for.
    pub fn is_of_requests(self) -> bool {
        !matches!(self, Self::HostSni | Self::HostSniRegexp)
    }
}

impl Matcher {
    /// Its name.
    pub fn kind(&self) -> MatcherKind {
        match self {
            Self::Host(_) => MatcherKind::Host,
            Self::HostRegexp(_) => MatcherKind::HostRegexp,
            Self::HostSni(_) => MatcherKind::HostSni,
            Self::HostSniRegexp(_) => MatcherKind::HostSniRegexp,
            Self::Path(_) => MatcherKind::Path,
            Self::PathPrefix(_) => MatcherKind::PathPrefix,
            Self::PathRegexp(_) => MatcherKind::PathRegexp,
            Self::Method(_) => MatcherKind::Method,
            Self::Header(..) => MatcherKind::Header,
            Self::HeaderRegexp(..) => MatcherKind::HeaderRegexp,
            Self::Query(..) => MatcherKind::Query,
            Self::QueryRegexp(..) => MatcherKind::QueryRegexp,
            Self::Cookie(..) => MatcherKind::Cookie,
            Self::CookieRegexp(..) => MatcherKind::CookieRegexp,
            Self::ClientIp(_) => MatcherKind::ClientIp,
        }
    }

    /// Whether it has an expression.
    pub fn has_expression(&self) -> bool {
        matches!(
            self.kind(),
            MatcherKind::HostRegexp
                | MatcherKind::HostSniRegexp
                | MatcherKind::PathRegexp
                | MatcherKind::HeaderRegexp
                | MatcherKind::QueryRegexp
                | MatcherKind::CookieRegexp
        )
    }

    /// What stands between its parentheses.
    fn arguments(&self) -> (String, Option<&str>) {
        match self {
            Self::Host(text) | Self::HostSni(text) | Self::Path(text) | Self::PathPrefix(text) | Self::Method(text) => {
                (text.to_string(), None)
            }
            Self::HostRegexp(it) | Self::HostSniRegexp(it) | Self::PathRegexp(it) => (it.to_string(), None),
            Self::Header(name, value) | Self::Query(name, value) | Self::Cookie(name, value) => {
                (name.to_string(), Some(value))
            }
            Self::HeaderRegexp(name, it) | Self::QueryRegexp(name, it) | Self::CookieRegexp(name, it) => {
                (name.to_string(), Some(it.as_str()))
            }
            Self::ClientIp(net) => (shown(net), None),
        }
    }
}

/// An address alone, or a network.
fn shown(net: &IpNet) -> String {
    if net.prefix_len() == net.max_prefix_len() { net.addr().to_string() } else { net.to_string() }
}

/// Reads an address, or a network in CIDR form.
pub(super) fn network(text: &str) -> Option<IpNet> {
    let net = match text.parse::<IpAddr>() {
        Ok(address) => IpNet::from(address.to_canonical()),
        Err(_) => crate::canonical(text.parse().ok()?),
    };
    Some(net.trunc())
}

impl fmt::Display for Matcher {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (first, second) = self.arguments();
        write!(f, "{}({}", self.kind().name(), Quoted(&first))?;
        if let Some(second) = second {
            write!(f, ", {}", Quoted(second))?;
        }
        f.write_str(")")
    }
}

/// A text between backquotes, or between double quotes where it has a backquote.
struct Quoted<'a>(&'a str);

impl fmt::Display for Quoted<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.0.contains('`') {
            write!(f, "\"{}\"", self.0.replace('\\', "\\\\").replace('"', "\\\""))
        } else {
            write!(f, "`{}`", self.0)
        }
    }
}

/// Bytes that an expression may need.
const LARGEST: usize = 64 * 1024;

/// A regular expression that was read and found good, here or by who wrote it down. It may match anywhere in a text, unless it begins with `^` and ends
/// with `$`.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Regexp(Box<str>);

impl Regexp {
    /// Reads an expression. Its cost has a bound: look-ahead and back references are not of this language, and what would need
    /// more than 64 KiB is refused.
    ///
    /// # Errors
    /// What is wrong with it, for people.
    pub fn new(text: &str) -> Result<Self, String> {
        let read = Self(text.into());
        read.compiled().map(|_| read).map_err(|error| match error {
            regex::Error::CompiledTooBig(_) => "it is too large".to_owned(),
            // The last line says what is wrong; those before draw where.
            other => {
                let text = other.to_string();
                let last = text.lines().last().unwrap_or_default();
                last.trim_start_matches("error: ").to_owned()
            }
        })
    }

    /// An expression that was found good before.
    pub(super) fn checked(text: &str) -> Self {
        Self(text.into())
    }

    /// What finds it in a text.
    ///
    /// # Errors
    /// Another version of the library refuses it.
    pub fn compiled(&self) -> Result<regex::Regex, regex::Error> {
        regex::RegexBuilder::new(&self.0).size_limit(LARGEST).nest_limit(32).build()
    }

    /// As it was written.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Regexp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
pub(super) fn arbitrary() -> impl proptest::strategy::Strategy<Value = Matcher> {
    use proptest::prelude::*;
    let regexp = || "[a-z.*+^$`\"]{1,8}".prop_filter_map("an expression", |text| Regexp::new(&text).ok());
    let value = || "[ -~]{0,8}".prop_map(Box::<str>::from);
    let name = || "[a-z][a-z0-9-]{0,6}".prop_map(Box::<str>::from);
    let path = || "/[a-z0-9%./`_-]{0,8}".prop_map(Box::<str>::from);
    prop_oneof![
        name().prop_map(Matcher::Host),
        regexp().prop_map(Matcher::HostRegexp),
        name().prop_map(Matcher::HostSni),
        Just(Matcher::HostSni("*".into())),
        regexp().prop_map(Matcher::HostSniRegexp),
        path().prop_map(Matcher::Path),
        path().prop_map(Matcher::PathPrefix),
        regexp().prop_map(Matcher::PathRegexp),
        "[A-Z]{1,6}".prop_map(|text| Matcher::Method(text.into())),
        (name(), value()).prop_map(|(name, value)| Matcher::Header(name, value)),
        (name(), regexp()).prop_map(|(name, it)| Matcher::HeaderRegexp(name, it)),
        (value(), value()).prop_map(|(name, value)| Matcher::Query(name, value)),
        (value(), regexp()).prop_map(|(name, it)| Matcher::QueryRegexp(name, it)),
        (name(), value()).prop_map(|(name, value)| Matcher::Cookie(name, value)),
        (name(), regexp()).prop_map(|(name, it)| Matcher::CookieRegexp(name, it)),
        (any::<IpAddr>(), 0..=32_u8).prop_map(|(address, length)| {
            Matcher::ClientIp(IpNet::new(address.to_canonical(), length).expect("a network").trunc())
        }),
    ]
}
