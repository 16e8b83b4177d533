//! Looking whether the cluster's DNS still answers, and whether it leads to the mesh: asked as a pod would ask.
//!
//! [`ReloadWatch`] judges, purely, what was seen after a write: whether it took effect, and whether it must be undone.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::{Ipv4Addr, Ipv6Addr, SocketAddr},
    time::Duration,
};

use hickory_proto::{
    op::{Message, MessageType, OpCode, Query, ResponseCode},
    rr::{Name, RecordType},
};
use tokio::{
    net::UdpSocket,
    time::{Instant, timeout},
};

/// How long an answer is waited for.
const PATIENCE: Duration = Duration::from_secs(2);
/// How long plain names may fail, since the write, before it is undone. One lost packet is not enough.
const FAILING: Duration = Duration::from_secs(8);

/// How a server answers for one of the mesh's zones.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Answered {
    /// As the mesh does.
    ByMesh,
    /// By itself, or by others: it does not lead to the mesh.
    ByOthers,
    /// Not at all, or with a failure: nobody knows.
    Nobody,
}

/// How one server does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Look {
    /// It answers for the cluster's own names.
    pub plain: bool,
    /// How it answers for the mesh's zone.
    pub mesh: Answered,
}

/// Asks `server` for a name of the cluster's own, and for the zone of the mesh.
pub async fn look(server: SocketAddr, cluster_domain: &str, zone: &str) -> Look {
    let plain = format!("kubernetes.default.svc.{cluster_domain}.");
    let (plain, mesh) = tokio::join!(ask(server, &plain, RecordType::A), ask(server, zone, RecordType::SOA));
    // A cluster of IPv6 has no A record there, and says so without failing.
    let plain = plain.is_some_and(|answer| answer.metadata.response_code == ResponseCode::NoError);
    let mesh = match mesh.map(|answer| (answer.metadata.response_code, answer.metadata.authoritative, answer)) {
        Some((ResponseCode::NoError, true, answer))
            if answer.answers.iter().any(|record| record.record_type() == RecordType::SOA) =>
        {
            Answered::ByMesh
        }
        Some((ResponseCode::NoError | ResponseCode::NXDomain | ResponseCode::Refused, _, _)) => Answered::ByOthers,
        _ => Answered::Nobody,
    };
    Look { plain, mesh }
}

/// Asks once, and once more where the first packet was lost.
async fn ask(server: SocketAddr, name: &str, kind: RecordType) -> Option<Message> {
    for _ in 0..2 {
        if let Ok(Ok(answer)) = timeout(PATIENCE, ask_once(server, name, kind)).await {
            return answer;
        }
    }
    None
}

async fn ask_once(server: SocketAddr, name: &str, kind: RecordType) -> std::io::Result<Option<Message>> {
    let Ok(mut name) = Name::from_ascii(name) else { return Ok(None) };
    name.set_fqdn(true);
    let id = rand::random::<u16>();
    let mut question = Message::new(id, MessageType::Query, OpCode::Query);
    question.metadata.recursion_desired = true;
    question.add_query(Query::query(name, kind));
    let any: SocketAddr =
        if server.is_ipv4() { (Ipv4Addr::UNSPECIFIED, 0).into() } else { (Ipv6Addr::UNSPECIFIED, 0).into() };
    let socket = UdpSocket::bind(any).await?;
    socket.connect(server).await?;
    socket.send(&question.to_vec().map_err(std::io::Error::other)?).await?;
    let mut packet = [0; 4096];
    let length = socket.recv(&mut packet).await?;
    let answer = Message::from_vec(&packet[..length]).map_err(std::io::Error::other)?;
    Ok((answer.metadata.id == id).then_some(answer))
}

/// What to do after a write.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Look on.
    Wait,
    /// Every server leads to the mesh.
    Live,
    /// The time is over; these servers did not take it up, others did.
    Behind(Vec<SocketAddr>),
    /// The time is over, and nobody can tell: neither the mesh nor anybody else answers.
    Unknown,
    /// Names that were answered before are no longer: undo it.
    Failing(SocketAddr),
    /// The time is over, and no server took it up: CoreDNS refuses it, and would not start with it. Undo it.
    Refused,
}

/// Judges what is seen after a write.
#[derive(Clone, Debug)]
pub struct ReloadWatch {
    since: Instant,
    deadline: Duration,
    /// Those that answered for plain names before: only of these can be said that the write broke something.
    answered: BTreeSet<SocketAddr>,
    failing: BTreeMap<SocketAddr, Instant>,
}

impl ReloadWatch {
    /// Begins at `now`, with what was seen before the write; the cluster's DNS has until `deadline` to take it up.
    /// `None` if no server answered: nothing could be said of what comes after.
    pub fn start(now: Instant, deadline: Duration, before: &BTreeMap<SocketAddr, Look>) -> Option<Self> {
        let answered: BTreeSet<_> = before.iter().filter(|(_, look)| look.plain).map(|(server, _)| *server).collect();
        (!answered.is_empty()).then_some(Self { since: now, deadline, answered, failing: BTreeMap::new() })
    }

    /// The same is written again at `now`, after `before` was seen: another deadline, and whoever answered before the
    /// first write is still looked at, as that one may be what broke it.
    pub fn anew(&mut self, now: Instant, before: &BTreeMap<SocketAddr, Look>) {
        self.since = now;
        self.answered.extend(before.iter().filter(|(_, look)| look.plain).map(|(server, _)| *server));
    }

    /// When it began.
    pub fn since(&self) -> Instant {
        self.since
    }

    /// The time that it has is over.
    pub fn is_over(&self, now: Instant) -> bool {
        now.duration_since(self.since) >= self.deadline
    }

    /// What is to be done, by what is seen `now`. A server that is no longer there is no longer asked. `mesh_answers`:
    /// the mesh's dns itself, asked directly, answers; then whoever does not pass its answer on does not lead to it.
    ///
    /// Servers that fail beside at least as many that took the same text up and answer do not fail for it: a node died.
    pub fn judge(&mut self, now: Instant, looks: &BTreeMap<SocketAddr, Look>, mesh_answers: bool) -> Verdict {
        self.failing.retain(|server, _| looks.get(server).is_some_and(|look| !look.plain));
        for (server, look) in looks {
            if self.answered.contains(server) && !look.plain {
                self.failing.entry(*server).or_insert(now);
            }
        }
        let well = looks.values().filter(|look| look.plain && look.mesh == Answered::ByMesh).count();
        let harms = self.failing.len() > well;
        let mut long = self.failing.iter().filter(|(_, since)| now.duration_since(**since) >= FAILING);
        if let Some((server, _)) = long.next().filter(|_| harms) {
            return Verdict::Failing(*server);
        }
        let who = |answered| looks.iter().filter(move |(_, look)| look.mesh == answered).map(|(server, _)| *server);
        let live = who(Answered::ByMesh).count();
        if live == looks.len() && live > 0 {
            return Verdict::Live;
        }
        if !self.is_over(now) {
            return Verdict::Wait;
        }
        if let Some(server) = self.failing.keys().next().filter(|_| harms) {
            return Verdict::Failing(*server);
        }
        match (live, who(Answered::ByOthers).count()) {
            (0, 0) if !mesh_answers => Verdict::Unknown,
            (0, _) => Verdict::Refused,
            _ => {
                Verdict::Behind(looks.keys().copied().filter(|server| looks[server].mesh != Answered::ByMesh).collect())
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const GOOD: Look = Look { plain: true, mesh: Answered::ByMesh };
    const BEFORE: Look = Look { plain: true, mesh: Answered::ByOthers };
    const FAILS: Look = Look { plain: true, mesh: Answered::Nobody };
    /// Not a server: the mesh's own dns is down.
    const DOWN: Look = Look { plain: false, mesh: Answered::ByMesh };
    const DEAD: Look = Look { plain: false, mesh: Answered::Nobody };

    fn looks(looks: &[Look]) -> BTreeMap<SocketAddr, Look> {
        (1..)
            .zip(looks)
            .filter(|(_, look)| **look != DOWN)
            .map(|(last, look)| (SocketAddr::from(([10, 0, 0, last], 53)), *look))
            .collect()
    }

    #[test]
    fn a_write_is_judged_by_what_is_seen_after_it() {
        let server = |last| SocketAddr::from(([10, 0, 0, last], 53));
        for (case, before, then, want) in [
            ("taken up", &[BEFORE, BEFORE][..], &[(5, &[GOOD, GOOD][..])][..], Verdict::Live),
            ("by one so far", &[BEFORE, BEFORE], &[(5, &[GOOD, BEFORE])], Verdict::Wait),
            ("by one in time", &[BEFORE, BEFORE], &[(241, &[GOOD, BEFORE])], Verdict::Behind(vec![server(2)])),
            ("by nobody in time", &[BEFORE], &[(241, &[BEFORE])], Verdict::Refused),
            ("nobody knows", &[BEFORE], &[(241, &[FAILS, DOWN])], Verdict::Unknown),
            ("no way out, and not taken up", &[FAILS], &[(241, &[FAILS])], Verdict::Refused),
            ("one lost packet", &[BEFORE], &[(1, &[DEAD]), (3, &[BEFORE]), (12, &[DEAD])], Verdict::Wait),
            (
                "names fail",
                &[BEFORE, BEFORE],
                &[(1, &[BEFORE, DEAD]), (9, &[BEFORE, DEAD])],
                Verdict::Failing(server(2)),
            ),
            ("a node died", &[BEFORE, BEFORE], &[(1, &[GOOD, DEAD]), (99, &[GOOD, DEAD])], Verdict::Wait),
            (
                "for good",
                &[BEFORE, BEFORE],
                &[(1, &[GOOD, DEAD]), (241, &[GOOD, DEAD])],
                Verdict::Behind(vec![server(2)]),
            ),
            (
                "most of them fail",
                &[BEFORE, BEFORE, BEFORE],
                &[(1, &[GOOD, DEAD, DEAD]), (9, &[GOOD, DEAD, DEAD])],
                Verdict::Failing(server(2)),
            ),
            ("names fail just at the end", &[BEFORE], &[(241, &[DEAD])], Verdict::Failing(server(1))),
            ("they failed before", &[BEFORE, DEAD], &[(1, &[GOOD, DEAD]), (99, &[GOOD, DEAD])], Verdict::Wait),
            ("the failing one is gone", &[BEFORE, BEFORE], &[(1, &[GOOD, DEAD]), (9, &[GOOD])], Verdict::Live),
            ("all are gone", &[BEFORE], &[(9, &[])], Verdict::Wait),
        ] {
            let start = Instant::now();
            let mut watch = ReloadWatch::start(start, Duration::from_secs(240), &looks(before)).expect("one answered");
            let verdicts = then
                .iter()
                .map(|(at, seen)| watch.judge(start + Duration::from_secs(*at), &looks(seen), !seen.contains(&DOWN)));
            assert_eq!(verdicts.last(), Some(want), "{case}");
        }
        // Half of it was written, and the rest is tried again: what the half broke is not taken for broken before.
        let start = Instant::now();
        let mut watch =
            ReloadWatch::start(start, Duration::from_secs(240), &looks(&[BEFORE, BEFORE])).expect("both answered");
        let mut look = |at, seen: &[Look]| watch.judge(start + Duration::from_secs(at), &looks(seen), true);
        assert_eq!(look(5, &[BEFORE, DEAD]), Verdict::Wait);
        watch.anew(start + Duration::from_secs(10), &looks(&[BEFORE, DEAD]));
        let mut look = |at, seen: &[Look]| watch.judge(start + Duration::from_secs(at), &looks(seen), true);
        assert_eq!(look(245, &[BEFORE]), Verdict::Wait, "another deadline");
        assert_eq!(look(246, &[BEFORE, DEAD]), Verdict::Wait);
        assert_eq!(look(254, &[BEFORE, DEAD]), Verdict::Failing(server(2)));
        let start = Instant::now();
        assert!(ReloadWatch::start(start, Duration::ZERO, &looks(&[DEAD])).is_none(), "nothing can be said");
    }
}
