use std::{collections::BTreeSet, time::Duration};

use proptest::prelude::*;
use rand::SeedableRng as _;

use super::*;

const TERMS: CaLifetimes = CaLifetimes {
    authority: Duration::from_secs(1000),
    renew_before: Duration::from_secs(400),
    serving: Duration::from_secs(50),
    dns: Duration::ZERO,
    spread: Duration::from_secs(20),
    look: Duration::from_secs(1),
};

/// With DNS over TLS, whose clients have copies of the authorities' certificates that are far behind.
const WITH_DNS: CaLifetimes = CaLifetimes { dns: Duration::from_secs(100), spread: Duration::from_secs(100), ..TERMS };

fn at(second: i64) -> Timestamp {
    Timestamp::from_second(second).unwrap()
}

/// An authority that signs from `signs_from` on and ends at `until`; `-` at the end of its name: without a key.
fn authority(name: &str, signs_from: Option<i64>, until: i64) -> Authority {
    let key = (!name.ends_with('-')).then(|| "key".to_owned());
    Authority {
        name: name.to_owned(),
        certificate: certificate(name),
        key,
        signs_from: signs_from.map(at),
        until: at(until),
    }
}

fn certificate(name: &str) -> String {
    format!("-----BEGIN CERTIFICATE-----\n{name}\n-----END CERTIFICATE-----")
}

/// The one that ends soon, and the next one, which signs from `from` on.
fn both(from: Option<i64>) -> Vec<Authority> {
    vec![authority("a", Some(0), 900), authority("b", from, 1500)]
}

/// A certificate that the authority called `name` signed.
fn held(name: &str, issued: i64, until: i64) -> Option<Held> {
    Some(Held { authority: certificate(name), issued: at(issued), until: at(until) })
}

fn bundle(names: &[&str]) -> Bundle {
    Bundle(names.iter().map(|name| certificate(name)).collect())
}

/// What is to be done at second 500, in a word and with the names that it is about.
fn told(step: Step) -> String {
    let names = |all: &[Authority]| {
        let name = |it: &Authority| {
            let body = it.certificate.lines().nth(1).unwrap_or_default().to_owned();
            body + &it.signs_from.map(|from| format!("@{}", from.as_second())).unwrap_or_default()
        };
        all.iter().map(name).collect::<Vec<_>>().join(" ")
    };
    match step {
        Step::Rest => "rest".to_owned(),
        Step::Create { keep, signs_from } => {
            let from = signs_from.map_or_else(|| "once published".to_owned(), |at| format!("from {}", at.as_second()));
            format!("create {from}, keep [{}]", names(&keep))
        }
        Step::Write(book) => format!("write [{}]", names(&book.0)),
        Step::Publish(bundle) => {
            let lines: Vec<&str> = bundle.0.iter().filter_map(|it| it.lines().nth(1)).collect();
            format!("publish [{}]", lines.join(" "))
        }
    }
}

#[test]
fn what_the_leader_does() {
    let a = || authority("a", Some(0), 1000);
    for (case, book, published, want) in [
        ("nothing is there", None, None, "create from 500, keep []"),
        ("an empty book", Some(vec![]), None, "create from 500, keep []"),
        ("made, and not published", Some(vec![a()]), None, "publish [a]"),
        ("somebody emptied the ConfigMap", Some(vec![a()]), Some(bundle(&[])), "publish [a]"),
        ("somebody added to it", Some(vec![a()]), Some(bundle(&["a", "x"])), "publish [a]"),
        ("all is well", Some(vec![a()]), Some(bundle(&["a"])), "rest"),
        (
            "the newest ends soon",
            Some(vec![authority("a", Some(0), 900)]),
            Some(bundle(&["a"])),
            "create once published, keep [a@0]",
        ),
        (
            "the next one is not published",
            Some(vec![authority("a", Some(0), 900), authority("b", None, 1500)]),
            Some(bundle(&["a"])),
            "publish [a b]",
        ),
        (
            "it is published: it signs once everybody knows it",
            Some(vec![authority("a", Some(0), 900), authority("b", None, 1500)]),
            Some(bundle(&["a", "b"])),
            "write [a@0 b@520]",
        ),
        (
            "its time has not come",
            Some(vec![authority("a", Some(0), 900), authority("b", Some(520), 1500)]),
            Some(bundle(&["a", "b"])),
            "rest",
        ),
        (
            "it signs, but what the old one signed is in use",
            Some(vec![authority("a", Some(0), 900), authority("b", Some(431), 1500)]),
            Some(bundle(&["a", "b"])),
            "rest",
        ),
        (
            "nothing of the old one is in use",
            Some(vec![authority("a", Some(0), 900), authority("b", Some(430), 1500)]),
            Some(bundle(&["a", "b"])),
            "write [b@430]",
        ),
        (
            "retired, and still published",
            Some(vec![authority("b", Some(430), 1500)]),
            Some(bundle(&["a", "b"])),
            "publish [b]",
        ),
        ("the Secret is lost", None, Some(bundle(&["a"])), "create once published, keep [a]"),
        (
            "lost and made anew: what was there is believed on",
            Some(vec![authority("a-", None, 570), authority("b", None, 1500)]),
            Some(bundle(&["a-", "b"])),
            "write [a-@520 b@520]",
        ),
        (
            "until nothing of it is left",
            Some(vec![authority("a-", None, 500), authority("b", Some(400), 1500)]),
            Some(bundle(&["a-", "b"])),
            "write [b@400]",
        ),
        ("all of them are out of date", Some(vec![authority("a", Some(0), 400)]), None, "create from 500, keep []"),
        (
            "out of date, and published",
            Some(vec![authority("a", Some(0), 400)]),
            Some(bundle(&["a"])),
            "create once published, keep [a]",
        ),
        (
            "only believed ones are left",
            Some(vec![authority("a-", None, 800)]),
            Some(bundle(&["a-"])),
            "create once published, keep [a-]",
        ),
    ] {
        let step = step(book.map(Book).as_ref(), published.as_ref(), at(500), &TERMS);
        assert_eq!(told(step), want, "{case}");
    }
}

#[test]
fn what_a_replica_serves_with() {
    for (case, book, held, want) in [
        ("nothing yet", both(None), None, Some("a")),
        ("only one whose time has not come", vec![authority("b", Some(520), 1500)], None, Some("b")),
        ("one that is not published is better than none", vec![authority("b", None, 1500)], None, Some("b")),
        ("none has a key", vec![authority("a-", None, 900)], None, None),
        ("fresh", both(Some(520)), held("a", 490, 540), None),
        ("past its half", both(Some(520)), held("a", 475, 525), Some("a")),
        ("another signs now", both(Some(500)), held("a", 490, 540), Some("b")),
        (
            "its authority is lost, the new one's time has not come",
            vec![authority("b", None, 1500)],
            held("a", 460, 510),
            None,
        ),
        ("and it is out of date", vec![authority("b", None, 1500)], held("a", 450, 500), Some("b")),
    ] {
        let book = Book(book);
        assert_eq!(sign(&book, held.as_ref(), at(500)).map(|it| &*it.name), want, "{case}");
    }
}

#[test]
fn when_the_certificate_of_dns_is_signed_anew() {
    let lost = |from| vec![authority("a-", None, 900), authority("b", from, 1500)];
    for (case, book, held, want) in [
        ("nothing yet, or of no use", both(None), None, Some("a")),
        ("fresh", both(Some(520)), held("a", 460, 560), None),
        ("a moment before its half", both(Some(520)), held("a", 451, 551), None),
        ("half of it is over", both(Some(520)), held("a", 450, 550), Some("a")),
        ("it has ended", both(Some(520)), held("a", 300, 400), Some("a")),
        ("another signs now", both(Some(500)), held("a", 490, 590), Some("b")),
        ("the Secret of the CA is lost, the new one's time has not come", lost(Some(600)), held("a-", 411, 511), None),
        ("and it ends soon", lost(Some(600)), held("a-", 410, 510), Some("b")),
        (
            "the CA ends with it: a new one would end no later",
            vec![authority("a", Some(0), 520)],
            held("a", 420, 520),
            None,
        ),
        ("the CA ends a little later", vec![authority("a", Some(0), 521)], held("a", 420, 520), Some("a")),
        ("nobody can sign", vec![authority("a-", None, 900)], None, None),
    ] {
        let book = Book(book);
        assert_eq!(sign_dns(&book, held.as_ref(), at(500)).map(|it| &*it.name), want, "{case}");
    }
}

#[test]
fn nothing_that_an_authority_signed_outlives_the_belief_in_it() {
    for terms in [CaLifetimes::default(), CaLifetimes::with_dns(), TERMS, WITH_DNS] {
        let whole = terms.spread + terms.afterwards();
        assert!(terms.afterwards() >= terms.serving.max(terms.dns) + terms.spread, "{terms:?}");
        assert!(whole < terms.renew_before, "the next one takes over before the last one ends: {terms:?}");
    }
}

#[test]
fn a_bundle_is_what_a_file_says_and_nothing_else() {
    let (a, b) = (certificate("a"), certificate("b"));
    for (case, text, want) in [
        ("empty", String::new(), bundle(&[])),
        ("one", a.clone(), bundle(&["a"])),
        ("another order, words between", format!("# b\n{b}\n\n{a}\n{a}"), bundle(&["a", "b"])),
        ("half of one", a[..40].to_owned(), bundle(&[])),
    ] {
        assert_eq!(Bundle::parse(&text), want, "{case}");
        assert_eq!(Bundle::parse(&want.to_pem()), want, "{case}");
    }
}

/// Everything that takes part: what is written down, what replicas hold and what subscribers have in their files.
#[derive(Debug, Default)]
struct World {
    now: i64,
    made: usize,
    book: Option<Book>,
    published: Option<Bundle>,
    /// What was published when.
    history: Vec<(i64, Bundle)>,
    /// What each replica remembers and serves with.
    replicas: [(Option<Book>, Option<Held>); 2],
    /// Which certificate of DNS over TLS was in its Secret since when.
    dns: Vec<(i64, Held)>,
    /// When the Secret or the ConfigMap was last lost.
    lost_at: Option<i64>,
}

impl World {
    /// The Secret (`true`) or the ConfigMap is lost at each of these seconds, at the earliest after the second publication.
    fn lose(&mut self, lost: &[(i64, bool)]) {
        for (_, secret) in lost.iter().filter(|(when, _)| *when == self.now) {
            // Not twice within the time that certificates last: then nobody could know.
            if self.lost_within(400) || self.history.len() < 2 {
                continue;
            }
            self.lost_at = Some(self.now);
            if *secret {
                self.book = None;
            } else {
                self.published = None;
            }
        }
    }

    /// Whether one of them was lost in the last so many seconds.
    fn lost_within(&self, seconds: i64) -> bool {
        self.lost_at.is_some_and(|at| self.now - at < seconds)
    }

    /// A leader takes one step; it may be another one each time.
    fn lead(&mut self, terms: &CaLifetimes) {
        match step(self.book.as_ref(), self.published.as_ref(), at(self.now), terms) {
            Step::Rest => self.sign_dns(terms),
            Step::Write(book) => self.book = Some(book),
            Step::Publish(bundle) => {
                self.history.push((self.now, bundle.clone()));
                self.published = Some(bundle);
            }
            Step::Create { mut keep, signs_from } => {
                self.made += 1;
                let until = at(self.now + 1000);
                let name = format!("ca-{}", self.made);
                keep.push(Authority { signs_from, until, ..authority(&name, None, 0) });
                self.book = Some(Book(keep));
            }
        }
    }

    /// The leader has the certificate of DNS over TLS signed where that is due.
    fn sign_dns(&mut self, terms: &CaLifetimes) {
        let (Some(book), now) = (&self.book, at(self.now)) else { return };
        let held = self.dns.last().map(|(_, held)| held);
        // Only what an authority of the book signed counts.
        let held = held.filter(|held| book.0.iter().any(|it| it.certificate == held.authority) && now < held.until);
        if let Some(signer) = sign_dns(book, held, now) {
            let until = after(now, terms.dns).min(signer.until);
            let held = Held { authority: signer.certificate.clone(), issued: now, until };
            self.dns.push((self.now, held));
        }
    }

    /// What dns serves with whose kubelet is `behind` seconds behind.
    fn served_by_dns(&self, behind: i64) -> Option<&Held> {
        self.dns.iter().rfind(|(since, _)| *since <= self.now - behind).map(|(_, held)| held)
    }

    /// A replica looks at the book if it can, and has its certificate renewed where that is due.
    fn serve(&mut self, replica: usize, reaches: bool) {
        let (book, held) = &mut self.replicas[replica];
        if reaches && self.book.is_some() {
            book.clone_from(&self.book);
        }
        let now = at(self.now);
        if let Some(signer) = book.as_ref().and_then(|book| sign(book, held.as_ref(), now)) {
            let until = after(now, TERMS.serving).min(signer.until);
            *held = Some(Held { authority: signer.certificate.clone(), issued: now, until });
        }
    }

    /// What a subscriber's file says whose kubelet is `behind` seconds behind; nothing where nothing was published then.
    fn believed(&self, behind: i64) -> Option<&Bundle> {
        self.history.iter().rfind(|(since, _)| *since <= self.now - behind).map(|(_, bundle)| bundle)
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 100, ..ProptestConfig::default() })]

    /// Whoever leads and whenever, and however late kubelets are within `spread`: once a subscriber has anything to
    /// believe, it believes what replicas serve with, through several rotations and the loss of Secret or ConfigMap.
    #[test]
    fn subscribers_believe_replicas_at_any_time(
        seed in any::<u64>(),
        lost in prop::collection::vec((0_i64..6000, prop::bool::ANY), 0..3),
        behind in 0_i64..18,
        with_dns in prop::bool::ANY,
    ) {
        let terms = if with_dns { &WITH_DNS } else { &TERMS };
        let mut world = World::default();
        let mut chance = rand::rngs::SmallRng::seed_from_u64(seed);
        for second in 0..6000 {
            world.now = second;
            world.lose(&lost);
            if chance.random_bool(0.6) { world.lead(terms) }
            // The one replica sees the book each second, the other one is cut off from it most of the time.
            world.serve(0, true);
            world.serve(1, second % 60 == 0 || world.replicas[1].1.is_none());
            let Some(believed) = world.believed(behind) else { continue };
            for (_, held) in &world.replicas {
                let held = held.as_ref().expect("it serves");
                prop_assert!(held.until > at(world.now), "second {second}: {held:?} {:?}", world.book);
                prop_assert!(believed.0.contains(&held.authority), "second {second}: {held:?} {believed:?} {:?}", world.book);
            }
        }
        prop_assert!(world.made >= 5, "authorities were renewed: {}", world.made);
    }

    /// The same for clients of DNS over TLS, whose copies of the authorities' certificates are a third of that certificate's
    /// life behind, and for dns, whose kubelet is a little behind. The leader is away for a while, too. After a loss it has
    /// to act within the last tenth of the certificate's life, which is three days; here it is slow, but not away then.
    #[test]
    fn clients_believe_dns_at_any_time(
        seed in any::<u64>(),
        lost in prop::collection::vec((0_i64..6000, prop::bool::ANY), 0..3),
        away in 0_i64..6000,
        behind in 0_i64..5,
        copied in 0_i64..35,
    ) {
        let mut world = World::default();
        let mut chance = rand::rngs::SmallRng::seed_from_u64(seed);
        let mut authorities = BTreeSet::new();
        for second in 0..6000 {
            world.now = second;
            world.lose(&lost);
            let acts = second % 2 == 0 || chance.random_bool(0.6);
            let is_away = (away..away + 20).contains(&second) && !world.lost_within(151);
            if acts && !is_away { world.lead(&WITH_DNS) }
            let (Some(believed), Some(held)) = (world.believed(copied), world.served_by_dns(behind)) else { continue };
            authorities.insert(held.authority.clone());
            prop_assert!(held.until > at(world.now), "second {second}: {held:?} {:?}", world.book);
            prop_assert!(believed.0.contains(&held.authority), "second {second}: {held:?} {believed:?} {:?}", world.book);
        }
        prop_assert!(authorities.len() >= 5, "authorities were renewed: {}", authorities.len());
        prop_assert!(world.dns.len() < 6000 / 40, "not signed more often than needed: {}", world.dns.len());
    }
}
