//! The page of the reference that lists every reason: `docs/reference/reasons.md`.

use maesh_test_support::generated::{NOTE, is_current};

use super::Reason;

/// Every reason, in the order of the page: by status.
const ALL: [Reason; 24] = [
    Reason::BadRequest,
    Reason::Denied,
    Reason::UnknownHost,
    Reason::NoRoute,
    Reason::MethodNotAllowed,
    Reason::UriTooLong,
    Reason::RateLimited,
    Reason::HeadersTooLarge,
    Reason::BadBackend,
    Reason::UnsupportedPolicy,
    Reason::NotImplemented,
    Reason::ConnectFailed,
    Reason::UpstreamReset,
    Reason::UpstreamProtocol,
    Reason::NoEndpoints,
    Reason::NotSynced,
    Reason::Overloaded,
    Reason::CircuitOpen,
    Reason::FaultInjected,
    Reason::ConnectTimeout,
    Reason::TryTimeout,
    Reason::RequestTimeout,
    Reason::VersionNotSupported,
    Reason::LoopDetected,
];

/// What a person does about it. A new reason does not compile until it is here, and then it belongs into [`ALL`].
const fn advice(reason: Reason) -> &'static str {
    match reason {
        Reason::UnknownHost => {
            "Check the `Host` header. A mesh name is `service.namespace.zone`; the Service must exist, and its namespace \
             must be meshed. `maesh explain NAME` says why a name is not meshed."
        }
        Reason::Denied => {
            "Access control is on, and no TrafficTarget admits the caller's ServiceAccount to this Service, port, method, path and \
             header fields. A caller that is no pod, or shares its node's network, is admitted only if \
             `acl.sources` assigns it a ServiceAccount. `maesh explain` says as whom the caller counts \
             ([access control](../tasks/access-control.md#what-it-looks-like)). Tried again, it is the same."
        }
        Reason::NoRoute => {
            "Check the port in the URL. The Service has no HTTP port of this number; a port that carries TCP or TLS is not \
             served by `Host`."
        }
        Reason::NoEndpoints => {
            "Check the Service's pods: `kubectl get endpointslices -l kubernetes.io/service-name=NAME`. None of its \
             endpoints is ready, or the selector matches no pod."
        }
        Reason::Overloaded => {
            "Too much is open in one proxy: requests to one port of a Service, connections in all, or connections of one \
             caller. Look for a caller that opens connections in a loop, or a backend that answers slowly."
        }
        Reason::ConnectFailed => {
            "Check that the pods listen on the target port and that no NetworkPolicy blocks the proxies. Another endpoint \
             was tried before this answer was given, if there is one. With `scheme: https`, the endpoint could not be \
             verified, or does not speak TLS: the proxy's log and `maesh explain` say why ([HTTPS](../tasks/https.md))."
        }
        Reason::UpstreamReset => {
            "Look at the backend's logs: it closed or reset the connection before it answered, for instance because it \
             crashed. Sending the request again was not safe or did not help."
        }
        Reason::RateLimited => {
            "The caller sends more requests than the annotation `ratelimit-average` allows. `Retry-After` says when to come back. \
             Slow the caller down, or raise the limit."
        }
        Reason::CircuitOpen => {
            "The condition in the annotation `circuit-breaker-expression` held, so nothing is sent to the Service for 10 s. Look \
             at why the Service is slow or fails."
        }
        Reason::FaultInjected => {
            "The annotation `fault-abort` of the Service asks for it. Remove it, or wait until `fault-until` has passed."
        }
        Reason::TryTimeout => {
            "The endpoints took longer than the annotation `timeout-try` allows for one try. Look at why they are slow, raise \
             the limit, or let the request be tried again: `retry-attempts` and `retry-on: gateway-error`."
        }
        Reason::RequestTimeout => {
            "The request took longer than the annotation `timeout-request`, or the caller's own field `x-maesh-timeout-ms`, \
             allows. Look at why the endpoints are slow, or raise the limit."
        }
        Reason::UpstreamProtocol => {
            "Check `appProtocol` and the annotation `scheme`: the endpoint does not speak the version of HTTP that it is \
             spoken to in, its answer has contradictory lengths or a head that is too large, it expects TLS \
             and `scheme` is not `https`, or it got a gRPC request and does not choose HTTP/2 over TLS."
        }
        Reason::ConnectTimeout => {
            "As for `connect_failed`; packets are dropped, not refused. Check the network and NetworkPolicies."
        }
        Reason::BadRequest => "Check the caller. The request is not valid HTTP, or could be read in two ways.",
        Reason::HeadersTooLarge => "Send fewer or smaller header fields; cookies are the usual cause.",
        Reason::NotSynced => {
            "Wait a moment and try again. If it stays, the proxy does not get configuration from the controller: `maesh \
             check --only config`. With access control also: no controller answers, and the caller is not known or 15 minutes \
             have passed."
        }
        Reason::MethodNotAllowed => "The mesh is no forward proxy; CONNECT is never served.",
        Reason::UriTooLong => "Shorten the path or the query.",
        Reason::NotImplemented => {
            "Check the caller; it uses a transfer coding other than `chunked`, or asks for a protocol other than `websocket` by \
             extended CONNECT."
        }
        Reason::VersionNotSupported => "Check the caller; it announces a version of HTTP that does not exist.",
        Reason::LoopDetected => {
            "Check the EndpointSlices of the Service, and what stands behind them: a request passed 16 proxies of the mesh, so \
             an endpoint leads back to the mesh."
        }
        Reason::UnsupportedPolicy => {
            "Update the proxies: the controller is of a newer version, and the route or its backend has a policy that must not \
             be ignored. Other routes of the Service are served."
        }
        Reason::BadBackend => {
            "The route names a Service that does not exist or is not in the mesh, or a port that it does not have. An Event on the \
             Service that was called says which, unless the port limit of a namespace is the reason. Create it, or change the route."
        }
    }
}

#[test]
fn reference_page_is_current() {
    let mut page = format!(
        "{NOTE}\n# Reasons\n\nAn answer that the mesh itself makes has a header `x-maesh-reason`. Its value is one of these codes. \
         The same code is the label `reason` of the metrics `maesh_http_requests_total` and `maesh_http_refused_total`. \
         An answer without this header comes from the backend.\n\nA gRPC caller gets the gRPC status instead of the HTTP \
         status. [Why is this request a 503?](../tasks/failed-request.md) shows how to find the cause step by step.\n\n\
         | reason | HTTP | gRPC | meaning | what to do |\n|---|---|---|---|---|\n"
    );
    let mut seen = [false; 256];
    for reason in ALL {
        assert!(!std::mem::replace(&mut seen[reason as usize], true), "{} is there twice", reason.code());
        page += &format!(
            "| `{}` | {} | {} | {} | {} |\n",
            reason.code(),
            reason.status().as_u16(),
            reason.grpc(),
            reason.explanation(),
            advice(reason)
        );
    }
    assert!(seen[..ALL.len()].iter().all(|seen| *seen), "a reason is missing in the page");
    is_current("docs/reference/reasons.md", &page, "cargo xtask docs");
}
