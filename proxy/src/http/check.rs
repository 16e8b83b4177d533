//! What a request must be before anything is done with it: well-formed, of a known form, within the limits.

use http::{HeaderMap, HeaderValue, Method, Uri, Version, header, request, uri::PathAndQuery};
use maesh_http2::Protocol;

use super::{caller::Caller, request::ProxiedRequest, upgrade};
use crate::{
    config::Limits,
    fields::{Present, Sought},
    reason::Reason,
};

/// Refuses what is malformed or too large, and returns the name in `Host`, which the request keeps.
pub(super) fn check(caller: &Caller, request: &mut ProxiedRequest) -> Result<Option<HeaderValue>, Reason> {
    let ProxiedRequest { head, present, .. } = request;
    check_start(head, &caller.shared.config.limits)?;
    if caller.is_malformed() {
        return Err(Reason::BadRequest);
    }
    check_form(head, *present)
}

/// The same for a head that nobody sent.
pub(crate) fn check_head(head: &mut request::Parts, limits: &Limits) -> Result<Option<HeaderValue>, Reason> {
    check_start(head, limits)?;
    check_form(head, Present::of(&head.headers))
}

fn check_start(head: &mut request::Parts, limits: &Limits) -> Result<(), Reason> {
    check_method(head)?;
    if head.version == Version::HTTP_2 {
        check_http2_size(&head.headers, limits)?;
    }
    if head.uri.path_and_query().is_some_and(|target| target.as_str().len() > limits.target) {
        return Err(Reason::UriTooLong);
    }
    if head.version != Version::HTTP_2 {
        add_path(&mut head.uri)?;
    }
    Ok(())
}

fn check_form(head: &mut request::Parts, present: Present) -> Result<Option<HeaderValue>, Reason> {
    if !has_right_form(&head.method, &head.uri) {
        return Err(Reason::BadRequest);
    }
    if present.has(Sought::TransferEncoding)
        && let Some(coding) = head.headers.get(header::TRANSFER_ENCODING)
    {
        if head.headers.get_all(header::TRANSFER_ENCODING).iter().count() > 1 {
            return Err(Reason::BadRequest);
        }
        if !coding.as_bytes().eq_ignore_ascii_case(b"chunked") {
            return Err(Reason::NotImplemented);
        }
    }
    let mut hosts = head.headers.get_all(header::HOST).iter();
    let host = hosts.next().cloned();
    if hosts.next().is_some() {
        return Err(Reason::BadRequest);
    }
    // The target's own authority comes first (RFC 9112 section 3.2.2, RFC 9113 section 8.3.1).
    if let Some(authority) = head.uri.authority() {
        let value = HeaderValue::from_str(authority.as_str()).map_err(|_| Reason::BadRequest)?;
        if host.as_ref() != Some(&value) {
            head.headers.insert(header::HOST, value.clone());
        }
        return Ok(Some(value));
    }
    if host.is_none() && head.version == Version::HTTP_11 {
        return Err(Reason::BadRequest);
    }
    Ok(host)
}

/// Refuses methods that are never served: CONNECT, but for the extended one that asks for WebSocket (RFC 8441), and PRI, which
/// is no method.
fn check_method(head: &mut request::Parts) -> Result<(), Reason> {
    let is_connect = head.method == Method::CONNECT;
    let is_preface = head.method.as_str() == "PRI";
    match head.extensions.get_mut::<Protocol>() {
        None if is_connect => Err(Reason::MethodNotAllowed),
        None if is_preface => Err(Reason::BadRequest),
        None => Ok(()),
        Some(_) if !is_connect => Err(Reason::BadRequest),
        Some(protocol) if protocol.as_bytes().eq_ignore_ascii_case(b"websocket") => {
            *protocol = Protocol::new(&b"websocket"[..]);
            Ok(())
        }
        Some(protocol) if upgrade::is_protocol(protocol.as_bytes()) => Err(Reason::NotImplemented),
        Some(_) => Err(Reason::BadRequest),
    }
}

/// An absolute target may have a query and no path, which is then `/` (RFC 9112 section 3.2.2).
fn add_path(target: &mut Uri) -> Result<(), Reason> {
    let Some(query) = target.path_and_query().map(PathAndQuery::as_str).filter(|path| path.starts_with('?')) else {
        return Ok(());
    };
    let path = PathAndQuery::try_from(format!("/{query}")).map_err(|_| Reason::BadRequest)?;
    let mut parts = std::mem::take(target).into_parts();
    parts.path_and_query = Some(path);
    *target = Uri::from_parts(parts).map_err(|_| Reason::BadRequest)?;
    Ok(())
}

/// Whether the target has a form that its method may have (RFC 9112 section 3.2). `*` is for OPTIONS only, an authority
/// alone for CONNECT only, and of the schemes a proxy of HTTP knows two.
fn has_right_form(method: &Method, target: &Uri) -> bool {
    match (target.scheme_str(), target.authority(), target.path_and_query()) {
        (None, None, Some(path)) if path.as_str() == "*" => *method == Method::OPTIONS,
        (Some("http" | "https"), Some(_), Some(path)) if path.as_str() == "*" => *method == Method::OPTIONS,
        (None, None, Some(path)) | (Some("http" | "https"), Some(_), Some(path)) => path.as_str().starts_with('/'),
        _ => false,
    }
}

fn check_http2_size(fields: &HeaderMap, limits: &Limits) -> Result<(), Reason> {
    // As RFC 9113 section 6.5.2 counts them.
    let size: usize = fields.iter().map(|(name, value)| name.as_str().len() + value.len() + 32).sum();
    if fields.len() > limits.fields || size > limits.head { Err(Reason::HeadersTooLarge) } else { Ok(()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn forms_of_a_target() {
        for (method, target, right) in [
            ("GET", "/ok?q=1", true),
            ("GET", "http://web.shop/ok", true),
            ("GET", "https://web.shop/ok", true),
            ("GET", "http://web.shop", true),
            ("OPTIONS", "*", true),
            ("OPTIONS", "/", true),
            ("GET", "*", false),
            ("POST", "*", false),
            ("GET", "web.shop:8080", false),
            ("GET", "web.shop", false),
            ("OPTIONS", "web.shop", false),
            ("GET", "ftp://web.shop/ok", false),
        ] {
            let target: Uri = target.parse().expect("a target");
            let method = Method::from_bytes(method.as_bytes()).expect("a method");
            assert_eq!(has_right_form(&method, &target), right, "{method} {target}");
        }
    }
}
