//! Which names a request to the admin port may be sent to.
//!
//! A page in a browser can give its own name the address of this machine (DNS rebinding), and then read what is answered
//! here as its own. Such a request carries the name of the page in `Host`, because the browser sets that field. So where a
//! browser may be the caller, the answer is for those who name an address or `localhost`. Probes answer everybody: they say
//! nothing about the mesh, and must not fail for a name.

use std::net::IpAddr;

use http::{Request, header, uri::Authority};

/// Which requests must name this machine.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HostCheck {
    /// Every request but probes: a `maesh dev`, on a developer's machine.
    Always,
    /// Pages and `/api`, from a loopback address: a role, which a developer reaches through a port-forward. Other callers
    /// read these only where their addresses were allowed, and may then use any name.
    FromLoopback,
}

impl HostCheck {
    /// Whether a request is answered; the error says why not.
    pub(super) fn check<B>(self, path: &str, request: &Request<B>, from: IpAddr) -> Result<(), String> {
        let is_open = match self {
            Self::Always => is_probe(path),
            Self::FromLoopback => is_probe(path) || path == "/metrics" || !from.to_canonical().is_loopback(),
        };
        if is_open {
            return Ok(());
        }
        let field = request.headers().get(header::HOST).map(|host| String::from_utf8_lossy(host.as_bytes()));
        // A client of HTTP/1.0 that says none is no browser.
        let Some(host) = request.uri().authority().map(|it| it.as_str().into()).or(field) else { return Ok(()) };
        if names_this_machine(&host) {
            return Ok(());
        }
        Err(format!(
            "the request is for the host {host:?}, and this port answers only requests for an IP address or localhost, so that no \
             page in a browser can read it under a name of its own; use http://localhost:PORT or http://127.0.0.1:PORT\n"
        ))
    }
}

fn is_probe(path: &str) -> bool {
    matches!(path, "/livez" | "/readyz")
}

/// Whether this is `localhost` or an address, with or without a port.
fn names_this_machine(host: &str) -> bool {
    let Ok(authority) = host.trim().parse::<Authority>() else { return false };
    let host = authority.host();
    let address = host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(host);
    host.eq_ignore_ascii_case("localhost") || address.parse::<IpAddr>().is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn which_hosts_name_this_machine() {
        for (host, want) in [
            ("localhost", true),
            ("LocalHost:5380", true),
            ("127.0.0.1:5380", true),
            ("10.1.2.3", true),
            ("[::1]:5380", true),
            ("evil.example", false),
            ("evil.example:5380", false),
            ("localhost.evil.example", false),
            ("127.0.0.1.evil.example", false),
            ("user@evil.example", false),
            ("evil.example#localhost", false),
            ("", false),
        ] {
            assert_eq!(names_this_machine(host), want, "{host:?}");
        }
    }

    #[test]
    fn who_is_asked_for_a_name() {
        let (loopback, pod) = (IpAddr::from([127, 0, 0, 1]), IpAddr::from([10, 244, 1, 7]));
        for (check, path, from, want) in [
            (HostCheck::Always, "/livez", loopback, true),
            (HostCheck::Always, "/metrics", loopback, false),
            (HostCheck::Always, "/api/services", pod, false),
            (HostCheck::FromLoopback, "/metrics", loopback, true),
            (HostCheck::FromLoopback, "/", loopback, false),
            (HostCheck::FromLoopback, "/api/services", loopback, false),
            (HostCheck::FromLoopback, "/api/services", pod, true),
        ] {
            let request = Request::get(path).header(header::HOST, "evil.example").body(()).expect("a request");
            assert_eq!(check.check(path, &request, from).is_ok(), want, "{check:?} {path} {from}");
        }
        let unnamed = Request::get("/api").body(()).expect("a request");
        assert_eq!(HostCheck::Always.check("/api", &unnamed, loopback), Ok(()), "no browser leaves it out");
    }
}
