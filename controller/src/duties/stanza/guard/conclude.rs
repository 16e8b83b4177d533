//! What a watch concludes: after a write the cluster's DNS is looked at until the stanza is in force, or does harm.

use std::{
    collections::BTreeMap,
    net::{IpAddr, SocketAddr},
};

use tokio::time::Instant;

use super::{
    super::{Answered, ClusterError, Look, ReloadWatch, Report, StanzaRefusal, StanzaState, There, Verdict, take_out},
    Duty, Guard, Phase, answers, looks,
    memory::HarmfulChange,
};
use crate::duties::events::Tone;

/// How a watch ended that did not see the stanza in force everywhere.
#[derive(Clone, Debug)]
pub(super) struct Lacking {
    pub(super) looked: Instant,
    pub(super) phase: Phase,
    pub(super) text: String,
}

impl Duty {
    /// Looks what came of the last write, by this leader or by one before it; `whole`: nothing is left to be written.
    /// Whether the stanza was let stand.
    pub(super) async fn watch(
        &mut self,
        guard: &Guard,
        there: &There,
        report: &Report,
        forward: IpAddr,
        whole: bool,
    ) -> Result<bool, ClusterError> {
        let again = |lacking: &Lacking| lacking.looked.elapsed() >= guard.times.deadline;
        if self.looked && self.watch.is_none() && !self.lacking.as_ref().is_some_and(again) {
            return Ok(true);
        }
        let seen = looks(&there.place, &report.cluster_domain, &guard.mesh.zones).await;
        let mesh_answers = answers(forward, &guard.mesh.zones).await;
        let now = Instant::now();
        if !std::mem::replace(&mut self.looked, true) && self.watch.is_none() {
            self.watch = ReloadWatch::start(now, guard.times.deadline, &seen);
        }
        let Some(watch) = &mut self.watch else {
            self.look_again(guard, now, &seen);
            return Ok(true);
        };
        let seconds = now.duration_since(watch.since()).as_secs();
        let verdict = watch.judge(now, &seen, mesh_answers);
        // While something is left to be written, it need not be in force; and what somebody else made of the stanza
        // proves nothing of it.
        let as_written = report.standings.first().is_some_and(|first| first.state == Ok(StanzaState::Present));
        let harms = matches!(verdict, Verdict::Failing(_)) || (verdict == Verdict::Refused && as_written);
        if !whole && !harms {
            return Ok(true);
        }
        let harm = match verdict {
            Verdict::Wait => return Ok(true),
            Verdict::Live => {
                self.live(guard, format!("every server leads to the mesh, {seconds} s after the stanza was seen"));
                return Ok(true);
            }
            Verdict::Behind(servers) => {
                let text = format!(
                    "after {seconds} s {} did not take up the stanza, others did; look at the logs of those pods",
                    list(&servers)
                );
                return Ok(self.lacks(now, Phase::Present, text));
            }
            Verdict::Unknown => {
                let text = format!("nobody answered for the mesh's zone within {seconds} s; look at the mesh's dns");
                return Ok(self.lacks(now, Phase::Present, text));
            }
            Verdict::Refused if !report.reloads => {
                let text = "the Corefile has no `reload`, so CoreDNS takes the stanza up when it is restarted; restart it \
                            when it suits you";
                return Ok(self.lacks(now, Phase::Written, text.into()));
            }
            // The same at every look, so that it stays one Event where it cannot be undone.
            Verdict::Refused => {
                format!("CoreDNS did not take it up within {} s; its log says why", guard.times.deadline.as_secs())
            }
            Verdict::Failing(server) => format!("{server} no longer answered for names of the cluster"),
        };
        self.revert(guard, &harm).await;
        Ok(false)
    }

    /// In force: whatever did harm before no longer does.
    fn live(&mut self, guard: &Guard, text: String) {
        (self.watch, self.lacking, self.held) = (None, None, None);
        guard.say(Phase::Present, text);
    }

    /// The watch is over, and the stanza stays though it is not in force everywhere.
    fn lacks(&mut self, looked: Instant, phase: Phase, text: String) -> bool {
        self.watch = None;
        self.lacking = Some(Lacking { looked, phase, text });
        true
    }

    /// Looks whether what was lacking still is. Harm is no longer looked for: so late, it need not be the stanza's.
    fn look_again(&mut self, guard: &Guard, now: Instant, seen: &BTreeMap<SocketAddr, Look>) {
        let Some(lacking) = &mut self.lacking else { return };
        lacking.looked = now;
        if !seen.is_empty() && seen.values().all(|look| look.mesh == Answered::ByMesh) {
            self.live(guard, "every server leads to the mesh by now".into());
        }
    }

    /// Takes out what did harm, and remembers not to write the same again. Tried again at the next look where that fails,
    /// if it still does harm then.
    async fn revert(&mut self, guard: &Guard, harm: &str) {
        match take_out(&guard.cluster, &guard.mesh, &guard.right()).await {
            // Stub domains that nobody understands are not in force either.
            Ok(_) | Err(ClusterError::Refusal(StanzaRefusal::Stubs { .. })) => {}
            Err(error) => {
                self.place = None;
                self.block(guard, format!("{harm}, and the stanza could not be taken out again: {error}"));
                return;
            }
        }
        (self.watch, self.lacking) = (None, None);
        // A person may put it there again: that is looked at anew.
        self.looked = false;
        let text = format!(
            "the stanza was taken out again: {harm}. It is not tried again until the Corefile or the address of the \
             mesh's dns changes. To try it again as it is: maesh dns install"
        );
        self.held = Some(HarmfulChange::next(text.clone()));
        self.reporter.done(&guard.recorder, Tone::Warning, "StanzaReverted", text.clone());
        guard.say(Phase::Reverted, text);
    }
}

fn list(servers: &[SocketAddr]) -> String {
    servers.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ")
}
