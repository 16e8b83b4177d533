//! Values of annotations: what was read is read again, and is the same, as it is written back.

use std::{
    fmt::{Debug, Display},
    str::FromStr,
};

use maesh_config::{
    duration::{self, Written},
    policy::{Balance, FaultAbort, FaultDelay, Hedge, Percent, RateLimitBy, RetryBudget, RetryCondition, RetryOn},
};

/// Longest time that is written with five digits for its hours.
const LONGEST: u64 = 99_999 * 3_600;

/// Reads `text` as each of them.
pub(super) fn survive(text: &str) {
    survives::<Balance>(text);
    survives::<FaultAbort>(text);
    survives::<Percent>(text);
    survives::<RateLimitBy>(text);
    survives::<RetryBudget>(text);
    survives::<RetryCondition>(text);
    survives::<RetryOn>(text);
    let is_short = |text: &str| duration::parse(text).map_or(true, |time| time.as_secs() <= LONGEST);
    if text.split_whitespace().next().is_some_and(is_short) {
        survives::<FaultDelay>(text);
        survives::<Hedge>(text);
        if let Ok(time) = duration::parse(text) {
            assert_eq!(duration::parse(&Written(time).to_string()), Ok(time));
        }
    }
}

fn survives<T: FromStr + Display + PartialEq + Debug>(text: &str) {
    if let Ok(value) = text.parse::<T>() {
        let written = value.to_string();
        assert_eq!(written.parse().ok(), Some(value), "{text:?} is written as {written:?}");
    }
}
