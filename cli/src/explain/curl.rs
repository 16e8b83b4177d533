//! The request that was asked about, as a command of curl.

use std::borrow::Cow;

use http::{Method, header};
use maesh_proxy::explain::{Sent, SentRequest};

/// The command that sends it to `at`, an authority. `name` is the mesh name asked about; `is_address`: `at` does not say it.
pub fn command(at: &str, name: &str, is_address: bool, sent: Option<&Sent>) -> String {
    let request = match sent {
        Some(Sent::Request(request)) => Some(request),
        _ => None,
    };
    let target = request.map_or("/", |request| request.target().as_str());
    let mut words = vec!["curl".to_owned()];
    match request.map(SentRequest::method) {
        None | Some(&Method::GET) => {}
        Some(&Method::HEAD) => words.push("-I".to_owned()),
        Some(method) => words.extend(["-X".to_owned(), quoted(method.as_str()).into_owned()]),
    }
    if target.contains("/.") {
        words.push("--path-as-is".to_owned());
    }
    words.push(quoted(&format!("http://{at}{target}")).into_owned());
    let fields = request.into_iter().flat_map(|request| request.fields());
    let (mut host, mut others) = (None, Vec::new());
    for (field, value) in fields {
        let value = String::from_utf8_lossy(value.as_bytes());
        if field == header::HOST {
            host = Some(value);
        } else {
            others.push(format!("{field}: {value}"));
        }
    }
    let host = host.filter(|host| !is_name(host, name));
    let host = host.map(Cow::into_owned).or_else(|| is_address.then(|| name.to_owned()));
    let fields = host.map(|host| format!("Host: {host}")).into_iter().chain(others);
    words.extend(fields.flat_map(|field| ["-H".to_owned(), quoted(&field).into_owned()]));
    words.join(" ")
}

/// Whether a `Host` says the name, in full or without its zone.
fn is_name(host: &str, name: &str) -> bool {
    let host = host.split(':').next().unwrap_or_default().trim_end_matches('.').to_ascii_lowercase();
    name == host || name.strip_prefix(&*host).is_some_and(|rest| rest.starts_with('.'))
}

/// A word as a shell takes it.
fn quoted(word: &str) -> Cow<'_, str> {
    let plain = |c: char| c.is_ascii_alphanumeric() || "-_./:=,%@".contains(c);
    if word.chars().all(plain) { Cow::Borrowed(word) } else { Cow::Owned(format!("'{}'", word.replace('\'', r"'\''"))) }
}

#[cfg(test)]
mod tests {
    use http::{HeaderName, HeaderValue};

    use super::*;

    #[test]
    fn requests_as_commands() {
        let name = "web.shop.maesh";
        let address = "127.77.0.1:80";
        for (at, sent, want) in [
            (address, None, "curl http://127.77.0.1:80/ -H 'Host: web.shop.maesh'"),
            (name, None, "curl http://web.shop.maesh/"),
            (name, Some(("GET", "/", &[("host", "web.shop")][..])), "curl http://web.shop.maesh/"),
            (
                name,
                Some(("POST", "/a?b=c&d", &[("host", "api.shop.maesh"), ("cookie", "it's=on")])),
                r"curl -X POST 'http://web.shop.maesh/a?b=c&d' -H 'Host: api.shop.maesh' -H 'cookie: it'\''s=on'",
            ),
            (
                address,
                Some(("HEAD", "/../a", &[("host", "api.shop.maesh:80")])),
                "curl -I --path-as-is http://127.77.0.1:80/../a -H 'Host: api.shop.maesh:80'",
            ),
            (
                address,
                Some(("GET", "/a", &[("host", "web.shop.maesh:80"), ("x-a", "$(b)")])),
                "curl http://127.77.0.1:80/a -H 'Host: web.shop.maesh' -H 'x-a: $(b)'",
            ),
            (
                "[fd00::1]:80",
                Some(("A'", "/", &[])),
                r"curl -X 'A'\''' 'http://[fd00::1]:80/' -H 'Host: web.shop.maesh'",
            ),
        ] {
            let sent = sent.map(|(method, target, fields)| {
                let fields =
                    fields.iter().map(|(name, value)| (HeaderName::from_static(name), HeaderValue::from_static(value)));
                let method = Method::from_bytes(method.as_bytes()).expect("a method");
                Sent::Request(SentRequest::new(method, target.parse().expect("a target"), fields).expect("small"))
            });
            assert_eq!(command(at, name, at != name, sent.as_ref()), want);
        }
    }
}
