use std::path::PathBuf;

use clap::{Args, ValueEnum};
use maesh_config::policy::Percent;
use maesh_proxy::{AccessLogForm, AccessLogSettings, TraceEndpoint, TracePropagation, TraceProtocol, TraceSettings};

/// What a proxy tells of single requests.
#[derive(Debug, Clone, Args)]
pub struct TelemetryArgs {
    /// Write a line for each request and TCP connection, in this form; off if not given
    #[arg(long, env = "MAESH_ACCESS_LOG", value_name = "FORM")]
    pub access_log: Option<AccessLogArg>,
    /// Which share of the requests and connections is logged
    #[arg(long, env = "MAESH_ACCESS_LOG_SAMPLE", default_value = "100%", value_name = "PERCENT")]
    pub access_log_sample: Percent,
    /// File that the lines are added to; standard output if not given
    #[arg(long, env = "MAESH_ACCESS_LOG_FILE", value_name = "PATH")]
    pub access_log_file: Option<PathBuf>,
    /// Send spans of requests to this receiver of OTLP, such as an OpenTelemetry collector; off if not given
    #[arg(long, env = "MAESH_TRACE_ENDPOINT", value_name = "URL")]
    pub trace_endpoint: Option<TraceEndpoint>,
    /// How spans are sent
    #[arg(long, env = "MAESH_TRACE_PROTOCOL", default_value = "grpc", value_name = "PROTOCOL")]
    pub trace_protocol: TraceProtocolArg,
    /// Which share of the requests is recorded whose callers do not say whether theirs is
    #[arg(long, env = "MAESH_TRACE_SAMPLE", default_value = "1%", value_name = "PERCENT")]
    pub trace_sample: Percent,
    /// Fields in which a trace is passed on that begins at the proxy; repeat it for several. A trace that a caller began is
    /// passed on in the fields in which it came
    #[arg(
        long,
        env = "MAESH_TRACE_PROPAGATION",
        value_delimiter = ',',
        default_value = "tracecontext",
        value_name = "FIELDS"
    )]
    pub trace_propagation: Vec<TracePropagationArg>,
}

/// How spans are sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum TraceProtocolArg {
    /// OTLP over gRPC
    Grpc,
    /// OTLP over HTTP, with binary bodies
    Http,
}

/// Fields that carry the context of a trace.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum TracePropagationArg {
    /// traceparent
    Tracecontext,
    /// b3
    B3,
    /// X-B3-TraceId and its siblings
    B3multi,
}

/// The form of a line of the access log.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum AccessLogArg {
    /// An object of JSON
    Json,
    /// The common log format of web servers, and some more fields
    Common,
}

impl TelemetryArgs {
    /// Settings of the access log, if it is on.
    pub fn access_log(&self) -> Option<AccessLogSettings> {
        let form = match self.access_log? {
            AccessLogArg::Json => AccessLogForm::Json,
            AccessLogArg::Common => AccessLogForm::Common,
        };
        Some(AccessLogSettings { form, sample: self.access_log_sample, file: self.access_log_file.clone() })
    }

    /// Where spans are sent, if they are.
    pub fn traces(&self) -> Option<TraceSettings> {
        let propagation = self.trace_propagation.iter().map(|fields| match fields {
            TracePropagationArg::Tracecontext => TracePropagation::W3c,
            TracePropagationArg::B3 => TracePropagation::B3,
            TracePropagationArg::B3multi => TracePropagation::B3Multi,
        });
        Some(TraceSettings {
            endpoint: self.trace_endpoint.clone()?,
            protocol: match self.trace_protocol {
                TraceProtocolArg::Grpc => TraceProtocol::Grpc,
                TraceProtocolArg::Http => TraceProtocol::Http,
            },
            sample: self.trace_sample,
            propagation: propagation.collect(),
        })
    }
}
