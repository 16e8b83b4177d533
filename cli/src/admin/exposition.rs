//! The forms in which the metrics are written down, and which of them a scrape asks for.

use std::{fmt, time::Instant};

use bytes::Bytes;
use http::{HeaderMap, header};
use prometheus_client::{
    encoding::{prometheus_protobuf, text},
    registry::Registry,
};

/// A form of the metrics.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Form {
    /// OpenMetrics 1.0.
    Text,
    /// The messages of Prometheus. Only they have native histograms.
    Protobuf,
}

/// The name of the messages.
const MESSAGE: &str = "io.prometheus.client.MetricFamily";

impl Form {
    /// What the field `Accept` asks for (RFC 9110 section 12.5.1): text, unless the messages of Prometheus are wanted more.
    /// Prometheus asks for them where it scrapes native histograms.
    pub(super) fn wanted(head: &HeaderMap) -> Self {
        let values = head.get_all(header::ACCEPT).into_iter().filter_map(|value| value.to_str().ok());
        let (mut text, mut protobuf) = (0, 0);
        for range in values.flat_map(|value| value.split(',')) {
            let mut parts = range.split(';').map(|part| part.trim().to_ascii_lowercase());
            let kind = parts.next().unwrap_or_default();
            let parameters: Vec<String> = parts.collect();
            let has = |name: &str, value: &str| {
                parameters
                    .iter()
                    .filter_map(|one| one.split_once('='))
                    .any(|(n, v)| n.trim() == name && v.trim().trim_matches('"').eq_ignore_ascii_case(value))
            };
            let weight = weight(&parameters);
            match &*kind {
                "application/vnd.google.protobuf" if has("proto", MESSAGE) && has("encoding", "delimited") => {
                    protobuf = protobuf.max(weight);
                }
                "application/openmetrics-text" | "text/plain" | "text/*" | "*/*" => text = text.max(weight),
                _ => {}
            }
        }
        if protobuf > text { Self::Protobuf } else { Self::Text }
    }

    /// The media type of what [`Form::write`] makes.
    pub(super) fn media_type(self) -> &'static str {
        match self {
            Self::Text => "application/openmetrics-text; version=1.0.0; charset=utf-8",
            Self::Protobuf => {
                "application/vnd.google.protobuf; proto=io.prometheus.client.MetricFamily; encoding=delimited"
            }
        }
    }

    /// All metrics.
    pub(super) fn write(self, metrics: &Registry) -> Result<Bytes, fmt::Error> {
        match self {
            Self::Text => {
                let mut written = String::new();
                text::encode(&mut written, metrics)?;
                Ok(written.into())
            }
            Self::Protobuf => Ok(prometheus_protobuf::encode_to_vec(metrics).map_err(|_| fmt::Error)?.into()),
        }
    }
}

/// The weight of a media range, in thousandths.
fn weight(parameters: &[String]) -> u32 {
    let weight = parameters.iter().find_map(|parameter| parameter.strip_prefix("q=")?.parse::<f32>().ok());
    #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)]
    weight.map_or(1000, |weight| (weight.clamp(0.0, 1.0) * 1000.0) as u32)
}

/// What was written last in each form, and since when it may be out of date.
#[derive(Default)]
pub(super) struct Expositions([Exposition; 2]);

#[derive(Default)]
struct Exposition {
    begun: Option<Instant>,
    written: Bytes,
}

impl Expositions {
    /// What was written, if that was begun after `arrived`.
    pub(super) fn since(&self, form: Form, arrived: Instant) -> Option<Bytes> {
        let last = &self.0[form as usize];
        last.begun.filter(|begun| *begun >= arrived).map(|_| last.written.clone())
    }

    /// Keeps what was written.
    pub(super) fn keep(&mut self, form: Form, begun: Instant, written: Bytes) {
        self.0[form as usize] = Exposition { begun: Some(begun), written };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_form_is_what_accept_asks_for_most() {
        const MESSAGES: &str =
            "application/vnd.google.protobuf;proto=io.prometheus.client.MetricFamily;encoding=delimited";
        for (accept, wanted) in [
            (String::new(), Form::Text),
            ("*/*".to_owned(), Form::Text),
            ("application/openmetrics-text;version=1.0.0,text/plain;q=0.5".to_owned(), Form::Text),
            (format!("{MESSAGES};q=0.6,application/openmetrics-text;version=1.0.0;q=0.5,*/*;q=0.1"), Form::Protobuf),
            (format!("application/openmetrics-text;version=1.0.0;q=0.6,{MESSAGES};q=0.5"), Form::Text),
            (MESSAGES.to_owned(), Form::Protobuf),
            (MESSAGES.to_uppercase(), Form::Protobuf),
            (format!("{MESSAGES};q=0"), Form::Text),
            (MESSAGES.replace("delimited", "text"), Form::Text),
            ("application/vnd.google.protobuf".to_owned(), Form::Text),
            ("application/vnd.google.protobuf;q=x,;;=,q".to_owned(), Form::Text),
        ] {
            let mut head = HeaderMap::new();
            if !accept.is_empty() {
                head.insert(header::ACCEPT, accept.parse().expect("a field"));
            }
            assert_eq!(Form::wanted(&head), wanted, "{accept}");
        }
    }
}
