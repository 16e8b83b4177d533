//! What `maesh explain` is asked about: a name, or a request as somebody would give it to curl.

use std::net::IpAddr;

use http::{HeaderName, HeaderValue, Method, header, uri::PathAndQuery};
use maesh_proxy::explain::{Sent, SentRequest};

use super::{ExplainArgs, parse};
use crate::explain::sent;

/// What is asked about: a name, and the port where it was written with one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Asked {
    /// The name, without anything around it.
    pub name: String,
    /// The port written behind it, or that of the URL's scheme.
    pub port: Option<u16>,
    /// What else a URL says.
    pub url: Option<Url>,
}

/// The parts of a URL that a request has.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Url {
    scheme: String,
    /// Name and port as written: `Host`.
    authority: String,
    /// Path and query.
    target: PathAndQuery,
}

impl Asked {
    /// Reads a name, `NAME:PORT` or a URL. The scheme's port counts only where a path could not be meant otherwise: a URL.
    pub(super) fn parse(written: &str) -> Result<Self, String> {
        let (scheme, rest) = match written.split_once("://") {
            Some((scheme, rest)) => (Some(scheme.to_ascii_lowercase()), rest),
            None => (None, written),
        };
        let (authority, behind) = match scheme {
            Some(_) => rest.split_at(rest.find(['/', '?', '#']).unwrap_or(rest.len())),
            None => (rest, ""),
        };
        let authority =
            if scheme.is_some() { authority.rsplit_once('@').map_or(authority, |(_, host)| host) } else { authority };
        let usual = match scheme.as_deref() {
            Some("http" | "ws") => Some(80),
            Some("https" | "wss") => Some(443),
            Some(no @ ("ftp" | "ftps" | "file")) => {
                return Err(format!(
                    "the mesh does not carry {no}://; write http://web.shop.maesh, or a name with its port: {authority}:PORT"
                ));
            }
            _ => None,
        };
        let (name, port) = host_and_port(written, authority)?;
        parse::name(name)?;
        let url = match scheme {
            Some(scheme) => Some(Url { scheme, authority: authority.to_owned(), target: target(behind)? }),
            None => None,
        };
        Ok(Self { name: name.to_owned(), port: port.or(usual), url })
    }
}

fn host_and_port<'a>(written: &str, authority: &'a str) -> Result<(&'a str, Option<u16>), String> {
    if let Some(address) = authority.strip_prefix('[') {
        let (address, port) = address.split_once(']').ok_or_else(|| format!("{written:?} lacks the closing ]"))?;
        return Ok((address, port.strip_prefix(':').map(|port| number(written, port)).transpose()?));
    }
    match authority.split_once(':') {
        // An IPv6 address has several.
        Some((name, port)) if !port.contains(':') => Ok((name, Some(number(written, port)?))),
        _ => Ok((authority, None)),
    }
}

fn number(written: &str, port: &str) -> Result<u16, String> {
    let number = port.parse().ok().filter(|port| *port > 0);
    number.ok_or_else(|| format!("{port:?} in {written:?} is no port; ports are 1 to 65535"))
}

/// Path and query of what stands behind the host. What comes after `#` is not sent.
fn target(behind: &str) -> Result<PathAndQuery, String> {
    let sent = behind.split('#').next().unwrap_or_default();
    let target = if sent.starts_with('/') { sent.to_owned() } else { format!("/{sent}") };
    PathAndQuery::try_from(target.as_str()).map_err(|_| {
        format!("{target:?} cannot be the path of a request; encode what is no letter or digit: %20 for a space")
    })
}

/// The method of a request.
pub(super) fn method(text: &str) -> Result<Method, String> {
    match Method::from_bytes(text.as_bytes()) {
        Ok(method) if !text.contains(|c: char| c.is_ascii_lowercase() || ".:".contains(c)) => Ok(method),
        Ok(_) if text.bytes().all(|byte| byte.is_ascii_alphabetic()) => {
            Err(format!("methods are written in capitals: {}", text.to_ascii_uppercase()))
        }
        _ => Err("it is no method; write one such as POST before the URL, and only one URL".to_owned()),
    }
}

/// A port of a Service.
pub(super) fn port(text: &str) -> Result<u16, String> {
    let number = text.parse().ok().filter(|port| *port > 0);
    number.ok_or_else(|| "write the number of the Service's port, 1 to 65535; its name does not do".to_owned())
}

/// The server name of TLS.
pub(super) fn server_name(text: &str) -> Result<String, String> {
    if text.contains('/') || text.parse::<IpAddr>().is_ok() {
        return Err("write the name that a caller of TLS says (SNI), such as db.example; it is no address".to_owned());
    }
    parse::name(text).map(|()| text.to_owned())
}

impl ExplainArgs {
    /// What is sent, if the command line says that.
    ///
    /// # Errors
    /// When its parts do not go together.
    pub fn sent(&self) -> Result<Option<Sent>, String> {
        let scheme = self.name.url.as_ref().map(|url| url.scheme.as_str());
        let sent = match scheme {
            Some(scheme @ ("https" | "wss" | "tls")) => {
                self.is_no_request(scheme, "the mesh does not open TLS, so no rule sees the request in it")?;
                let named = Some(&self.name.name).filter(|name| name.parse::<IpAddr>().is_err());
                Some(Sent::Stream(self.server_name.as_ref().or(named).cloned()))
            }
            Some(scheme @ ("tcp" | "udp")) => {
                self.is_no_request(scheme, "it carries no request of HTTP")?;
                self.has_no_server_name()?;
                Some(Sent::Stream(None))
            }
            Some("http" | "ws") => Some(self.request()?),
            _ if self.method.is_some() || !self.fields.is_empty() => Some(self.request()?),
            _ => self.has_no_server_name().map(|()| None)?,
        };
        match sent.as_ref().map(sent::length) {
            Some(length) if length > MOST_SENT => Err(format!(
                "the request has {length} bytes once it is encoded, and {MOST_SENT} can be asked about; leave fields away that \
                 no rule asks for"
            )),
            _ => Ok(sent),
        }
    }

    fn request(&self) -> Result<Sent, String> {
        self.has_no_server_name()?;
        let said = self.fields.iter().any(|(name, _)| *name == header::HOST);
        let url = self.name.url.as_ref();
        let host = url.filter(|_| !said).and_then(|url| HeaderValue::from_str(&url.authority).ok());
        let fields = host.map(|host| (header::HOST, host)).into_iter().chain(self.fields.iter().cloned());
        let target = url.map_or_else(|| PathAndQuery::from_static("/"), |url| url.target.clone());
        let request = SentRequest::new(self.method.clone().unwrap_or(Method::GET), target, fields);
        request.map(Sent::Request).map_err(|why| format!("{why}; leave some -H away"))
    }

    fn is_no_request(&self, scheme: &str, why: &str) -> Result<(), String> {
        let given = match (&self.method, self.fields.first()) {
            (Some(method), _) => format!("METHOD is {method}"),
            (None, Some((name, _))) => format!("-H has the field {name}"),
            (None, None) => return Ok(()),
        };
        Err(format!("{given}, and the URL is of {scheme}://: {why}; leave METHOD and -H away, or write http://"))
    }

    fn has_no_server_name(&self) -> Result<(), String> {
        match &self.server_name {
            Some(name) => {
                Err(format!("--server-name is {name}, which only TLS says; write the URL as tls://HOST:PORT"))
            }
            None => Ok(()),
        }
    }
}

/// Room for what is sent in a question; the rest is for the name and the caller.
const MOST_SENT: usize = sent::LONGEST - 2_000;

/// A field of a request.
pub(super) fn field(text: &str) -> Result<(HeaderName, HeaderValue), String> {
    sent::field(text)
}

#[cfg(test)]
mod tests {
    use clap::Parser as _;

    use super::*;
    use crate::args::{Cli, Command};

    #[test]
    fn names_with_what_people_paste_around_them() {
        for (written, name, port, url) in [
            ("web.shop.maesh", "web.shop.maesh", None, None),
            ("web.shop.maesh.", "web.shop.maesh.", None, None),
            ("shop/web", "shop/web", None, None),
            ("web.shop.maesh:8080", "web.shop.maesh", Some(8080), None),
            ("shop/web:8080", "shop/web", Some(8080), None),
            (
                "http://web.shop.maesh:8080/path",
                "web.shop.maesh",
                Some(8080),
                Some(("http", "web.shop.maesh:8080", "/path")),
            ),
            (
                "HTTP://web.shop.maesh/path?a=b:c#d",
                "web.shop.maesh",
                Some(80),
                Some(("http", "web.shop.maesh", "/path?a=b:c")),
            ),
            ("http://web.shop?a=b", "web.shop", Some(80), Some(("http", "web.shop", "/?a=b"))),
            ("https://web.shop.maesh", "web.shop.maesh", Some(443), Some(("https", "web.shop.maesh", "/"))),
            ("grpc://web.shop.maesh", "web.shop.maesh", None, Some(("grpc", "web.shop.maesh", "/"))),
            ("tls://db.shop.maesh:5432", "db.shop.maesh", Some(5432), Some(("tls", "db.shop.maesh:5432", "/"))),
            ("http://user@web.shop.maesh", "web.shop.maesh", Some(80), Some(("http", "web.shop.maesh", "/"))),
            ("http://[fd00::1]:81/", "fd00::1", Some(81), Some(("http", "[fd00::1]:81", "/"))),
            ("[fd00::1]", "fd00::1", None, None),
            ("fd00::1", "fd00::1", None, None),
        ] {
            let url = url.map(|(scheme, authority, target)| Url {
                scheme: scheme.into(),
                authority: authority.into(),
                target: target.parse().expect("a target"),
            });
            assert_eq!(Asked::parse(written), Ok(Asked { name: name.into(), port, url }), "{written}");
        }
        for (written, why) in [
            ("web:http", "\"http\""),
            ("web:0", "1 to 65535"),
            ("http:///path", "no name"),
            ("[fd00::1", "closing"),
            ("ftp://web.shop.maesh", "does not carry ftp"),
            ("http://web.shop.maesh/a b", "\"/a b\" cannot be the path of a request; encode"),
            ("//", "not a name"),
            ("", "no name"),
        ] {
            assert!(Asked::parse(written).expect_err(written).contains(why), "{written}");
        }
    }

    fn parsed(arguments: &[&str]) -> ExplainArgs {
        let cli = Cli::try_parse_from(["maesh", "explain"].iter().chain(arguments));
        match cli.unwrap_or_else(|error| panic!("{arguments:?}: {error}")).command {
            Command::Explain(args) => args,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn what_is_sent() {
        let request = |text: &str| (format!("request {text}"), None);
        let stream = |name: &str| (format!("stream {name}"), None);
        let nothing = || ("nothing".to_owned(), None);
        let wrong = |why: &'static str| ("wrong".to_owned(), Some(why));
        let long = format!("x: {}", "%".repeat(25_000));
        for (arguments, (want, why)) in [
            (&["web.shop"][..], nothing()),
            (&["grpc://web.shop"], nothing()),
            (&["http://web.shop:81/a?b"], request("GET /a?b host=web.shop:81")),
            (&["POST", "http://web.shop/", "-H", "A: b"], request("POST / host=web.shop a=b")),
            (&["-H", "Cookie:a=b", "-H", "cookie: c=d", "web.shop"], request("GET / cookie=a=b cookie=c=d")),
            (&["http://web.shop/", "--header", "Host: shop.example"], request("GET / host=shop.example")),
            (&["DELETE", "shop/web"], request("DELETE /")),
            (&["tls://db.shop:5432"], stream("Some(\"db.shop\")")),
            (&["https://web.shop/path"], stream("Some(\"web.shop\")")),
            (&["tls://db.shop:5432", "--server-name", "db.example"], stream("Some(\"db.example\")")),
            (&["tls://10.0.0.1:5432"], stream("None")),
            (&["tcp://db.shop:5432"], stream("None")),
            (&["POST", "https://web.shop/"], wrong("METHOD is POST, and the URL is of https://")),
            (&["tcp://db.shop:5432", "-H", "a: b"], wrong("-H has the field a, and the URL is of tcp://")),
            (&["http://web.shop", "--server-name", "a.b"], wrong("--server-name is a.b")),
            (&["web.shop", "--server-name", "a.b"], wrong("write the URL as tls://HOST:PORT")),
            (&["GET", "http://web.shop", "-H", &long], wrong("leave fields away that no rule asks for")),
        ] {
            let sent = parsed(arguments).sent();
            let said = match &sent {
                Ok(None) => "nothing".to_owned(),
                Ok(Some(Sent::Stream(name))) => format!("stream {name:?}"),
                Ok(Some(Sent::Request(request))) => {
                    let fields = request.fields().iter();
                    let fields = fields.map(|(name, value)| format!(" {name}={}", value.to_str().expect("text")));
                    format!("request {} {}{}", request.method(), request.target(), fields.collect::<String>())
                }
                Err(_) => "wrong".to_owned(),
            };
            assert_eq!(said, want, "{arguments:?}");
            let message = sent.err().unwrap_or_default();
            assert!(message.contains(why.unwrap_or_default()), "{arguments:?}: {message}");
        }
    }
}
