//! What a check says.

use maesh_controller::duties::stanza;
use serde::Serialize;

use crate::inspect::ClusterError;

/// How it went.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Verdict {
    /// It is as it should be.
    Pass,
    /// The mesh works, and something is not as it should be.
    Warn,
    /// The mesh does not work, or not for everybody.
    Fail,
    /// It could not be looked at from here.
    Skip,
}

/// How it went, in words.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Outcome {
    /// How it went.
    #[serde(rename = "result")]
    pub verdict: Verdict,
    /// What was found.
    pub message: String,
    /// What mends it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub fix: Option<String>,
}

impl Outcome {
    /// It is as it should be.
    pub fn pass(message: impl Into<String>) -> Self {
        Self { verdict: Verdict::Pass, message: message.into(), fix: None }
    }

    /// The mesh works, and something is not as it should be.
    pub fn warn(message: impl Into<String>, fix: impl Into<String>) -> Self {
        Self { verdict: Verdict::Warn, message: message.into(), fix: Some(fix.into()) }
    }

    /// The mesh does not work, or not for everybody.
    pub fn fail(message: impl Into<String>, fix: impl Into<String>) -> Self {
        Self { verdict: Verdict::Fail, message: message.into(), fix: Some(fix.into()) }
    }

    /// It could not be looked at from here.
    pub fn skip(message: impl Into<String>) -> Self {
        Self { verdict: Verdict::Skip, message: message.into(), fix: None }
    }

    /// It was not read: skipped where that is not allowed or not there, failed otherwise.
    pub fn unread(error: &ClusterError) -> Self {
        if let Some(right) = error.missing_right() {
            return Self::skip(format!("not checked: needs the right to {right}"));
        }
        match error.code() {
            401 | 403 | 404 => Self::skip(error.to_string()),
            _ => Self::fail(error.to_string(), "see the error; try again once it is mended"),
        }
    }
}

impl Outcome {
    /// The cluster's DNS was not found, or may not be looked at.
    pub fn no_cluster_dns(error: &stanza::ClusterError) -> Self {
        match error {
            stanza::ClusterError::Forbidden { .. } => Self::skip(format!("not checked: {error}")),
            _ => Self::skip(error.to_string()),
        }
    }
}

/// A check that was made.
#[derive(Clone, Debug, Serialize)]
pub struct Checked {
    /// Its name.
    pub id: &'static str,
    /// Its group.
    pub group: &'static str,
    /// How it went.
    #[serde(flatten)]
    pub outcome: Outcome,
}

/// How many went how.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Counts {
    pub pass: usize,
    pub warn: usize,
    pub fail: usize,
    pub skip: usize,
}

impl Counts {
    /// Of these.
    pub fn of(all: &[Checked]) -> Self {
        let count = |verdict| all.iter().filter(|checked| checked.outcome.verdict == verdict).count();
        Self {
            pass: count(Verdict::Pass),
            warn: count(Verdict::Warn),
            fail: count(Verdict::Fail),
            skip: count(Verdict::Skip),
        }
    }
}
