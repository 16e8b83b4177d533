//! What happens in a mesh, and which alerts fire then. Series and values are written as promtool reads them: `1+2x3` is
//! 1 3 5 7, `_` is no value; a minute is between two values.

/// An alert, and the labels of its own that it fires with: `name=value` in a row, separated by commas.
pub(super) type Firing<'a> = (&'a str, &'a str);

/// What is tried, the series that differ from [`HEALTHY`], and at which minutes which alerts fire.
pub(super) type Case<'a> = (&'a str, &'a [(&'a str, &'a str)], &'a [(u32, &'a [Firing<'a>])]);

/// A mesh without trouble.
pub(super) const HEALTHY: [(&str, &str); 22] = [
    ("maesh_controller_services", "12x60"),
    ("maesh_controller_proxies_connected", "3x60"),
    ("maesh_controller_proxies_ready", "3x60"),
    ("maesh_controller_nacks_total", "0x60"),
    (r#"maesh_dns_responses_total{rcode="NOERROR"}"#, "0+600x60"),
    (SERVFAIL, "0x60"),
    (EXPIRY, "2592000x60"),
    (DNS_1, "5+1x60"),
    (DNS_2, "7+1x60"),
    (CONNECTED, "1x60"),
    (r#"maesh_http_requests_total{namespace="shop",service="web",code="200",reason=""}"#, "0+1000x60"),
    (r#"maesh_http_requests_total{namespace="shop",service="db",code="200",reason=""}"#, "0+1000x60"),
    (BUDGET, "0x60"),
    (USABLE, "4x60"),
    (EJECTED, "0x60"),
    (TLS, "0x60"),
    (BREAKER, "0x60"),
    (CONNECTIONS, "0x60"),
    (SHED, "0x60"),
    (DROPPED, "0x60"),
    (r#"maesh_proxy_spans_total{outcome="exported"}"#, "0+1000x60"),
    (FAILED_SPANS, "0x60"),
];
const SERVFAIL: &str = r#"maesh_dns_responses_total{rcode="SERVFAIL"}"#;
const EXPIRY: &str = "maesh_dns_tls_certificate_expiry_timestamp_seconds";
const DNS_1: &str = r#"maesh_dns_revision{instance="dns-1"}"#;
const DNS_2: &str = r#"maesh_dns_revision{instance="dns-2"}"#;
const CONNECTED: &str = r#"maesh_proxy_controller_connected{instance="proxy-1"}"#;
const BUDGET: &str = r#"maesh_proxy_retry_budget_exhausted_total{namespace="shop",service="web",port="8080"}"#;
const USABLE: &str =
    r#"maesh_proxy_endpoints{instance="proxy-1",namespace="shop",service="web",port="8080",state="usable"}"#;
const EJECTED: &str =
    r#"maesh_proxy_endpoints{instance="proxy-1",namespace="shop",service="web",port="8080",state="ejected"}"#;
const TLS: &str = r#"maesh_proxy_tls_failures_total{reason="expired"}"#;
const BREAKER: &str = r#"maesh_proxy_breaker_state{instance="proxy-1",namespace="shop",service="web",port="8080"}"#;
const CONNECTIONS: &str = r#"maesh_http_refused_total{instance="proxy-1",reason="overloaded"}"#;
const SHED: &str = r#"maesh_udp_flows_ended_total{instance="proxy-1",cause="shed"}"#;
const DROPPED: &str =
    r#"maesh_udp_dropped_datagrams_total{namespace="shop",service="log",port="514",reason="overloaded"}"#;
const FAILED_SPANS: &str = r#"maesh_proxy_spans_total{outcome="failed"}"#;
const LIMITED: &str = r#"maesh_http_requests_total{namespace="shop",service="web",code="429",reason="rate_limited"}"#;
const OVERLOADED: &str = r#"maesh_http_requests_total{namespace="shop",service="web",code="503",reason="overloaded"}"#;

const AWAY: Firing<'_> = ("MaeshControllerAway", "");
const UNREADY: Firing<'_> = ("MaeshProxiesNotReady", "");
const REFUSED: Firing<'_> = ("MaeshConfigurationRefused", "");
const CUT_OFF: Firing<'_> = ("MaeshProxyWithoutController", "instance=proxy-1");
const DNS_FAILS: Firing<'_> = ("MaeshDnsFails", "");
const DNS_STALE: Firing<'_> = ("MaeshDnsStale", "instance=dns-2");
const EXPIRES: Firing<'_> = ("MaeshDnsCertificateExpires", "");
const BUDGET_USED: Firing<'_> = ("MaeshRetryBudgetExhausted", "namespace=shop,service=web");
const SOME_EJECTED: Firing<'_> = ("MaeshEndpointsEjected", "namespace=shop,service=web");
const ALL_EJECTED: Firing<'_> = ("MaeshAllEndpointsEjected", "namespace=shop,service=web,port=8080");
const TLS_FAILS: Firing<'_> = ("MaeshTlsToEndpointsFails", "reason=expired");
const BREAKER_OPEN: Firing<'_> = ("MaeshBreakerOpen", "namespace=shop,service=web,port=8080");
const RATE_LIMITED: Firing<'_> = ("MaeshRateLimited", "namespace=shop,service=web");
const OVERLOAD: Firing<'_> = ("MaeshServiceOverloaded", "namespace=shop,service=web");
const PROXY_OVERLOAD: Firing<'_> = ("MaeshProxyOverloaded", "instance=proxy-1,reason=overloaded");
const FLOWS_SHED: Firing<'_> = ("MaeshUdpFlowsShed", "instance=proxy-1,cause=shed");
const DATAGRAMS_DROPPED: Firing<'_> = ("MaeshUdpDatagramsDropped", "namespace=shop,service=log");
const SPANS_DROPPED: Firing<'_> = ("MaeshSpansDropped", "outcome=failed");

pub(super) const CASES: &[Case<'_>] = &[
    ("nothing is wrong", &[], &[(1, &[]), (30, &[]), (60, &[])]),
    (
        "no controller from minute 10 to 30; a series is stale after 5 minutes, at the latest",
        &[
            ("maesh_controller_services", "12x9 stale _x20 12x30"),
            ("maesh_controller_proxies_connected", "3x9 stale _x20 3x30"),
            ("maesh_controller_proxies_ready", "3x9 stale _x20 3x30"),
            ("maesh_controller_nacks_total", "0x9 stale _x20 0x30"),
        ],
        &[(14, &[]), (16, &[AWAY]), (30, &[AWAY]), (32, &[])],
    ),
    ("a proxy that is replaced", &[("maesh_controller_proxies_ready", "3x9 2x5 3x50")], &[(12, &[]), (25, &[])]),
    (
        "a proxy that stays unready for half an hour",
        &[("maesh_controller_proxies_ready", "3x9 2x29 3x30")],
        &[(18, &[]), (21, &[UNREADY]), (39, &[UNREADY]), (41, &[])],
    ),
    (
        "the other replica of the controller knows fewer proxies",
        &[
            (r#"maesh_controller_proxies_ready{pod="other"}"#, "2x60"),
            (r#"maesh_controller_proxies_connected{pod="other"}"#, "2x60"),
        ],
        &[(30, &[])],
    ),
    (
        "a proxy that has no controller from minute 10 to 40",
        &[(CONNECTED, "1x9 0x29 1x20")],
        &[(18, &[]), (21, &[CUT_OFF]), (39, &[CUT_OFF]), (41, &[])],
    ),
    ("a controller that is replaced", &[(CONNECTED, "1x9 0x1 1x50")], &[(11, &[]), (30, &[])]),
    (
        "a configuration that is old, because nothing changes",
        &[(r#"maesh_proxy_config_age_seconds{instance="proxy-1"}"#, "864000+60x60")],
        &[(60, &[])],
    ),
    (
        "configuration refused once",
        &[("maesh_controller_nacks_total", "0x9 1x60")],
        &[(8, &[]), (12, &[REFUSED]), (25, &[])],
    ),
    (
        "SERVFAIL again and again from minute 10 to 30",
        &[(SERVFAIL, "0x9 1+1x20 21x30")],
        &[(9, &[]), (18, &[DNS_FAILS]), (30, &[DNS_FAILS]), (40, &[])],
    ),
    ("SERVFAIL for a moment", &[(SERVFAIL, "0x9 3x60")], &[(11, &[]), (14, &[]), (20, &[])]),
    (
        "one dns that gets no changes from minute 5 on, until minute 50",
        &[(DNS_2, "7+1x5 12x44 60+1x10")],
        &[(30, &[]), (42, &[DNS_STALE]), (49, &[DNS_STALE]), (52, &[])],
    ),
    ("no dns gets changes, because there are none", &[(DNS_1, "5x60"), (DNS_2, "7x60")], &[(60, &[])]),
    ("a dns that begins anew", &[(DNS_2, "7+1x20 0+1x40")], &[(25, &[]), (45, &[]), (60, &[])]),
    (
        "a dns that comes while little changes",
        &[(DNS_1, "5x30 6x30"), (DNS_2, "_x20 4x10 5x30")],
        &[(35, &[]), (45, &[]), (60, &[])],
    ),
    (
        // The clock of these tests begins in 1970.
        "a certificate that is replaced seven days and half an hour before its end",
        &[(EXPIRY, "606600x30 2592000x30")],
        &[(29, &[]), (31, &[]), (60, &[])],
    ),
    (
        "one of two pods serves with a certificate that ends in less than seven days",
        &[(r#"maesh_dns_tls_certificate_expiry_timestamp_seconds{pod="other"}"#, "605400x60")],
        &[(10, &[]), (27, &[EXPIRES])],
    ),
    ("no certificate that can be used", &[(EXPIRY, "0x60")], &[(5, &[]), (20, &[EXPIRES])]),
    ("no DNS over TLS", &[(EXPIRY, "_x60")], &[(30, &[])]),
    (
        "a tenth of the requests would have been tried again, from minute 10 to 40",
        &[(BUDGET, "0x9 0+100x30 3000x20")],
        &[(18, &[]), (24, &[BUDGET_USED]), (40, &[BUDGET_USED]), (47, &[])],
    ),
    ("one in two hundred would have been tried again", &[(BUDGET, "0+5x60")], &[(60, &[])]),
    ("failures for three minutes", &[(BUDGET, "0x9 0+100x3 300x50")], &[(13, &[]), (20, &[]), (30, &[])]),
    (
        "two of four endpoints are ejected from minute 10 to 40",
        &[(USABLE, "4x9 2x30 4x20"), (EJECTED, "0x9 2x30 0x20")],
        &[(14, &[]), (30, &[SOME_EJECTED]), (55, &[])],
    ),
    ("one of four endpoints is ejected", &[(USABLE, "3x60"), (EJECTED, "1x60")], &[(60, &[])]),
    (
        "two of four endpoints are ejected for three minutes",
        &[(USABLE, "4x9 2x3 4x50"), (EJECTED, "0x9 2x3 0x50")],
        &[(12, &[]), (20, &[])],
    ),
    (
        "half of the endpoints are ejected, and come back for a moment again and again",
        &[
            (USABLE, "2 2 2 4 2 2 2 2 2 4 2 2 2 2 2 4 2 2 2 2 2 2"),
            (EJECTED, "2 2 2 0 2 2 2 2 2 0 2 2 2 2 2 0 2 2 2 2 2 2"),
        ],
        &[(15, &[SOME_EJECTED]), (21, &[SOME_EJECTED])],
    ),
    (
        "all endpoints are ejected by one of two proxies, from minute 10 to 20",
        &[
            (USABLE, "4x9 0x10 4x40"),
            (EJECTED, "0x9 4x10 0x40"),
            (
                r#"maesh_proxy_endpoints{instance="proxy-2",namespace="shop",service="web",port="8080",state="usable"}"#,
                "4x60",
            ),
            (
                r#"maesh_proxy_endpoints{instance="proxy-2",namespace="shop",service="web",port="8080",state="ejected"}"#,
                "0x60",
            ),
        ],
        &[(11, &[]), (13, &[ALL_EJECTED]), (20, &[ALL_EJECTED]), (22, &[SOME_EJECTED]), (40, &[])],
    ),
    ("a Service without endpoints", &[(USABLE, "0x60"), (EJECTED, "0x60")], &[(60, &[])]),
    (
        "certificates that have expired, from minute 10 to 40",
        &[(TLS, "0x9 0+1x30 30x20")],
        &[(18, &[]), (24, &[TLS_FAILS]), (40, &[TLS_FAILS]), (47, &[])],
    ),
    ("one TLS handshake fails", &[(TLS, "0x9 1x50")], &[(12, &[]), (20, &[])]),
    (
        "a breaker that opens and recovers in turn, from minute 10 to 40",
        &[(BREAKER, "0x9 2 2 1 2 1 2 2 1 2 2 1 2 2 2 1 2 2 1 2 2 1 2 1 2 2 1 2 2 1 2 0x20")],
        &[(14, &[]), (24, &[BREAKER_OPEN]), (40, &[BREAKER_OPEN]), (50, &[])],
    ),
    ("a breaker that opens once", &[(BREAKER, "0x9 2 1 0x50")], &[(11, &[]), (20, &[])]),
    ("no breaker", &[(BREAKER, "_x60")], &[(60, &[])]),
    (
        "a third of the requests is above the rate limit from minute 10 to 40",
        &[(LIMITED, "0x9 0+500x30 15000x20")],
        &[(20, &[]), (30, &[RATE_LIMITED]), (40, &[RATE_LIMITED]), (47, &[])],
    ),
    ("one request in twenty is above the rate limit", &[(LIMITED, "0+50x60")], &[(60, &[])]),
    (
        "too many requests are in flight from minute 10 to 40",
        &[(OVERLOADED, "0x9 0+50x30 1500x20")],
        &[(12, &[]), (20, &[OVERLOAD]), (40, &[OVERLOAD]), (47, &[])],
    ),
    ("too many requests in flight for two minutes", &[(OVERLOADED, "0x9 0+50x1 50x50")], &[(12, &[]), (20, &[])]),
    (
        "a caller opens too many connections from minute 10 to 40",
        &[(CONNECTIONS, "0x9 0+50x30 1500x20")],
        &[(12, &[]), (20, &[PROXY_OVERLOAD]), (40, &[PROXY_OVERLOAD]), (47, &[])],
    ),
    ("a caller opens too many connections once", &[(CONNECTIONS, "0x9 50x50")], &[(12, &[]), (14, &[]), (20, &[])]),
    ("names that no Service has", &[(r#"maesh_http_refused_total{reason="unknown_host"}"#, "0+100x60")], &[(60, &[])]),
    (
        "two UDP flows a second are given up from minute 5 to 40",
        &[(SHED, "0x4 0+120x35 4200x20")],
        &[(15, &[]), (26, &[FLOWS_SHED]), (40, &[FLOWS_SHED]), (47, &[])],
    ),
    ("a UDP flow is given up now and then", &[(SHED, "0+5x60")], &[(60, &[])]),
    (
        "two datagrams a second are dropped from minute 5 to 40",
        &[(DROPPED, "0x4 0+120x35 4200x20")],
        &[(12, &[]), (22, &[DATAGRAMS_DROPPED]), (40, &[DATAGRAMS_DROPPED]), (47, &[])],
    ),
    ("a datagram is dropped now and then", &[(DROPPED, "0+5x60")], &[(60, &[])]),
    (
        "the receiver of spans is away from minute 5 to 40",
        &[
            (r#"maesh_proxy_spans_total{outcome="exported"}"#, "0+1000x4 4000x35 4000+1000x20"),
            (FAILED_SPANS, "0x4 0+1000x35 35000x20"),
        ],
        &[(15, &[]), (26, &[SPANS_DROPPED]), (40, &[SPANS_DROPPED]), (47, &[])],
    ),
    ("one span in two hundred is dropped", &[(FAILED_SPANS, "0+5x60")], &[(60, &[])]),
    ("no traces", &[(r#"maesh_proxy_spans_total{outcome="exported"}"#, "0x60")], &[(60, &[])]),
];
