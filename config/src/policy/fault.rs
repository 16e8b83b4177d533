//! Faults made on purpose: a share of the requests is delayed or refused, until a given time.

use std::{fmt, str::FromStr, time::Duration};

use serde::{Serialize, Serializer};

use super::percent::Percent;
use crate::{
    decode::{DecodeError, impossible},
    duration,
};

/// Faults of a port. At least one of the two is there.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize)]
pub struct Fault {
    /// Requests that wait before anything else happens to them.
    pub delay: Option<FaultDelay>,
    /// Requests that are refused.
    pub abort: Option<FaultAbort>,
    /// When all of this ends: seconds since 1970.
    pub until: u64,
}

/// A share of requests that wait.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct FaultDelay {
    /// For how long; above zero.
    pub time: Duration,
    /// How many of them.
    pub share: Percent,
}

/// A share of requests that are refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct FaultAbort {
    /// With this status: 400 to 599.
    pub status: u16,
    /// How many of them.
    pub share: Percent,
}

/// A text that is no fault.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("not a fault such as 200ms 5%, or 503 5%")]
pub struct BadFault;

/// What stands before the share, and the share: all requests where none is given.
fn with_share(text: &str) -> Result<(&str, Percent), BadFault> {
    let (what, share) = text.split_once(char::is_whitespace).map_or((text, None), |(what, share)| (what, Some(share)));
    let share = share.map_or(Ok(Percent::ALL), |share| share.trim().parse()).map_err(|_| BadFault)?;
    Ok((what, share))
}

impl FromStr for FaultDelay {
    type Err = BadFault;

    /// Reads `200ms` or `200ms 5%`.
    fn from_str(text: &str) -> Result<Self, BadFault> {
        let (time, share) = with_share(text)?;
        let time = duration::parse(time).map_err(|_| BadFault)?;
        if time.is_zero() { Err(BadFault) } else { Ok(Self { time, share }) }
    }
}

impl fmt::Display for FaultDelay {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", duration::Written(self.time), self.share)
    }
}

impl Serialize for FaultDelay {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl FromStr for FaultAbort {
    type Err = BadFault;

    /// Reads `503` or `503 5%`.
    fn from_str(text: &str) -> Result<Self, BadFault> {
        let (status, share) = with_share(text)?;
        let number = status.parse().map_err(|_| BadFault)?;
        if status.len() == 3 && is_refusal(number) { Ok(Self { status: number, share }) } else { Err(BadFault) }
    }
}

fn is_refusal(status: u16) -> bool {
    (400..600).contains(&status)
}

impl fmt::Display for FaultAbort {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.status, self.share)
    }
}

impl Serialize for FaultAbort {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

/// The wire form of [`Fault`]. Shares are hundredths of a percent; a time or status of 0 says that there is none.
#[derive(Clone, PartialEq, prost::Message)]
pub(crate) struct FaultMessage {
    #[prost(uint64, tag = "1")]
    delay_ns: u64,
    #[prost(uint32, tag = "2")]
    delay_share: u32,
    #[prost(uint32, tag = "3")]
    abort_status: u32,
    #[prost(uint32, tag = "4")]
    abort_share: u32,
    #[prost(uint64, tag = "5")]
    until: u64,
}

impl From<&Fault> for FaultMessage {
    fn from(fault: &Fault) -> Self {
        Self {
            delay_ns: fault.delay.map_or(0, |delay| duration::nanoseconds(delay.time)),
            delay_share: fault.delay.map_or(0, |delay| delay.share.as_hundredths()),
            abort_status: fault.abort.map_or(0, |abort| abort.status.into()),
            abort_share: fault.abort.map_or(0, |abort| abort.share.as_hundredths()),
            until: fault.until,
        }
    }
}

impl TryFrom<FaultMessage> for Fault {
    type Error = DecodeError;

    fn try_from(message: FaultMessage) -> Result<Self, DecodeError> {
        let share = |hundredths| Percent::hundredths(hundredths).ok_or_else(|| impossible("share of a fault"));
        let delay = match message.delay_ns {
            0 => None,
            time => Some(FaultDelay { time: Duration::from_nanos(time), share: share(message.delay_share)? }),
        };
        let abort = match u16::try_from(message.abort_status) {
            Ok(0) => None,
            Ok(status) if is_refusal(status) => Some(FaultAbort { status, share: share(message.abort_share)? }),
            _ => return Err(impossible("status of a fault")),
        };
        Ok(Self { delay, abort, until: message.until })
    }
}

#[cfg(test)]
pub(crate) fn arbitrary() -> impl proptest::strategy::Strategy<Value = Fault> {
    use proptest::{option, prelude::*};
    let delay = (1..u64::MAX, super::percent::arbitrary())
        .prop_map(|(time, share)| FaultDelay { time: Duration::from_nanos(time), share });
    let abort = (400..600_u16, super::percent::arbitrary()).prop_map(|(status, share)| FaultAbort { status, share });
    (option::of(delay), option::of(abort), any::<u64>()).prop_map(|(delay, abort, until)| Fault { delay, abort, until })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn faults_are_read_as_they_are_written() {
        let delay = |text: &str| text.parse::<FaultDelay>().ok().map(|it| it.to_string());
        let abort = |text: &str| text.parse::<FaultAbort>().ok().map(|it| it.to_string());
        for (text, as_delay, as_abort) in [
            ("200ms 5%", Some("200ms 5%"), None),
            ("1m30s", Some("1m30s 100%"), None),
            ("503 0.5%", None, Some("503 0.5%")),
            ("404", None, Some("404 100%")),
            ("503  5%", None, Some("503 5%")),
            ("0s 5%", None, None),
            ("200 5%", None, None),
            ("0503", None, None),
            ("200ms 5", None, None),
            ("200ms 5% x", None, None),
            ("5%", None, None),
            ("", None, None),
        ] {
            assert_eq!(delay(text).as_deref(), as_delay, "{text:?}");
            assert_eq!(abort(text).as_deref(), as_abort, "{text:?}");
        }
    }
}
