//! Callers that make it hard to part from them. A drain loses no request of theirs while they behave, waits for nobody beyond
//! its limit, and holds nothing for those that go on.

mod http2;
mod stubborn;

use std::{net::SocketAddr, sync::Arc, time::Duration};

use maesh_config::model::Scheme;
use maesh_proxy::Config;
use tokio::{sync::watch, task::JoinHandle};

use crate::support::{Fed, config, endpoints, within};

/// Bytes of a large response.
const LARGE: usize = 32 << 20;

/// A proxy that is to be drained, and an endpoint that answers `/slow` once it is told to.
struct Proxied {
    fed: Fed,
    address: SocketAddr,
    /// Requests that the endpoint has had.
    asked: Arc<watch::Sender<u32>>,
    free: watch::Sender<bool>,
    _server: endpoints::Server,
}

impl Proxied {
    /// Whose drain takes so long at most once it no longer accepts connections.
    async fn new(drain_timeout: Duration) -> Self {
        let (free, is_free) = watch::channel(false);
        let asked = Arc::new(watch::Sender::new(0));
        let counted = asked.clone();
        let server = endpoints::serve(true, move |request| {
            let mut is_free = is_free.clone();
            counted.send_modify(|asked| *asked += 1);
            async move {
                match request.uri().path() {
                    "/slow" => {
                        is_free.wait_for(|free| *free).await.expect("told");
                    }
                    "/large" => return http::Response::new(endpoints::full(vec![b'l'; LARGE])),
                    _ => {}
                }
                http::Response::new(endpoints::full("done"))
            }
        })
        .await;
        let fed = Fed::new(Config { drain_timeout, ..config() }).await;
        fed.begin().await;
        let address = fed.http("web.shop", Scheme::H2c, &[server.address]).await;
        Self { fed, address, asked, free, _server: server }
    }

    /// Begins to drain; returns how many connections had to be cut in the end.
    async fn drain(&mut self) -> JoinHandle<usize> {
        let drained = tokio::spawn(self.fed.proxy.take().expect("running").drain());
        within(self.fed.report.wait_for(|ready| !*ready)).await.expect("told");
        drained
    }

    /// Waits until the endpoint has had so many requests.
    async fn await_asked(&self, requests: u32) {
        within(self.asked.subscribe().wait_for(|asked| *asked >= requests)).await.expect("asked");
    }
}
