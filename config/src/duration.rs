//! Durations as Gateway API writes them (GEP-2257): `1h2m3s4ms`, whole numbers, largest unit first.

use std::time::Duration;

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

#[cfg(test)]
mod tests {
    use super::*;

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
