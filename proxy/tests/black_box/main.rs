//! The proxy's behaviour on the wire. One program, because each one more takes its time to be linked.

mod buffers;
mod callers;
mod changes;
mod cut_off;
mod demand;
mod edges;
mod endpoints_http1;
mod endpoints_http2;
mod explain;
mod floods;
mod framing;
mod held;
mod http1;
mod http2;
mod idle;
mod leaving;
mod listeners;
mod malformed;
mod metrics;
mod opaque;
mod policies;
mod rooms;
mod support;
mod udp;
mod upgrade;
mod uploads;
