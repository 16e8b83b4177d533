//! Questions to Prometheus by its HTTP API.

use std::fmt::Write as _;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use anyhow::{Context, Result, bail, ensure};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::Measured;
use super::dashboard::{Dashboard, Target, Variable};

/// Points of a line at most.
const POINTS: f64 = 120.0;
/// How long a response may take.
const PATIENCE: Duration = Duration::from_secs(20);

/// One line of a panel.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct Line {
    /// As the legend has it.
    pub(super) name: String,
    /// Seconds since the picture begins, and the value; none where the result is not a number.
    pub(super) points: Vec<(f64, Option<f64>)>,
}

/// A Prometheus that runs.
#[derive(Debug, Clone, Copy)]
pub(super) struct Prometheus {
    pub(super) address: SocketAddr,
}

/// A time of which it knows.
pub(super) struct Run<'a> {
    prometheus: &'a Prometheus,
    begin: f64,
    end: f64,
}

impl<'a> Run<'a> {
    /// The time that ends now.
    pub(super) fn until_now(prometheus: &'a Prometheus, length: Duration) -> Self {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs_f64().floor();
        Self { prometheus, begin: now - length.as_secs_f64(), end: now }
    }

    /// Runs all queries of a dashboard.
    pub(super) fn measure(&self, dashboard: &Dashboard) -> Result<Measured> {
        for variable in &dashboard.variables {
            self.check(variable)?;
        }
        let lines = |targets: &[Target]| -> Result<Vec<Line>> {
            let mut all = Vec::new();
            for target in targets {
                let mut lines = self.lines(target)?;
                if lines.is_empty() {
                    println!("{}: no result: {}", dashboard.name, target.expr);
                }
                lines.sort_by(|one, other| one.name.cmp(&other.name));
                all.extend(lines);
            }
            Ok(all)
        };
        let panels = dashboard.panels.iter().map(|panel| lines(&panel.targets)).collect::<Result<_>>()?;
        Ok(Measured { seconds: self.end - self.begin, panels })
    }

    /// Whether a dashboard offers the value of a variable that is drawn.
    fn check(&self, variable: &Variable) -> Result<()> {
        let Variable { label, series, value, title } = variable;
        let answer = self.ask(&format!("/api/v1/label/{label}/values?match[]={}", encoded(series)))?;
        let offered = answer["data"].as_array().with_context(|| format!("{series}: {answer}"))?;
        println!("{title}: {} to choose from", offered.len());
        ensure!(offered.iter().any(|one| one == value), "{title}: {value} is not offered: {answer}");
        Ok(())
    }

    fn ask(&self, path: &str) -> Result<Value> {
        let answer = get(self.prometheus.address, path)?;
        serde_json::from_str(&answer).with_context(|| format!("{path}: {answer}"))
    }

    /// The lines of one query.
    fn lines(&self, target: &Target) -> Result<Vec<Line>> {
        let step = ((self.end - self.begin) / POINTS).max(1.0).round();
        let path = format!(
            "/api/v1/query_range?query={}&start={}&end={}&step={step}",
            encoded(&target.expr),
            self.begin,
            self.end
        );
        let answer = self.ask(&path)?;
        let results = answer["data"]["result"].as_array().with_context(|| format!("{}: {answer}", target.expr))?;
        let point = |point: &Value| {
            let value = point[1].as_str().and_then(|value| value.parse().ok()).filter(|value: &f64| value.is_finite());
            (point[0].as_f64().unwrap_or_default() - self.begin, value)
        };
        let line = |result: &Value| Line {
            name: target.named(&result["metric"]),
            points: result["values"].as_array().into_iter().flatten().map(point).collect(),
        };
        Ok(results.iter().map(line).filter(|line| line.points.iter().any(|(_, value)| value.is_some())).collect())
    }
}

/// The body of a response with status 200. HTTP/1.0, so that it ends with the connection.
pub(super) fn get(address: SocketAddr, path: &str) -> Result<String> {
    let mut stream = TcpStream::connect_timeout(&address, PATIENCE)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    write!(stream, "GET {path} HTTP/1.0\r\nHost: {address}\r\n\r\n")?;
    let mut response = String::new();
    stream.read_to_string(&mut response)?;
    let (head, body) = response.split_once("\r\n\r\n").context("no response")?;
    if head.split(' ').nth(1) != Some("200") {
        bail!("{path}: {response}");
    }
    Ok(body.to_owned())
}

/// Text as a value of a URL's query.
fn encoded(text: &str) -> String {
    let mut encoded = String::new();
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() {
            encoded.push(byte.into());
        } else {
            let _ = write!(encoded, "%{byte:02X}");
        }
    }
    encoded
}
