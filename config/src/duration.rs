//! Durations as Gateway API writes them (GEP-2257): `1h2m3s4ms`, whole numbers, largest unit first.

use std::{fmt, time::Duration};

/// Why a text is not a duration.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is not a duration such as 500ms, 5s or 1m30s")]
pub struct BadDuration(String);

const UNITS: [(&str, u64); 4] = [("h", 3_600_000), ("m", 60_000), ("s", 1_000), ("ms", 1)];

/// Reads `1h2m3s4ms`: one to four parts of at most five digits, each unit at most once and in this order. `0s` is zero.
pub fn parse(text: &str) -> Result<Duration, BadDuration> {
    let bad = || BadDuration(text.to_owned());
    let (mut rest, mut millis, mut next_unit) = (text, 0_u64, 0);
    if rest.is_empty() {
        return Err(bad());
    }
    while !rest.is_empty() {
        let digits = rest.find(|c: char| !c.is_ascii_digit()).ok_or_else(bad)?;
        let letters = rest[digits..].find(|c: char| c.is_ascii_digit()).map_or(rest.len(), |at| digits + at);
        let unit = UNITS.iter().position(|(name, _)| *name == &rest[digits..letters]).ok_or_else(bad)?;
        if digits == 0 || digits > 5 || unit < next_unit {
            return Err(bad());
        }
        millis += rest[..digits].parse::<u64>().map_err(|_| bad())? * UNITS[unit].1;
        next_unit = unit + 1;
        rest = &rest[letters..];
    }
    Ok(Duration::from_millis(millis))
}

/// Nanoseconds; what exceeds 584 years becomes that.
pub(crate) fn nanoseconds(duration: Duration) -> u64 {
    duration.as_nanos().try_into().unwrap_or(u64::MAX)
}

/// Shows a duration as [`parse`] reads it. What is below a millisecond is left out.
#[derive(Clone, Copy, Debug)]
pub struct Written(pub Duration);

impl fmt::Display for Written {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut left = self.0.as_millis();
        if left == 0 {
            return f.write_str("0s");
        }
        for (name, millis) in UNITS {
            let count = left / u128::from(millis);
            left %= u128::from(millis);
            if count > 0 {
                write!(f, "{count}{name}")?;
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_written_duration_is_read_as_it_was() {
        for (millis, want) in
            [(0, "0s"), (5, "5ms"), (1_000, "1s"), (90_000, "1m30s"), (3_723_004, "1h2m3s4ms"), (3_600_000, "1h")]
        {
            let (duration, text) = (Duration::from_millis(millis), Written(Duration::from_millis(millis)).to_string());
            assert_eq!(text, want);
            assert_eq!(parse(&text), Ok(duration));
        }
    }

    #[test]
    fn durations() {
        for (text, want) in [
            ("0s", Some(0)),
            ("500ms", Some(500)),
            ("1m30s", Some(90_000)),
            ("1h2m3s4ms", Some(3_723_004)),
            ("99999h", Some(359_996_400_000)),
            ("", None),
            ("5", None),
            ("s", None),
            ("5 s", None),
            ("-5s", None),
            ("1.5s", None),
            ("5s1m", None),
            ("1s1s", None),
            ("100000s", None),
            ("5sec", None),
        ] {
            assert_eq!(parse(text).ok(), want.map(Duration::from_millis), "{text:?}");
        }
    }
}
