//! HTTP requests beside HAProxy, nginx and Envoy.
//!
//! Ours is the image's binary, as `maesh dev`: the whole mesh in one process, whose other parts have nothing to do.
//!
//! One processor for the proxy, another one for load and backends; `--proxy-cpu 0-1` gives every proxy both, and as many
//! threads. The second is the bottleneck, so requests a second
//! are no capacity: the figure that counts is processor time of the proxy per request.

use anyhow::{Result, bail};
use clap::Args;

use super::backends::{self, BODY};
use super::comparison::{Comparison, ratios};
use super::load::{H2load, Wrk};
use super::rivals::{Field, HOST, Rival, SERVICES, Setting, Template, WARM_UP};
use super::scale::http::Client;
use super::traffic::{CONNECTIONS, Traffic};
use crate::measure::{Metric, Rounds};

/// Columns of the table.
const METRICS: [Metric; 5] = [
    Metric { name: "CPU (µs/request)", digits: 1 },
    Metric { name: "user", digits: 1 },
    Metric { name: "system", digits: 1 },
    Metric { name: "requests/s", digits: 0 },
    Metric { name: "memory (MiB)", digits: 0 },
];

/// What can be chosen.
#[derive(Args)]
pub(crate) struct Options {
    #[command(flatten)]
    rounds: Rounds,
    #[command(flatten)]
    pub(super) setting: Setting,
    /// HTTP/2 without TLS on both sides, instead of HTTP/1.1 (nginx cannot)
    #[arg(long)]
    h2: bool,
    /// Connections that make the load
    #[arg(long, default_value_t = 32)]
    connections: u32,
    /// Lengths of the answers' bodies, such as 0,1024,65536; a table for each
    #[arg(long, value_name = "BYTES", value_delimiter = ',', default_values_t = [BODY])]
    body: Vec<usize>,
}

/// Runs the bench and prints its tables.
pub(crate) fn run(options: &Options) -> Result<()> {
    let load = Load::find(options)?;
    let setting = &options.setting;
    let mut template = Template::new()?;
    backends::write_bodies(&template, &options.body)?;
    let _backends = if options.h2 {
        backends::nghttpd(setting, &mut template, &[])?
    } else {
        vec![backends::nginx(setting, &mut template)?]
    };
    let traffic = if options.h2 { Traffic::Http2 } else { Traffic::Http1 };
    traffic.configure(&mut template, SERVICES, CONNECTIONS)?;
    let field = Field { setting, templates: "http", count: SERVICES, names: [HOST; 2] };
    let rivals = field.start(&mut template, traffic.rivals())?;

    let comparison = Comparison { metrics: &METRICS, rounds: &options.rounds, reference: "haproxy" };
    for body in &options.body {
        let measure = |rival: &Rival| measure(options, &load, rival, *body);
        let series = comparison.print(&rivals, |rival| &rival.name, measure)?;
        println!("{}", ratios("CPU per request", &series, 0));
        println!(
            "{SERVICES} Services, three endpoints each, one Service asked for; {body}-byte answers; {}; {}.\n",
            load.text(options),
            comparison.conditions("")
        );
    }
    Ok(())
}

/// Loads `rival`, first unmeasured, then for the time of one round.
fn measure(options: &Options, load: &Load, rival: &Rival, body: usize) -> Result<Vec<f64>> {
    load.ask(options, rival, WARM_UP.as_secs(), body)?;
    let before = rival.process.usage()?;
    let requests = load.ask(options, rival, options.rounds.seconds, body)?;
    let used = rival.process.usage()? - before;
    #[allow(clippy::cast_precision_loss, reason = "some seconds")]
    let rate = requests / options.rounds.seconds as f64;
    Ok([&used.micros_per(requests)[..], &[rate, rival.process.memory()?]].concat())
}

/// What makes the requests.
enum Load {
    One(Wrk),
    Two(H2load),
}

impl Load {
    fn find(options: &Options) -> Result<Self> {
        Ok(if options.h2 { Self::Two(H2load::find()?) } else { Self::One(Wrk::find()?) })
    }

    fn text(&self, options: &Options) -> String {
        match self {
            Self::One(wrk) => format!("{}, HTTP/1.1 on both sides, {} connections", wrk.version, options.connections),
            Self::Two(h2load) => h2load.streams_text(),
        }
    }

    /// Makes requests for `seconds`; returns how many were answered with 200. Any other answer, one of another length,
    /// and any error of a socket is a failure of the bench.
    fn ask(&self, options: &Options, rival: &Rival, seconds: u64, body: usize) -> Result<f64> {
        let path = backends::path(body);
        match self {
            Self::One(wrk) => {
                let path = if body == BODY { "/" } else { &path };
                // wrk does not say how long each answer was.
                let answer = Client::connect(rival.port)?.get_path(HOST, path)?;
                if !answer.is_ok() || answer.body.len() != body {
                    bail!("{} answered {} bytes instead of {body}: {answer}", rival.name, answer.body.len());
                }
                let url = format!("http://{}{path}", rival.port);
                wrk.ask(&options.setting, options.connections, seconds, &format!("Host: {HOST}"), &url)
            }
            Self::Two(h2load) => {
                let arguments = ["-H".to_owned(), format!(":authority: {HOST}")];
                h2load.streams(&options.setting, seconds, &arguments, &format!("http://{}{path}", rival.port), body)
            }
        }
    }
}
