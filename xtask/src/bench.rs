//! The benches: each measures one part of maesh beside other programs that do the same work.
//!
//! One module a bench; each prints the table that `docs/performance.md` holds. What all of them share (processor time of
//! a tree of processes, alternating rounds, medians) is in [`crate::measure`]; what those share that compare proxies is in
//! [`rivals`] (the programs), [`traffic`] (what they carry), [`backends`], [`load`] and [`comparison`] (the table).

mod acks;
mod backends;
mod binary;
mod comparison;
mod connections;
mod dns;
mod grpc;
mod http;
pub(crate) mod instructions;
mod load;
mod own;
mod pods;
mod policies;
pub(crate) mod rivals;
mod scale;
mod tcp;
mod template;
mod traffic;
mod udp;
mod websocket;

use anyhow::Result;
use clap::Subcommand;

/// Which bench.
#[derive(Subcommand)]
pub(crate) enum Bench {
    /// What the acknowledgements of 1,000 proxies cost the controller
    Acks(acks::Options),
    /// DNS answers beside Knot, NSD, hickory-server and CoreDNS
    Dns(dns::Options),
    /// HTTP requests beside HAProxy, nginx and Envoy
    Http(http::Options),
    /// gRPC calls beside Envoy, HAProxy and nginx
    Grpc(grpc::Options),
    /// WebSocket messages beside HAProxy, nginx and Envoy
    Ws(websocket::Options),
    /// Idle connections and new ones, beside HAProxy, nginx and Envoy
    Connections(connections::Options),
    /// Instructions of the parts of a request's work, beside those in docs/instructions.md
    Instructions(instructions::Options),
    /// What a changed pod costs the controller with 10,000 Services and 1,000 TrafficTargets
    Pods(pods::Options),
    /// What each policy costs a request, and all of them together
    Policies(policies::Options),
    /// TCP streams beside HAProxy
    Tcp(tcp::Options),
    /// UDP datagrams beside nginx
    Udp(udp::Options),
    /// 10,000 Services and 100,000 endpoints in a real API server
    Scale(scale::Options),
    /// What own addresses cost a node's kube-proxy, past their budget and without one
    Own(own::Options),
}

/// nginx's part for TCP.
pub(crate) const NGINX_STREAM: &str = "/usr/lib/nginx/modules/ngx_stream_module.so";

/// Runs one bench.
pub(crate) fn run(bench: &Bench) -> Result<()> {
    let setup = match bench {
        Bench::Dns(options) => options.setting.setup,
        Bench::Http(options) => options.setting.setup,
        Bench::Grpc(options) => options.setting.setup,
        Bench::Ws(options) => options.setting.setup,
        Bench::Connections(options) => options.setting.setup,
        Bench::Policies(options) => options.setting.setup,
        Bench::Tcp(options) => options.setting.setup,
        Bench::Udp(options) => options.setting.setup,
        Bench::Acks(_) | Bench::Instructions(_) | Bench::Pods(_) | Bench::Scale(_) | Bench::Own(_) => false,
    };
    if setup {
        crate::setup::for_benches()?;
    }
    match bench {
        Bench::Acks(options) => acks::run(options),
        Bench::Dns(options) => dns::run(options),
        Bench::Http(options) => http::run(options),
        Bench::Grpc(options) => grpc::run(options),
        Bench::Ws(options) => websocket::run(options),
        Bench::Connections(options) => connections::run(options),
        Bench::Instructions(options) => instructions::run(options),
        Bench::Pods(options) => pods::run(options),
        Bench::Policies(options) => policies::run(options),
        Bench::Tcp(options) => tcp::run(options),
        Bench::Udp(options) => udp::run(options),
        Bench::Scale(options) => scale::run(options),
        Bench::Own(options) => own::run(options),
    }
}
