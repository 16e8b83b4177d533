//! What people are told by Events: what was done, once; what is wrong, for as long as it is.

use std::{sync::Arc, time::Duration};

use maesh_compiler::diagnostic::ObjectRef;
use tokio::time::Instant;

use super::super::{MapName, Mesh, There};
use crate::duties::events::{Note, Recorder, Tone};

/// Knows at which object it is said, and what is wrong.
#[derive(Debug)]
pub(super) struct ProblemReporter {
    object: ObjectRef,
    uid: Option<Arc<str>>,
    wrong: Option<CurrentProblem>,
    settle: Duration,
}

#[derive(Debug)]
struct CurrentProblem {
    since: Instant,
    reason: &'static str,
    text: String,
}

impl ProblemReporter {
    /// Until the cluster's DNS is found, it is said at the Service of the mesh's dns; what is wrong is said after
    /// `settle`.
    pub(super) fn new(mesh: &Mesh, settle: Duration) -> Self {
        let object = ObjectRef::new("Service", &mesh.namespace, &mesh.service);
        Self { object, uid: None, wrong: None, settle }
    }

    /// The cluster's DNS is found: from now on it is said at the ConfigMap that it reads.
    pub(super) fn look_at(&mut self, there: &There) {
        let MapName { namespace, name } = there.place.software.map();
        self.object = ObjectRef::new("ConfigMap", namespace, name);
        // The controller may not look it up by itself there.
        self.uid = there.uid(there.place.software.map()).map(Into::into);
    }

    /// This is wrong, since `now` if nothing of that kind was before.
    pub(super) fn wrong(&mut self, now: Instant, reason: &'static str, text: &str) {
        let before = self.wrong.take().filter(|before| before.reason == reason);
        let since = before.map_or(now, |before| before.since);
        self.wrong = Some(CurrentProblem { since, reason, text: text.to_owned() });
    }

    /// Nothing is wrong.
    pub(super) fn right(&mut self) {
        self.wrong = None;
    }

    /// Says what is wrong. Said at every look, so that the Event is renewed for as long as it stands.
    pub(super) fn remind(&self, now: Instant, recorder: &Recorder) {
        if let Some(wrong) = self.wrong.as_ref().filter(|wrong| now.duration_since(wrong.since) >= self.settle) {
            self.done(recorder, Tone::Warning, wrong.reason, wrong.text.clone());
        }
    }

    /// Says what was done.
    pub(super) fn done(&self, recorder: &Recorder, tone: Tone, reason: &str, text: String) {
        let (object, uid) = (self.object.clone(), self.uid.clone());
        recorder.happened(Note { object, uid, tone, reason: reason.into(), text: text.into() });
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::duties::events;

    #[test]
    fn what_is_wrong_is_said_once_it_lasts_and_until_it_is_right() {
        let start = Instant::now();
        let after = |seconds| start + Duration::from_secs(seconds);
        let mesh = Mesh { namespace: "maesh".into(), service: "maesh-dns".into(), zones: Vec::new() };
        let mut reporter = ProblemReporter::new(&mesh, Duration::from_secs(30));
        let (recorder, mut notes) = events::recorder();
        let mut said = |reporter: &ProblemReporter, seconds| {
            reporter.remind(after(seconds), &recorder);
            notes.happened().map(|note| format!("{} {}: {}", note.object, note.reason, note.text))
        };
        reporter.wrong(after(0), "StanzaBlocked", "not ready");
        assert_eq!(said(&reporter, 0), None, "a mesh that starts");
        reporter.right();
        reporter.wrong(after(20), "StanzaBlocked", "not ready");
        assert_eq!(said(&reporter, 40), None, "it was right meanwhile");
        reporter.wrong(after(45), "StanzaBlocked", "forbidden");
        let want = Some("Service maesh/maesh-dns StanzaBlocked: forbidden".to_owned());
        assert_eq!(said(&reporter, 50), want, "for another reason by now");
        assert_eq!(said(&reporter, 55), want, "for as long as it stands");
        reporter.right();
        assert_eq!(said(&reporter, 60), None, "mended");
    }
}
