//! What is sent, in the parameters of a question to a proxy.
//!
//! | parameter | says |
//! |---|---|
//! | `method`, `target` | a request of HTTP; without one of them `GET`, `/` |
//! | `fields` | its fields, a line for each: `name: value` |
//! | `server-name` | a stream instead: the server name of its TLS; empty for a stream without TLS |
//!
//! Without any, nothing is asked of what is sent: so asks an older command.

use http::{HeaderName, HeaderValue, Method, uri::PathAndQuery};
use maesh_proxy::explain::{Sent, SentRequest};

use crate::admin::Parameters;

/// Longest question that has room for what is sent: the longest target of a request that the admin endpoint reads.
pub const LONGEST: usize = 64_000;

const METHOD: &str = "method";
const TARGET: &str = "target";
const FIELDS: &str = "fields";
const SERVER_NAME: &str = "server-name";

/// Reads it.
///
/// # Errors
/// What is wrong with which parameter.
pub fn read(parameters: &Parameters) -> Result<Option<Sent>, String> {
    let given = |name: &str| parameters.get(name).map(String::as_str);
    match (given(SERVER_NAME), given(METHOD), given(TARGET)) {
        (None, None, None) => Ok(None),
        (Some(_), Some(_), _) | (Some(_), _, Some(_)) => {
            Err(format!("{SERVER_NAME} is for streams, {METHOD} and {TARGET} are for requests; leave one away"))
        }
        (Some(name), None, None) => Ok(Some(Sent::Stream((!name.is_empty()).then(|| name.to_owned())))),
        (None, method, target) => {
            let method = method.unwrap_or("GET");
            let method = Method::from_bytes(method.as_bytes())
                .map_err(|_| format!("{METHOD} is {method:?}, which is no method such as GET"))?;
            let target = target.unwrap_or("/");
            let target = PathAndQuery::try_from(target)
                .map_err(|_| format!("{TARGET} is {target:?}, which is no path such as /api?page=1"))?;
            let lines = given(FIELDS).unwrap_or_default().lines();
            let fields = lines.map(field).collect::<Result<Vec<_>, _>>()?;
            let request = SentRequest::new(method, target, fields).map_err(|why| format!("{FIELDS}: {why}"))?;
            Ok(Some(Sent::Request(request)))
        }
    }
}

/// Writes it.
pub fn write(sent: &Sent) -> Vec<(&'static str, String)> {
    match sent {
        Sent::Stream(name) => vec![(SERVER_NAME, name.clone().unwrap_or_default())],
        Sent::Request(request) => {
            let line = |(name, value): (&HeaderName, &HeaderValue)| {
                format!("{name}: {}\n", String::from_utf8_lossy(value.as_bytes()))
            };
            let mut parameters =
                vec![(METHOD, request.method().to_string()), (TARGET, request.target().as_str().to_owned())];
            let fields: String = request.fields().iter().map(line).collect();
            parameters.extend((!fields.is_empty()).then_some((FIELDS, fields)));
            parameters
        }
    }
}

/// How long it is in a question.
pub fn length(sent: &Sent) -> usize {
    form_urlencoded::Serializer::new(String::new()).extend_pairs(write(sent)).finish().len()
}

/// A field as it is written in a request: `name: value`.
///
/// # Errors
/// What is wrong with it.
pub fn field(line: &str) -> Result<(HeaderName, HeaderValue), String> {
    const EXAMPLE: &str = "write NAME: VALUE, such as 'Cookie: preview=on'";
    let Some((name, value)) = line.split_once(':') else {
        return Err(format!("{line:?} has no colon; {EXAMPLE}"));
    };
    let name = HeaderName::from_bytes(name.as_bytes())
        .map_err(|_| format!("{name:?} cannot be the name of a field; {EXAMPLE}"))?;
    let value = value.trim();
    let value = HeaderValue::from_bytes(value.as_bytes())
        .map_err(|_| format!("{value:?} cannot be the value of a field; {EXAMPLE}"))?;
    Ok((name, value))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parameters(given: &[(&str, &str)]) -> Parameters {
        given.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
    }

    #[test]
    fn what_is_written_is_read() {
        for given in [
            &[][..],
            &[("method", "GET"), ("target", "/")],
            &[("method", "POST"), ("target", "/api?a=b&c=%20"), ("fields", "cookie: a=1\ncookie: b=ä: c\nx: \n")],
            &[("server-name", "db.example")],
            &[("server-name", "")],
        ] {
            let sent = read(&parameters(given)).unwrap_or_else(|why| panic!("{given:?}: {why}"));
            let written: Parameters =
                sent.iter().flat_map(write).map(|(name, value)| (name.to_owned(), value)).collect();
            assert_eq!(written, parameters(given));
        }
        let of_request = |given: &[(&str, &str)]| match read(&parameters(given)) {
            Ok(Some(Sent::Request(request))) => (request.method().to_string(), request.target().to_string()),
            other => panic!("{given:?}: {other:?}"),
        };
        assert_eq!(of_request(&[("target", "/a")]), ("GET".into(), "/a".into()));
        assert_eq!(of_request(&[("method", "PUT")]), ("PUT".into(), "/".into()));
        assert_eq!(read(&parameters(&[("name", "web.shop"), ("fields", "a: b")])), Ok(None), "no request is said");
    }

    #[test]
    fn what_cannot_be_read_is_named() {
        let many = "a: b\n".repeat(129);
        for (given, says) in [
            (&[("method", "GE T")][..], "method is \"GE T\""),
            (&[("method", "")], "method is \"\""),
            (&[("target", "/a b")], "target is \"/a b\""),
            (&[("method", "GET"), ("fields", "nothing")], "\"nothing\" has no colon"),
            (&[("method", "GET"), ("fields", "a b: c")], "\"a b\" cannot be the name"),
            (&[("method", "GET"), ("fields", "a: \u{1}")], "cannot be the value"),
            (&[("method", "GET"), ("fields", &many)], "128 fields at most"),
            (&[("method", "GET"), ("server-name", "a")], "leave one away"),
        ] {
            let said = read(&parameters(given)).expect_err(says);
            assert!(said.contains(says), "{given:?}: {said}");
        }
    }
}
