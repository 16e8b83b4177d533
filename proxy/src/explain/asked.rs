//! What is asked about: a Service as a caller names it, and what the caller sends there.

use std::net::{IpAddr, Ipv4Addr};

use http::{HeaderMap, HeaderName, HeaderValue, Method, Request, header, request, uri::PathAndQuery};

use crate::{config::Limits, host::Host};

/// A request that somebody might make.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Question {
    /// The name that is called: its `Host`, or the server name of its TLS.
    pub host: String,
    /// Who makes it.
    pub caller: Option<IpAddr>,
    /// The Service's port; `None` for all of them.
    pub port: Option<u16>,
    /// What is sent, if that is asked about.
    pub sent: Option<Sent>,
}

/// What a caller sends.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Sent {
    /// A request of HTTP, without TLS.
    Request(SentRequest),
    /// A stream of TLS with this server name; `None` is one without TLS, in another protocol than HTTP.
    Stream(Option<String>),
}

/// The head of a request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SentRequest {
    method: Method,
    target: PathAndQuery,
    fields: HeaderMap,
}

/// A request that no proxy takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TooLarge {
    /// Its fields are too many.
    #[error("a request has {most} fields at most, and this one has more")]
    Fields {
        /// As many as are allowed.
        most: usize,
    },
    /// It is too long.
    #[error("the head of a request has {most} bytes at most, and this one has more")]
    Head {
        /// As many as are allowed.
        most: usize,
    },
}

impl SentRequest {
    /// A request with these fields. `Host` is the name that is called, unless it is among them.
    ///
    /// # Errors
    /// When its head is larger than a proxy takes.
    pub fn new(
        method: Method,
        target: PathAndQuery,
        fields: impl IntoIterator<Item = (HeaderName, HeaderValue)>,
    ) -> Result<Self, TooLarge> {
        let Limits { head: most_bytes, fields: most_fields, .. } = Limits::default();
        let mut taken = HeaderMap::new();
        let mut bytes = method.as_str().len() + target.as_str().len();
        for (number, (name, value)) in fields.into_iter().enumerate() {
            bytes += name.as_str().len() + value.len();
            if number >= most_fields {
                return Err(TooLarge::Fields { most: most_fields });
            }
            if bytes > most_bytes {
                break;
            }
            taken.append(name, value);
        }
        if bytes > most_bytes {
            return Err(TooLarge::Head { most: most_bytes });
        }
        Ok(Self { method, target, fields: taken })
    }

    /// Its method.
    pub fn method(&self) -> &Method {
        &self.method
    }

    /// Path and query.
    pub fn target(&self) -> &PathAndQuery {
        &self.target
    }

    /// Its fields.
    pub fn fields(&self) -> &HeaderMap {
        &self.fields
    }

    /// Its head as it arrives in HTTP/1.1, at the name `host` unless it says another.
    pub(super) fn head(&self, host: &str) -> request::Parts {
        let (mut head, ()) = Request::new(()).into_parts();
        head.method = self.method.clone();
        head.uri = self.target.clone().into();
        head.headers = self.fields.clone();
        if let (false, Ok(host)) = (head.headers.contains_key(header::HOST), HeaderValue::from_str(host)) {
            head.headers.insert(header::HOST, host);
        }
        head
    }
}

impl Question {
    /// The caller's address; one that nobody has where it is not known.
    pub(super) fn address(&self) -> IpAddr {
        self.caller.unwrap_or(IpAddr::V4(Ipv4Addr::UNSPECIFIED)).to_canonical()
    }

    /// The server name of TLS, if it says one.
    pub(super) fn server_name(&self) -> Option<&str> {
        match &self.sent {
            Some(Sent::Stream(name)) => name.as_deref(),
            Some(Sent::Request(_)) | None => None,
        }
    }

    /// The name by which shared ports find the Service: what the request or TLS says, else the name that is called. So too for
    /// a name of one label: its meaning depends on the caller's namespace, which this proxy may not know.
    pub(super) fn shared_host(&self) -> &str {
        let said = match &self.sent {
            Some(Sent::Request(request)) => {
                request.fields.get(header::HOST).map(|host| host.to_str().unwrap_or_default())
            }
            Some(Sent::Stream(name)) => name.as_deref(),
            None => None,
        };
        let has_one_label = |host: &&str| Host::parse(host.as_bytes()).is_some_and(|host| host.is_one_label());
        said.filter(|host| !has_one_label(host)).unwrap_or(&self.host)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn request(target: &str, fields: &[(&'static str, &'static str)]) -> Result<SentRequest, TooLarge> {
        let fields =
            fields.iter().map(|(name, value)| (HeaderName::from_static(name), HeaderValue::from_static(value)));
        SentRequest::new(Method::GET, target.parse().expect("a target"), fields)
    }

    #[test]
    fn a_head_as_it_arrives() {
        for (case, fields, host) in [
            ("no Host is said", &[("cookie", "a=1"), ("cookie", "b=2")][..], "web.shop.maesh"),
            ("another Host is said", &[("host", "shop.example")], "shop.example"),
        ] {
            let head = request("/a?b=c", fields).expect("small").head("web.shop.maesh");
            assert_eq!(head.headers.get_all(header::HOST).iter().collect::<Vec<_>>(), [host], "{case}");
            assert_eq!((head.uri.path(), head.uri.query()), ("/a", Some("b=c")), "{case}");
            let others = fields.iter().filter(|(name, _)| *name != "host").count();
            assert_eq!(head.headers.len(), others + 1, "{case}: repeated fields stay");
        }
    }

    #[test]
    fn what_no_proxy_takes_is_refused() {
        let long: &'static str = "x".repeat(60_000).leak();
        for (case, fields, want) in [
            ("as many fields as are allowed", vec![("a", "b"); 128], None),
            ("one more", vec![("a", "b"); 129], Some("128 fields at most")),
            ("a long field", vec![("a", long)], None),
            ("two of them", vec![("a", long), ("b", long)], Some("65536 bytes at most")),
        ] {
            let said = request("/", &fields).err().map(|why| why.to_string());
            assert_eq!(said.is_some(), want.is_some(), "{case}: {said:?}");
            assert!(want.is_none_or(|want| said.as_ref().is_some_and(|said| said.contains(want))), "{case}: {said:?}");
        }
    }

    #[test]
    fn the_name_by_which_a_shared_port_finds_the_service() {
        let with_host = |host| Some(Sent::Request(request("/", &[("host", host)]).expect("small")));
        let tls = |name: Option<&str>| Some(Sent::Stream(name.map(str::to_owned)));
        for (case, sent, want) in [
            ("nothing is asked", None, "web.shop.maesh"),
            ("no Host", Some(Sent::Request(request("/", &[]).expect("small"))), "web.shop.maesh"),
            ("a Host", with_host("shop.example:8080"), "shop.example:8080"),
            ("a Host of one label", with_host("web:8080"), "web.shop.maesh"),
            ("a Host that cannot be one", with_host("a b"), "a b"),
            ("TLS", tls(Some("db.example")), "db.example"),
            ("no TLS", tls(None), "web.shop.maesh"),
        ] {
            let question = Question { host: "web.shop.maesh".into(), sent, ..Question::default() };
            assert_eq!(question.shared_host(), want, "{case}");
        }
    }
}
