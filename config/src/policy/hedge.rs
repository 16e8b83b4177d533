//! Hedging: a second attempt while the first one is slow, and the earlier response is used.

use std::{fmt, str::FromStr, time::Duration};

use serde::{Serialize, Serializer};

use crate::{
    decode::{DecodeError, impossible},
    duration,
};

/// When a second attempt begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Hedge {
    /// After this time without a response; above zero.
    After(Duration),
    /// After the time in which this share of recent responses began, in percent: 50 to 99.
    Quantile(u32),
}

impl fmt::Display for Hedge {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::After(time) => duration::Written(*time).fmt(f),
            Self::Quantile(percent) => write!(f, "p{percent}"),
        }
    }
}

impl Serialize for Hedge {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

/// A text that says neither a time nor a quantile.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("not a time such as 50ms, or p50 to p99")]
pub struct BadHedge;

impl FromStr for Hedge {
    type Err = BadHedge;

    /// Reads `50ms` or `p95`.
    fn from_str(text: &str) -> Result<Self, BadHedge> {
        match text.strip_prefix('p') {
            Some(percent) if percent.len() == 2 => quantile(percent.parse().map_err(|_| BadHedge)?).ok_or(BadHedge),
            Some(_) => Err(BadHedge),
            None => {
                let time = duration::parse(text).map_err(|_| BadHedge)?;
                if time.is_zero() { Err(BadHedge) } else { Ok(Self::After(time)) }
            }
        }
    }
}

fn quantile(percent: u32) -> Option<Hedge> {
    (50..=99).contains(&percent).then_some(Hedge::Quantile(percent))
}

/// The wire form of [`Hedge`]: one of the two.
#[derive(Clone, PartialEq, prost::Message)]
pub(crate) struct HedgeMessage {
    #[prost(uint64, optional, tag = "1")]
    after_ns: Option<u64>,
    #[prost(uint32, optional, tag = "2")]
    quantile: Option<u32>,
}

impl From<&Hedge> for HedgeMessage {
    fn from(hedge: &Hedge) -> Self {
        match hedge {
            Hedge::After(time) => Self { after_ns: Some(duration::nanoseconds(*time)), quantile: None },
            Hedge::Quantile(percent) => Self { after_ns: None, quantile: Some(*percent) },
        }
    }
}

impl TryFrom<HedgeMessage> for Hedge {
    type Error = DecodeError;

    fn try_from(message: HedgeMessage) -> Result<Self, DecodeError> {
        match (message.after_ns, message.quantile) {
            (Some(after @ 1..), None) => Ok(Self::After(Duration::from_nanos(after))),
            (None, Some(percent)) => quantile(percent).ok_or_else(|| impossible("quantile of a hedge")),
            _ => Err(impossible("time of a hedge")),
        }
    }
}

#[cfg(test)]
pub(crate) fn arbitrary() -> impl proptest::strategy::Strategy<Value = Hedge> {
    use proptest::prelude::*;
    prop_oneof![
        (1..u64::MAX).prop_map(|after| Hedge::After(Duration::from_nanos(after))),
        (50..=99_u32).prop_map(Hedge::Quantile),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_read_as_they_are_written() {
        for (text, want) in [
            ("50ms", Some("50ms")),
            ("p50", Some("p50")),
            ("p99", Some("p99")),
            ("p49", None),
            ("p100", None),
            ("p9", None),
            ("p+9", None),
            ("0s", None),
            ("95", None),
            ("", None),
        ] {
            assert_eq!(text.parse::<Hedge>().ok().map(|it| it.to_string()).as_deref(), want, "{text:?}");
        }
    }
}
