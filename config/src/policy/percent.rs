//! A share of requests, in percent.

use std::{fmt, str::FromStr};

use serde::{Serialize, Serializer};

/// Hundredths of a percent in all.
const ALL: u32 = 10_000;

/// A share of requests: 0 to 100 %, in steps of a hundredth of a percent.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Percent(u32);

impl Percent {
    /// Every request.
    pub const ALL: Self = Self(ALL);

    /// So many hundredths of a percent; `None` above 100 %.
    pub fn hundredths(hundredths: u32) -> Option<Self> {
        (hundredths <= ALL).then_some(Self(hundredths))
    }

    /// The same as a number of hundredths.
    pub fn as_hundredths(self) -> u32 {
        self.0
    }

    /// Whether a request is one of this share; `draw` is uniformly random.
    pub fn takes(self, draw: u64) -> bool {
        draw % u64::from(ALL) < u64::from(self.0)
    }
}

impl fmt::Display for Percent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (whole, rest) = (self.0 / 100, self.0 % 100);
        match rest {
            0 => write!(f, "{whole}%"),
            rest if rest % 10 == 0 => write!(f, "{whole}.{}%", rest / 10),
            rest => write!(f, "{whole}.{rest:02}%"),
        }
    }
}

impl Serialize for Percent {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

/// A text that is no share.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("not a share such as 10% or 0.5%")]
pub struct BadPercent;

impl FromStr for Percent {
    type Err = BadPercent;

    /// Reads `10%` or `0.25%`: at most two digits behind the point.
    fn from_str(text: &str) -> Result<Self, BadPercent> {
        let number = text.strip_suffix('%').ok_or(BadPercent)?;
        let (whole, rest) = number.split_once('.').map_or((number, None), |(whole, rest)| (whole, Some(rest)));
        let is_number = |text: &str| (1..=3).contains(&text.len()) && text.bytes().all(|byte| byte.is_ascii_digit());
        if !is_number(whole) || rest.is_some_and(|rest| !is_number(rest) || rest.len() > 2) {
            return Err(BadPercent);
        }
        let rest = format!("{:0<2}", rest.unwrap_or_default());
        let hundredths = |text: &str| text.parse::<u32>().map_err(|_| BadPercent);
        Self::hundredths(hundredths(whole)? * 100 + hundredths(&rest)?).ok_or(BadPercent)
    }
}

#[cfg(test)]
pub(crate) fn arbitrary() -> impl proptest::strategy::Strategy<Value = Percent> {
    use proptest::prelude::*;
    (0..=ALL).prop_map(Percent)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn shares_are_read_as_they_are_written() {
        for (text, want) in [
            ("0%", Some(0)),
            ("100%", Some(10_000)),
            ("100.0%", Some(10_000)),
            ("0.5%", Some(50)),
            ("0.05%", Some(5)),
            ("12.34%", Some(1_234)),
            ("100.01%", None),
            ("101%", None),
            ("1.234%", None),
            (".5%", None),
            ("5.%", None),
            ("-1%", None),
            ("+1%", None),
            ("5", None),
            ("%", None),
            ("", None),
        ] {
            assert_eq!(text.parse::<Percent>().ok().map(Percent::as_hundredths), want, "{text:?}");
        }
    }

    #[test]
    fn a_share_takes_its_part() {
        for hundredths in [0, 1, 2_500, 10_000] {
            let share = Percent(hundredths);
            let taken = (0..u64::from(ALL)).filter(|draw| share.takes(*draw)).count();
            assert_eq!(taken, hundredths as usize);
        }
    }

    proptest! {
        #[test]
        fn texts_survive(percent in arbitrary()) {
            prop_assert_eq!(percent.to_string().parse(), Ok(percent));
        }
    }
}
