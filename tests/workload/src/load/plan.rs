//! What one client is to do, as a person writes it.

use std::str::FromStr;

/// `KIND RATE HOST:PORT [plain=HOST:PORT] [dns=fresh|libc]`, separated by spaces.
///
/// KIND is `http1`, `h2c` (each request on a connection of its own), `http1-kept`, `h2c-kept` (connections are used
/// again), `tcp` (a connection per exchange), or `websocket`, `stream`: then RATE is the number of connections that are
/// held open, with an exchange a second on each. `plain` is tried when the DNS does not serve the name. Addresses are
/// kept for their TTL unless `dns=fresh`; with `dns=libc` the C library is asked every time, whichever it is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Plan {
    pub(crate) kind: Kind,
    pub(crate) rate: u32,
    pub(crate) target: Target,
    pub(crate) plain: Option<Target>,
    pub(crate) names: Names,
    /// As it was written, for the log.
    pub(crate) text: String,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    Http1,
    Http1Kept,
    H2c,
    H2cKept,
    Tcp,
    WebSocket,
    Stream,
}

/// How names become addresses.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Names {
    /// Kept for their TTL.
    Kept,
    /// Asked for every time.
    Fresh,
    /// By the C library, every time.
    Library,
}

/// A name and a port.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Target {
    pub(crate) host: String,
    pub(crate) port: u16,
}

impl Target {
    /// As it stands in `Host`.
    pub(crate) fn authority(&self) -> String {
        if self.port == 80 { self.host.clone() } else { format!("{}:{}", self.host, self.port) }
    }
}

impl FromStr for Target {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let parsed = text.rsplit_once(':').and_then(|(host, port)| Some((host, port.parse().ok()?)));
        let (host, port) = parsed.ok_or_else(|| format!("{text:?} is no HOST:PORT"))?;
        Ok(Self { host: host.to_owned(), port })
    }
}

impl FromStr for Plan {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let mut words = text.split_whitespace();
        let kind = match words.next() {
            Some("http1") => Kind::Http1,
            Some("http1-kept") => Kind::Http1Kept,
            Some("h2c") => Kind::H2c,
            Some("h2c-kept") => Kind::H2cKept,
            Some("tcp") => Kind::Tcp,
            Some("websocket") => Kind::WebSocket,
            Some("stream") => Kind::Stream,
            other => return Err(format!("{other:?} is no kind of load")),
        };
        let rate = words.next().and_then(|word| word.parse().ok()).filter(|rate| (1..=1000).contains(rate));
        let rate = rate.ok_or_else(|| format!("{text:?} has no rate from 1 to 1000"))?;
        let target = words.next().ok_or_else(|| format!("{text:?} has no HOST:PORT"))?.parse()?;
        let mut plan = Self { kind, rate, target, plain: None, names: Names::Kept, text: text.to_owned() };
        for word in words {
            match word.split_once('=') {
                Some(("plain", target)) => plan.plain = Some(target.parse()?),
                Some(("dns", "fresh")) => plan.names = Names::Fresh,
                Some(("dns", "libc")) => plan.names = Names::Library,
                _ => return Err(format!("{word:?} is not known")),
            }
        }
        Ok(plan)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn plans_are_read() {
        let target = |host: &str, port| Target { host: host.to_owned(), port };
        let plan: Plan = "h2c-kept 20 web.shop.maesh:80 plain=web.shop:80 dns=fresh".parse().unwrap();
        assert_eq!((plan.kind, plan.rate, plan.names), (Kind::H2cKept, 20, Names::Fresh));
        assert_eq!((plan.target, plan.plain), (target("web.shop.maesh", 80), Some(target("web.shop", 80))));
        for bad in ["", "http3 1 a:1", "tcp 0 a:1", "tcp 1 a", "tcp 1 a:99999", "tcp 1 a:1 dns=old"] {
            assert!(bad.parse::<Plan>().is_err(), "{bad:?}");
        }
    }
}
