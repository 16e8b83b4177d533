//! What a request said of itself, for its line in the access log and its span.

use std::sync::Arc;

use http::{HeaderMap, HeaderValue, header, request};

use super::RequestTrace;

/// Longest texts that are kept, in bytes.
pub(crate) const METHOD: usize = 32;
pub(crate) const PATH: usize = 512;
const HOST: usize = 255;
const AGENT: usize = 256;

/// What is kept of the head of a request that is logged or traced.
pub(crate) struct RequestDetails {
    pub(crate) method: Box<str>,
    /// With its query.
    pub(crate) path: Box<str>,
    pub(crate) host: Box<str>,
    pub(crate) user_agent: Box<str>,
    /// It is written into the access log.
    pub(crate) logged: bool,
    /// Its trace, where it is recorded.
    pub(crate) trace: Option<Arc<RequestTrace>>,
}

impl RequestDetails {
    /// What the head says, each text bounded.
    pub(crate) fn of(head: &request::Parts, logged: bool, trace: Option<Arc<RequestTrace>>) -> Box<Self> {
        let host =
            head.uri.authority().map_or_else(|| field(&head.headers, &header::HOST), |it| it.as_str().as_bytes());
        let path = head.uri.path_and_query().map_or("", |path| path.as_str());
        Box::new(Self {
            method: bounded(head.method.as_str().as_bytes(), METHOD),
            path: bounded(path.as_bytes(), PATH),
            host: bounded(host, HOST),
            user_agent: bounded(field(&head.headers, &header::USER_AGENT), AGENT),
            logged,
            trace,
        })
    }
}

fn field<'a>(fields: &'a HeaderMap, name: &header::HeaderName) -> &'a [u8] {
    fields.get(name).map_or(b"", HeaderValue::as_bytes)
}

/// The beginning of `bytes` as text.
pub(crate) fn bounded(bytes: &[u8], most: usize) -> Box<str> {
    String::from_utf8_lossy(bytes.get(..most).unwrap_or(bytes)).into()
}

#[cfg(test)]
mod tests {
    use http::Request;

    use super::*;

    #[test]
    fn texts_of_peers_are_bounded() {
        let long = "a".repeat(10_000);
        let request = Request::builder()
            .method(&*long)
            .uri(format!("/{long}"))
            .header("host", &long)
            .header("user-agent", HeaderValue::from_bytes(&[0xff; 300]).expect("a value"))
            .body(())
            .expect("a request");
        let details = RequestDetails::of(&request.into_parts().0, true, None);
        assert_eq!((details.method.len(), details.path.len(), details.host.len()), (METHOD, PATH, HOST));
        // A byte that is no text is three bytes of it.
        assert_eq!(details.user_agent.len(), 3 * AGENT);
    }
}
