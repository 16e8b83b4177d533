//! What the metrics say of a proxy that has carried something, and that callers cannot make them grow.

use std::{collections::BTreeSet, time::Duration};

use maesh_config::{
    Kind,
    policy::{BackendPolicy, CalledPolicy, Eject},
};
use tokio::io::AsyncWriteExt;

use crate::{
    policies::failing,
    support::{Fed, Raw, ask, config, echoing, get, within},
};

/// Names and labels of all series.
fn series(text: &str) -> BTreeSet<String> {
    let sample = |line: &&str| !line.starts_with('#');
    text.lines().filter(sample).filter_map(|line| Some(line.rsplit_once(' ')?.0.to_owned())).collect()
}

/// A request is counted when its response has ended, which is a moment after its caller has it.
async fn until(what: &str, holds: impl Fn() -> bool) {
    within(async {
        while !holds() {
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    })
    .await;
    assert!(holds(), "{what}");
}

#[tokio::test]
async fn random_paths_hosts_and_methods_make_no_series() {
    let (fed, address, _server) = echoing().await;
    let known = ["GET", "HEAD", "POST", "PUT", "DELETE", "OPTIONS", "PATCH", "TRACE", "BREW"];
    let answered =
        |fed: &Fed| fed.counted("maesh_http_requests_total", &[]) + fed.counted("maesh_http_refused_total", &[]);
    for method in known {
        for host in ["web.shop", "nobody.shop"] {
            let mut raw = Raw::to(address).await;
            raw.say(&format!("{method} / HTTP/1.1\r\nHost: {host}\r\n\r\n")).await;
            raw.head().await;
        }
    }
    until("all are counted", || answered(&fed) == 2 * known.len() as u64).await;
    let before = series(&fed.metrics());
    let mut many = Raw::to(address).await;
    for i in 0..10_000_u32 {
        // A number that looks as if drawn, and is the same in every run.
        let drawn = i.wrapping_mul(2_654_435_761);
        let host = if i % 2 == 0 { "web.shop".to_owned() } else { format!("h{drawn}.shop") };
        let method = if i % 3 == 0 { format!("M{drawn}") } else { known[i as usize % 9].replace("HEAD", "GET") };
        let request = format!("{method} /p{drawn}?q={drawn} HTTP/1.1\r\nHost: {host}\r\n\r\n");
        many.stream.write_all(request.as_bytes()).await.expect("written");
        many.hear().await;
    }
    until("all are counted", || answered(&fed) == 10_000 + 2 * known.len() as u64).await;
    let after = series(&fed.metrics());
    assert_eq!(after.difference(&before).collect::<Vec<_>>(), Vec::<&String>::new());
}

#[tokio::test]
async fn series_of_policies_have_the_service_and_go_with_it() {
    let fed = Fed::new(config()).await;
    fed.begin().await;
    let (server, _) = failing("web", 503, usize::MAX).await;
    let (other, _) = failing("other", 503, 0).await;
    let eject = Eject { failures: 2, most_percent: 100 };
    let backend = BackendPolicy { eject, ..BackendPolicy::default() };
    let address = fed.http_with("web.shop", CalledPolicy::default(), backend, &[server.address, other.address]).await;
    let web = ["service=\"web\"", "namespace=\"shop\"", &format!("port=\"{}\"", address.port())];
    let endpoints = |state: &str| fed.counted("maesh_proxy_endpoints", &[&web[..], &[state]].concat());
    within(async {
        while fed.counted("maesh_proxy_ejections_total", &web) == 0 {
            let _ = ask(address, &get("web.shop", "/")).await;
        }
    })
    .await;
    until("nothing is in flight", || fed.counted("maesh_proxy_backend_in_flight", &web) == 0).await;
    assert_eq!((endpoints("state=\"usable\""), endpoints("state=\"ejected\"")), (1, 1));
    assert_eq!(fed.counted("maesh_proxy_ejections_total", &web), 1);
    fed.push(Kind::Name, Vec::new(), vec!["shop/web"]).await;
    let left: Vec<_> = series(&fed.metrics()).into_iter().filter(|series| series.contains("web")).collect();
    assert_eq!(left, Vec::<String>::new());
}

#[tokio::test]
async fn sizes_durations_and_the_age_of_the_configuration_are_told() {
    let (fed, address, _server) = echoing().await;
    let (_, body) = ask(address, "POST / HTTP/1.1\r\nHost: web.shop\r\nContent-Length: 5\r\n\r\nhello").await;
    let web = ["service=\"web\""];
    until("it is counted", || fed.counted("maesh_http_requests_total", &web) == 1).await;
    assert_eq!(fed.counted("maesh_http_request_body_bytes_total", &web), 5);
    assert_eq!(fed.counted("maesh_http_response_body_bytes_total", &web), body.len() as u64);
    // Without this bucket Prometheus computes no quantile.
    assert_eq!(fed.counted("maesh_http_request_duration_seconds_bucket", &["le=\"+Inf\""]), 1);
    assert_eq!(fed.counted("maesh_proxy_controller_connected", &[]), 1);
    fed.connected.send_replace(false);
    assert_eq!(fed.counted("maesh_proxy_controller_connected", &[]), 0);
    assert!(fed.metrics().contains("\nmaesh_proxy_config_age_seconds "), "{}", fed.metrics());
    until("the connection is kept", || {
        fed.counted("maesh_proxy_upstream_connections_kept", &["protocol=\"http1\""]) == 1
    })
    .await;
}
