//! The stable codes of answers that the mesh makes by itself.
//!
//! A caller reads the code in `x-maesh-reason`; the same word labels the metric. A code is never renamed.

#[cfg(test)]
mod page;

use http::StatusCode;

/// Why the mesh answered instead of an endpoint.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum Reason {
    /// No Service has this name.
    UnknownHost,
    /// The Service exists, but not on this port.
    NoRoute,
    /// The Service has no endpoint that can be used.
    NoEndpoints,
    /// More requests in flight, or connections open, than allowed.
    Overloaded,
    /// No connection to an endpoint could be made.
    ConnectFailed,
    /// The endpoint closed or reset the connection before it answered.
    UpstreamReset,
    /// The endpoint answered what is not HTTP.
    UpstreamProtocol,
    /// An endpoint did not accept the connection in time.
    ConnectTimeout,
    /// No response began in the time that one try may take.
    TryTimeout,
    /// The response did not end in the time that the request may take.
    RequestTimeout,
    /// More requests than the rate limit of the Service allows.
    RateLimited,
    /// The circuit breaker of the Service is open.
    CircuitOpen,
    /// A fault that somebody asked for.
    FaultInjected,
    /// Access control: nobody admits the caller to what it asks for.
    Denied,
    /// The request is malformed, or could be read in two ways.
    BadRequest,
    /// The head of the request is larger than allowed.
    HeadersTooLarge,
    /// The configuration of the Service has not arrived yet.
    NotSynced,
    /// The method is never served here: CONNECT.
    MethodNotAllowed,
    /// The request's target is longer than allowed.
    UriTooLong,
    /// A transfer coding other than chunked, or an extended CONNECT to a protocol other than WebSocket.
    NotImplemented,
    /// A version of HTTP that is not 1.0, 1.1 or 2.
    VersionNotSupported,
    /// A backend of the route does not exist.
    BadBackend,
    /// The request went through the mesh too often.
    LoopDetected,
    /// The controller is newer than this proxy, and says something of the route that must not be ignored.
    UnsupportedPolicy,
}

impl Reason {
    /// The code, as in `x-maesh-reason`.
    pub const fn code(self) -> &'static str {
        match self {
            Self::UnknownHost => "unknown_host",
            Self::NoRoute => "no_route",
            Self::NoEndpoints => "no_endpoints",
            Self::Overloaded => "overloaded",
            Self::ConnectFailed => "connect_failed",
            Self::UpstreamReset => "upstream_reset",
            Self::UpstreamProtocol => "upstream_protocol",
            Self::ConnectTimeout => "connect_timeout",
            Self::TryTimeout => "try_timeout",
            Self::RequestTimeout => "request_timeout",
            Self::RateLimited => "rate_limited",
            Self::CircuitOpen => "circuit_open",
            Self::FaultInjected => "fault_injected",
            Self::Denied => "denied",
            Self::BadRequest => "bad_request",
            Self::HeadersTooLarge => "headers_too_large",
            Self::NotSynced => "not_synced",
            Self::MethodNotAllowed => "method_not_allowed",
            Self::UriTooLong => "uri_too_long",
            Self::NotImplemented => "not_implemented",
            Self::VersionNotSupported => "version_not_supported",
            Self::BadBackend => "bad_backend",
            Self::LoopDetected => "loop_detected",
            Self::UnsupportedPolicy => "unsupported_policy",
        }
    }

    /// Whether nothing was sent, because no endpoint of the backend could be used: its fallback may be.
    pub(crate) const fn is_unreachable(self) -> bool {
        matches!(self, Self::NoEndpoints | Self::ConnectFailed | Self::ConnectTimeout | Self::CircuitOpen)
    }

    /// The status that a caller of plain HTTP gets.
    pub const fn status(self) -> StatusCode {
        match self {
            Self::UnknownHost | Self::NoRoute => StatusCode::NOT_FOUND,
            Self::NoEndpoints | Self::Overloaded | Self::NotSynced | Self::CircuitOpen | Self::FaultInjected => {
                StatusCode::SERVICE_UNAVAILABLE
            }
            Self::RateLimited => StatusCode::TOO_MANY_REQUESTS,
            Self::Denied => StatusCode::FORBIDDEN,
            Self::ConnectFailed | Self::UpstreamReset | Self::UpstreamProtocol => StatusCode::BAD_GATEWAY,
            Self::ConnectTimeout | Self::TryTimeout | Self::RequestTimeout => StatusCode::GATEWAY_TIMEOUT,
            Self::BadRequest => StatusCode::BAD_REQUEST,
            Self::HeadersTooLarge => StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE,
            Self::MethodNotAllowed => StatusCode::METHOD_NOT_ALLOWED,
            Self::UriTooLong => StatusCode::URI_TOO_LONG,
            Self::NotImplemented => StatusCode::NOT_IMPLEMENTED,
            Self::VersionNotSupported => StatusCode::HTTP_VERSION_NOT_SUPPORTED,
            Self::BadBackend | Self::UnsupportedPolicy => StatusCode::INTERNAL_SERVER_ERROR,
            Self::LoopDetected => StatusCode::LOOP_DETECTED,
        }
    }

    /// The status that a gRPC caller gets (its numbers: 4 deadline exceeded, 7 permission denied, 8 resource exhausted, 12 unimplemented,
    /// 13 internal, 14 unavailable).
    pub const fn grpc(self) -> u8 {
        match self {
            Self::UnknownHost | Self::NoRoute => 12,
            Self::ConnectTimeout | Self::TryTimeout | Self::RequestTimeout => 4,
            Self::RateLimited => 8,
            Self::Denied => 7,
            Self::BadRequest => 13,
            _ => 14,
        }
    }

    /// One sentence for the person who reads the answer.
    pub const fn explanation(self) -> &'static str {
        match self {
            Self::UnknownHost => "no Service of the mesh has the name in Host",
            Self::NoRoute => "the Service has no HTTP port that listens here",
            Self::NoEndpoints => "the Service has no endpoint that is ready",
            Self::Overloaded => "too many requests or connections are open",
            Self::ConnectFailed => "no endpoint of the Service accepted a connection",
            Self::UpstreamReset => "the endpoint closed the connection before it answered",
            Self::UpstreamProtocol => "the endpoint's answer is not valid HTTP of the expected version",
            Self::ConnectTimeout => "no endpoint of the Service accepted a connection in time",
            Self::TryTimeout => "no endpoint began to respond in the time of one try",
            Self::RequestTimeout => "the response did not end in the time of the request",
            Self::RateLimited => "more requests than the Service allows; try again later",
            Self::CircuitOpen => "the Service fails too often, so nothing is sent to it for a while",
            Self::Denied => "no rule of access control admits the caller to this",
            Self::FaultInjected => "this request was chosen to fail, by an annotation of the Service",
            Self::BadRequest => "the request is malformed",
            Self::HeadersTooLarge => "the head of the request is too large",
            Self::NotSynced => "the configuration of this Service has not arrived yet",
            Self::MethodNotAllowed => "CONNECT is not served",
            Self::UriTooLong => "the target of the request is too long",
            Self::NotImplemented => {
                "of transfer codings only chunked is understood, and of the protocols of CONNECT only websocket"
            }
            Self::VersionNotSupported => "HTTP 1.0, 1.1 and 2 are served",
            Self::BadBackend => "a backend of the route does not exist",
            Self::UnsupportedPolicy => "the route has a policy that this version of the proxy does not know",
            Self::LoopDetected => "the request went through the mesh too often: its endpoints lead back to the mesh",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_keep_their_status() {
        for (reason, code, status, grpc) in [
            (Reason::UnknownHost, "unknown_host", 404, 12),
            (Reason::NoRoute, "no_route", 404, 12),
            (Reason::NoEndpoints, "no_endpoints", 503, 14),
            (Reason::Overloaded, "overloaded", 503, 14),
            (Reason::ConnectFailed, "connect_failed", 502, 14),
            (Reason::UpstreamReset, "upstream_reset", 502, 14),
            (Reason::UpstreamProtocol, "upstream_protocol", 502, 14),
            (Reason::ConnectTimeout, "connect_timeout", 504, 4),
            (Reason::TryTimeout, "try_timeout", 504, 4),
            (Reason::RequestTimeout, "request_timeout", 504, 4),
            (Reason::RateLimited, "rate_limited", 429, 8),
            (Reason::CircuitOpen, "circuit_open", 503, 14),
            (Reason::FaultInjected, "fault_injected", 503, 14),
            (Reason::Denied, "denied", 403, 7),
            (Reason::BadRequest, "bad_request", 400, 13),
            (Reason::HeadersTooLarge, "headers_too_large", 431, 14),
            (Reason::NotSynced, "not_synced", 503, 14),
            (Reason::MethodNotAllowed, "method_not_allowed", 405, 14),
            (Reason::UriTooLong, "uri_too_long", 414, 14),
            (Reason::NotImplemented, "not_implemented", 501, 14),
            (Reason::VersionNotSupported, "version_not_supported", 505, 14),
            (Reason::BadBackend, "bad_backend", 500, 14),
            (Reason::LoopDetected, "loop_detected", 508, 14),
            (Reason::UnsupportedPolicy, "unsupported_policy", 500, 14),
        ] {
            assert_eq!((reason.code(), reason.status().as_u16(), reason.grpc()), (code, status, grpc), "{reason:?}");
        }
    }
}
