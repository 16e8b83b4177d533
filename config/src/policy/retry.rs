//! Retries: how many times a request is tried, after which outcomes, and how much all retries together may add.

use std::{fmt, str::FromStr};

use serde::{Serialize, Serializer};

use crate::decode::{DecodeError, impossible};

/// Most tries of one request.
pub const MOST_ATTEMPTS: u32 = 10;

/// How a request is tried again.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize)]
pub struct Retry {
    /// Tries in all, the first one included: 1 to [`MOST_ATTEMPTS`]. After a connection that could not be made, a request is
    /// tried once more even if this is 1.
    pub attempts: u32,
    /// Outcomes after which it is tried again.
    pub on: RetryOn,
    /// What all retries may add to the load.
    pub budget: RetryBudget,
}

impl Default for Retry {
    fn default() -> Self {
        Self { attempts: 1, on: RetryOn::default(), budget: RetryBudget::default() }
    }
}

/// Outcomes after which a request is tried again: sorted, each once, never empty.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize)]
#[serde(transparent)]
pub struct RetryOn(Vec<RetryCondition>);

impl RetryOn {
    /// These outcomes; [`RetryCondition::ConnectFailure`] if there is none.
    pub fn new(mut conditions: Vec<RetryCondition>) -> Self {
        conditions.sort_unstable();
        conditions.dedup();
        if conditions.is_empty() { Self::default() } else { Self(conditions) }
    }

    /// Whether `condition` is one of them.
    pub fn has(&self, condition: RetryCondition) -> bool {
        self.0.binary_search(&condition).is_ok()
    }
}

impl Default for RetryOn {
    fn default() -> Self {
        Self(vec![RetryCondition::ConnectFailure])
    }
}

impl fmt::Display for RetryOn {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (i, condition) in self.0.iter().enumerate() {
            write!(f, "{}{condition}", if i == 0 { "" } else { "," })?;
        }
        Ok(())
    }
}

impl FromStr for RetryOn {
    type Err = BadRetry;

    fn from_str(text: &str) -> Result<Self, BadRetry> {
        Ok(Self::new(text.split(',').map(|word| word.trim().parse()).collect::<Result<_, _>>()?))
    }
}

/// One outcome, or [`AnyMethod`](Self::AnyMethod).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum RetryCondition {
    /// No connection could be made.
    ConnectFailure,
    /// The endpoint closed or reset the connection before its response began.
    Reset,
    /// 502, 503 or 504, also where the mesh would answer so itself.
    GatewayError,
    /// Any status from 500 on.
    ServerError,
    /// This status: 400 to 599.
    Status(u16),
    /// This status of gRPC, in a response without messages.
    Grpc(GrpcCode),
    /// No outcome: methods count as idempotent that are not.
    AnyMethod,
}

impl fmt::Display for RetryCondition {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::ConnectFailure => "connect-failure",
            Self::Reset => "reset",
            Self::GatewayError => "gateway-error",
            Self::ServerError => "5xx",
            Self::Status(status) => return status.fmt(f),
            Self::Grpc(code) => code.name(),
            Self::AnyMethod => "any-method",
        })
    }
}

impl FromStr for RetryCondition {
    type Err = BadRetry;

    fn from_str(text: &str) -> Result<Self, BadRetry> {
        Ok(match text {
            "connect-failure" => Self::ConnectFailure,
            "reset" => Self::Reset,
            "gateway-error" => Self::GatewayError,
            "5xx" => Self::ServerError,
            "any-method" => Self::AnyMethod,
            _ => match GrpcCode::named(text) {
                Some(code) => Self::Grpc(code),
                None => Self::Status(status(text).ok_or(BadRetry)?),
            },
        })
    }
}

impl Serialize for RetryCondition {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

fn status(text: &str) -> Option<u16> {
    let number = text.parse().ok()?;
    (text.len() == 3 && (400..600).contains(&number)).then_some(number)
}

/// Statuses of gRPC that may be worth another try.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[repr(u16)]
pub enum GrpcCode {
    /// CANCELLED
    Cancelled = 1,
    /// DEADLINE_EXCEEDED
    DeadlineExceeded = 4,
    /// RESOURCE_EXHAUSTED
    ResourceExhausted = 8,
    /// INTERNAL
    Internal = 13,
    /// UNAVAILABLE
    Unavailable = 14,
}

impl GrpcCode {
    const ALL: [Self; 5] =
        [Self::Cancelled, Self::DeadlineExceeded, Self::ResourceExhausted, Self::Internal, Self::Unavailable];

    /// The code with this number, if it may be worth another try.
    pub fn of(number: u16) -> Option<Self> {
        Self::ALL.into_iter().find(|code| *code as u16 == number)
    }

    /// As `retry-on` names it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Cancelled => "cancelled",
            Self::DeadlineExceeded => "deadline-exceeded",
            Self::ResourceExhausted => "resource-exhausted",
            Self::Internal => "internal",
            Self::Unavailable => "unavailable",
        }
    }

    fn named(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|code| code.name() == name)
    }
}

/// What all retries of a port may add to its load, in each proxy: the larger of the two, over ten seconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize)]
pub struct RetryBudget {
    /// Retries for each hundred requests.
    pub percent: u32,
    /// Retries a second that are always allowed.
    pub per_second: u32,
}

impl Default for RetryBudget {
    fn default() -> Self {
        Self { percent: 20, per_second: 10 }
    }
}

impl fmt::Display for RetryBudget {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}%,{}/s", self.percent, self.per_second)
    }
}

impl FromStr for RetryBudget {
    type Err = BadRetry;

    /// Reads `20%` or `20%,10/s`.
    fn from_str(text: &str) -> Result<Self, BadRetry> {
        let (percent, per_second) = text.split_once(',').map_or((text, None), |(share, rate)| (share, Some(rate)));
        let number = |text: &str, most| digits(text.trim()).filter(|number| *number <= most).ok_or(BadRetry);
        let percent = number(percent.trim().strip_suffix('%').ok_or(BadRetry)?, 1_000)?;
        let per_second = match per_second {
            Some(rate) => number(rate.trim().strip_suffix("/s").ok_or(BadRetry)?, 1_000_000)?,
            // No share is no retry at all.
            None if percent == 0 => 0,
            None => Self::default().per_second,
        };
        Ok(Self { percent, per_second })
    }
}

/// Digits and nothing else: no sign.
fn digits(text: &str) -> Option<u32> {
    text.bytes().all(|byte| byte.is_ascii_digit()).then(|| text.parse().ok()).flatten()
}

/// A text that is no value of `retry-on` or `retry-budget`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("not a condition or budget of retries")]
pub struct BadRetry;

/// The wire form of [`Retry`].
#[derive(Clone, PartialEq, prost::Message)]
pub(crate) struct RetryMessage {
    #[prost(uint32, tag = "1")]
    attempts: u32,
    /// Conditions in words. One that only newer versions know is skipped: the request is tried less often.
    #[prost(string, repeated, tag = "2")]
    on: Vec<String>,
    #[prost(uint32, tag = "3")]
    budget_percent: u32,
    #[prost(uint32, tag = "4")]
    budget_per_second: u32,
}

impl From<&Retry> for RetryMessage {
    fn from(retry: &Retry) -> Self {
        Self {
            attempts: retry.attempts,
            on: retry.on.0.iter().map(RetryCondition::to_string).collect(),
            budget_percent: retry.budget.percent,
            budget_per_second: retry.budget.per_second,
        }
    }
}

impl TryFrom<RetryMessage> for Retry {
    type Error = DecodeError;

    fn try_from(message: RetryMessage) -> Result<Self, DecodeError> {
        if !(1..=MOST_ATTEMPTS).contains(&message.attempts) {
            return Err(impossible("attempts of a retry"));
        }
        Ok(Self {
            attempts: message.attempts,
            on: RetryOn::new(message.on.iter().filter_map(|word| word.parse().ok()).collect()),
            budget: RetryBudget { percent: message.budget_percent, per_second: message.budget_per_second },
        })
    }
}

#[cfg(test)]
pub(crate) fn arbitrary() -> impl proptest::strategy::Strategy<Value = Retry> {
    use proptest::{collection::vec, prelude::*};
    let condition = prop_oneof![
        Just(RetryCondition::ConnectFailure),
        Just(RetryCondition::Reset),
        Just(RetryCondition::GatewayError),
        Just(RetryCondition::ServerError),
        (400..600_u16).prop_map(RetryCondition::Status),
        prop::sample::select(GrpcCode::ALL.to_vec()).prop_map(RetryCondition::Grpc),
        Just(RetryCondition::AnyMethod),
    ];
    (1..=MOST_ATTEMPTS, vec(condition, 1..6), any::<u32>(), any::<u32>()).prop_map(
        |(attempts, on, percent, per_second)| Retry {
            attempts,
            on: RetryOn::new(on),
            budget: RetryBudget { percent, per_second },
        },
    )
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn conditions_are_read_as_they_are_written() {
        for (text, want) in [
            ("connect-failure", Some("connect-failure")),
            (" reset , 5xx ", Some("reset,5xx")),
            ("503,gateway-error,503", Some("gateway-error,503")),
            ("unavailable,any-method", Some("unavailable,any-method")),
            ("", None),
            ("reset,,5xx", None),
            ("399", None),
            ("600", None),
            ("0503", None),
            ("+503", None),
            ("UNAVAILABLE", None),
            ("ok", None),
        ] {
            assert_eq!(text.parse::<RetryOn>().ok().map(|on| on.to_string()).as_deref(), want, "{text:?}");
        }
    }

    #[test]
    fn budgets_are_read_as_they_are_written() {
        for (text, want) in [
            ("20%", Some("20%,10/s")),
            ("5%,0/s", Some("5%,0/s")),
            ("0%", Some("0%,0/s")),
            (" 0% , 3/s ", Some("0%,3/s")),
            ("20", None),
            ("20%,10", None),
            ("-1%", None),
            ("1001%", None),
            ("20%,10/s,1", None),
            ("", None),
        ] {
            assert_eq!(text.parse::<RetryBudget>().ok().map(|it| it.to_string()).as_deref(), want, "{text:?}");
        }
    }

    proptest! {
        #[test]
        fn texts_survive(retry in arbitrary()) {
            prop_assert_eq!(retry.on.to_string().parse(), Ok(retry.on));
        }
    }
}
