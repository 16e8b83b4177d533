//! What the HTTP proxies carry, in the words of each one's configuration (`tests/bench/http/`).

use std::fs;

use anyhow::Result;

use super::rivals::Template;

/// What is sent through a proxy.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Traffic {
    /// HTTP/1.1 on both sides.
    Http1,
    /// HTTP/2 without TLS on both sides.
    Http2,
    /// The same, where a proxy needs to know that it is gRPC.
    Grpc,
    /// HTTP/1.1 that becomes WebSocket.
    WebSocket,
}

impl Traffic {
    /// The other proxies that can carry it.
    pub(crate) fn rivals(self) -> &'static [&'static str] {
        match self {
            // nginx speaks HTTP/2 to endpoints for gRPC only.
            Self::Http2 => &["haproxy", "envoy"],
            Self::Http1 | Self::Grpc | Self::WebSocket => &["haproxy", "nginx", "envoy"],
        }
    }

    /// Sets what the templates need for it, with `services` Services and as many `connections` as a proxy may have open.
    pub(crate) fn configure(self, template: &mut Template, services: usize, connections: usize) -> Result<()> {
        let second = matches!(self, Self::Http2 | Self::Grpc);
        let upgrade = self == Self::WebSocket;
        let values: [(&str, &str); 9] = [
            ("SCHEME", self.app_protocol()),
            ("PROTO", if second { "proto h2" } else { "" }),
            ("UPSTREAM", if second { "http2_protocol_options" } else { "http_protocol_options" }),
            ("UPGRADES", if upgrade { "[{ upgrade_type: websocket }]" } else { "[]" }),
            ("LISTEN", if second { " http2" } else { "" }),
            ("MODULE", if self == Self::Grpc { "grpc" } else { "proxy" }),
            ("URL", if self == Self::Grpc { "grpc" } else { "http" }),
            ("CONNECTION", if upgrade { "upgrade" } else { "" }),
            ("UPGRADE", if upgrade { "$http_upgrade" } else { "" }),
        ];
        for (name, value) in values {
            template.set(name, value);
        }
        template.set("CONNECTIONS", connections.to_string());
        template.set("FILES", (2 * connections).to_string());
        let hosts: String = (0..services).map(|i| format!("service-{i}.bench.maesh service-{i}\n")).collect();
        Ok(fs::write(template.folder().join("hosts.map"), hosts)?)
    }

    /// What the port of a Service says that it speaks.
    fn app_protocol(self) -> &'static str {
        match self {
            Self::Http1 => "http",
            Self::Http2 => "kubernetes.io/h2c",
            Self::Grpc => "kubernetes.io/grpc",
            Self::WebSocket => "kubernetes.io/ws",
        }
    }
}

/// Connections that a proxy may have open where a bench does not ask for more.
pub(crate) const CONNECTIONS: usize = 4096;
