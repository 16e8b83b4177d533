//! The form of a request's head in the protocol towards the endpoint.

use http::{HeaderValue, Uri, Version, header, request, uri};

use crate::{http::headers, reason::Reason};

/// Gives the head the form that the protocol towards the endpoint wants: HTTP/2 with this scheme, or HTTP/1.1 where there is none.
/// `Host` keeps its text.
pub(super) fn shape(head: &mut request::Parts, http2: Option<&uri::Scheme>) -> Result<(), Reason> {
    if let Some(scheme) = http2 {
        let host = head.headers.remove(header::HOST).filter(|host| !host.is_empty());
        head.version = Version::HTTP_2;
        let says_authority = |host: &HeaderValue| head.uri.authority().is_some_and(|said| host == said.as_str());
        let has_form = head.uri.scheme() == Some(scheme) && head.uri.path_and_query().is_some();
        if has_form && host.as_ref().is_none_or(says_authority) {
            return Ok(());
        }
        let authority = match (&host, head.uri.authority()) {
            (Some(host), _) => uri::Authority::try_from(host.as_bytes()).map_err(|_| Reason::BadRequest)?,
            (None, Some(authority)) => authority.clone(),
            (None, None) => uri::Authority::from_static("localhost"),
        };
        let mut parts = target_of(&head.uri);
        parts.scheme = Some(scheme.clone());
        parts.authority = Some(authority);
        head.uri = Uri::from_parts(parts).map_err(|_| Reason::BadRequest)?;
        return Ok(());
    }
    head.version = Version::HTTP_11;
    // It was shaped for HTTP/2 before, or came without `Host`.
    if !head.headers.contains_key(header::HOST) {
        let authority = head.uri.authority().map_or("", uri::Authority::as_str);
        let host = HeaderValue::from_str(authority).map_err(|_| Reason::BadRequest)?;
        head.headers.insert(header::HOST, host);
    }
    headers::join_cookies(&mut head.headers);
    if head.uri.scheme().is_some() || head.uri.authority().is_some() {
        head.uri = Uri::from_parts(target_of(&head.uri)).map_err(|_| Reason::BadRequest)?;
    }
    Ok(())
}

/// Path and query alone.
fn target_of(uri: &Uri) -> uri::Parts {
    let mut parts = uri::Parts::default();
    let path = uri.path_and_query().cloned();
    parts.path_and_query = Some(path.unwrap_or_else(|| uri::PathAndQuery::from_static("/")));
    parts
}
