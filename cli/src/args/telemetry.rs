use std::path::PathBuf;

use clap::{Args, ValueEnum};
use maesh_config::policy::Percent;
use maesh_proxy::{AccessLogForm, AccessLogSettings};

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
}
