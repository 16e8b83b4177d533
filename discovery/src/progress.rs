//! The two small texts in which a server says where it is.

use std::{fmt, str::FromStr, sync::Arc};

/// The revision of a server's state, and whether everything subscribed has been delivered with it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RevisionMark {
    /// Counts changes of this server since it started; comparable within one stream only.
    pub revision: u64,
    /// Everything that was subscribed when this was sent has been sent at least once.
    pub complete: bool,
}

impl fmt::Display for RevisionMark {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.complete { write!(f, "complete:{}", self.revision) } else { write!(f, "{}", self.revision) }
    }
}

/// A text that is no [`RevisionMark`]: another server's.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("not a revision of ours")]
pub struct ForeignMark;

impl FromStr for RevisionMark {
    type Err = ForeignMark;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let (complete, number) = match text.strip_prefix("complete:") {
            Some(number) => (true, number),
            None => (false, text),
        };
        Ok(Self { revision: number.parse().map_err(|_| ForeignMark)?, complete })
    }
}

/// Request header with which a subscriber also takes a controller whose own view of the cluster is old. Without it, such a
/// controller refuses, with a status that [`is_stale`] knows.
pub(crate) const ACCEPT_STALE: &str = "maesh-accept-stale";
const REFUSED: &str = "maesh-refused";

/// The status of a controller whose own view of the cluster is old.
pub(crate) fn stale(reason: &str) -> tonic::Status {
    let mut status = tonic::Status::unavailable(reason);
    status.metadata_mut().insert(REFUSED, tonic::metadata::MetadataValue::from_static("stale"));
    status
}

/// Whether a stream was refused because the controller's own view of the cluster is old.
pub(crate) fn is_stale(status: &tonic::Status) -> bool {
    status.metadata().get(REFUSED).is_some_and(|why| why == "stale")
}

/// Which replica speaks, and how far its watches of the cluster are.
///
/// The number only has to grow with time and to be comparable between replicas; 0 is "not known" and compares with
/// nothing. A subscriber that has seen a greater one keeps what it has for a while rather than go back in time.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Progress {
    /// Name of the replica.
    pub replica: Arc<str>,
    /// How far it is.
    pub reached: u64,
}

impl fmt::Display for Progress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} progress={}", self.replica, self.reached)
    }
}

impl Progress {
    /// Reads the text of any server; one that is not ours has reached 0.
    pub fn read(identifier: &str) -> Self {
        match identifier.rsplit_once(" progress=") {
            Some((replica, reached)) if reached.parse::<u64>().is_ok() => {
                Self { replica: replica.into(), reached: reached.parse().unwrap_or(0) }
            }
            _ => Self { replica: identifier.into(), reached: 0 },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn marks() {
        for (text, want) in [
            ("complete:7", Some(RevisionMark { revision: 7, complete: true })),
            ("0", Some(RevisionMark { revision: 0, complete: false })),
            ("", None),
            ("complete:", None),
            ("snapshot-7", None),
        ] {
            let mark = text.parse::<RevisionMark>().ok();
            assert_eq!(mark, want, "{text:?}");
            if let Some(mark) = mark {
                assert_eq!(mark.to_string(), text);
            }
        }
    }

    #[test]
    fn progress_of_ours_and_of_others() {
        for (text, replica, reached) in [
            ("maesh-controller-0 progress=41", "maesh-controller-0", 41),
            ("istiod", "istiod", 0),
            ("x progress=many", "x progress=many", 0),
            ("", "", 0),
        ] {
            assert_eq!(Progress::read(text), Progress { replica: replica.into(), reached }, "{text:?}");
        }
    }
}
