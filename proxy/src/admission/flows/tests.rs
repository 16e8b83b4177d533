use proptest::prelude::*;

use super::*;
use crate::{admission::Budget, config::Limits};

fn caller(last: u8) -> IpAddr {
    IpAddr::from([10, 0, 0, last])
}

/// Room for so many flows in all, of which one caller has a fifth.
fn admission(flows: usize) -> Admission {
    let limits = Limits { flows, ..Limits::default() };
    Admission::new(Budget::new(20_000, 1, &limits).expect("enough files"))
}

/// The flows that are open, of those that were ever admitted, by their numbers; those that were given up are closed.
struct Opened(Vec<Option<FlowPermit>>);

impl Opened {
    fn open(&mut self, admission: &Admission, of: IpAddr, now: u32) -> bool {
        let admitted = admission.flow(of, now);
        let is_admitted = admitted.is_some();
        self.0.push(admitted.map(|(permit, _)| permit));
        for flow in &mut self.0 {
            flow.take_if(|flow| flow.is_shed());
        }
        is_admitted
    }

    fn numbers(&self) -> Vec<usize> {
        self.0.iter().enumerate().filter(|(_, flow)| flow.is_some()).map(|(number, _)| number).collect()
    }

    fn of(&self, caller: IpAddr) -> usize {
        self.0.iter().flatten().filter(|flow| flow.caller == caller).count()
    }
}

#[test]
fn a_caller_with_its_share_gives_up_its_own_that_was_silent_for_longest() {
    let admission = admission(20);
    let mut flows = Opened(Vec::new());
    assert!(flows.open(&admission, caller(9), 0), "another's, the oldest of all");
    for now in 1..=4 {
        assert!(flows.open(&admission, caller(1), now));
    }
    assert_eq!(flows.numbers(), [0, 1, 2, 3, 4]);
    assert!(flows.open(&admission, caller(1), 5), "a fifth of 20 is 4");
    assert_eq!(flows.numbers(), [0, 2, 3, 4, 5], "the first of its own went");
    flows.0[2].as_ref().expect("open").touch(6);
    assert!(flows.open(&admission, caller(1), 7));
    assert_eq!(flows.numbers(), [0, 2, 4, 5, 6], "the one that was used stays");
    drop(flows);
    assert_eq!(admission.flows(), 0);
    assert_eq!(admission.0.charged.load(Ordering::Relaxed), 0);
    assert!(admission.0.flows.lock().by_caller.is_empty() && admission.0.flows.lock().by_count.is_empty());
}

#[test]
fn when_all_are_in_use_the_caller_with_the_most_gives_one_up() {
    let admission = admission(20);
    let mut flows = Opened(Vec::new());
    for of in 1..=5 {
        (0..4).for_each(|_| assert!(flows.open(&admission, caller(of), 0)));
    }
    assert_eq!(flows.numbers().len(), 20);
    for of in 6..=20 {
        assert!(flows.open(&admission, caller(of), 1), "caller {of}");
        assert_eq!(flows.of(caller(of)), 1);
    }
    assert_eq!(flows.numbers().len(), 20);
    assert!((1..=20).all(|of| flows.of(caller(of)) == 1), "each has one");
    assert!(!flows.open(&admission, caller(21), 2), "nobody has more than it would");
    assert!(flows.open(&admission, caller(3), 2), "one that has some gives up its own");
    assert_eq!(flows.of(caller(3)), 1);
}

#[test]
fn a_caller_without_descriptors_left_gives_up_its_own() {
    let limits = Limits { flows: 1_000, connections_per_caller: 2, ..Limits::default() };
    let admission = Admission::new(Budget::new(20_000, 1, &limits).expect("enough files"));
    let connection = admission.connection(caller(1)).expect("the first one");
    let mut flows = Opened(Vec::new());
    for now in 0..5 {
        assert!(flows.open(&admission, caller(1), now));
    }
    assert_eq!(flows.of(caller(1)), 2, "four descriptors, of which the connection has two");
    drop((flows, connection));
    assert_eq!(admission.0.charged.load(Ordering::Relaxed), 0);
}

#[test]
fn flows_that_do_not_close_are_bounded() {
    let admission = admission(20);
    let admitted: Vec<_> = std::iter::from_fn(|| admission.flow(caller(1), 0)).take(10_000).collect();
    assert_eq!(admitted.len(), 4 + CLOSING);
    drop(admitted);
    assert!(admission.flow(caller(1), 0).is_some());
}

proptest! {
    /// Whatever is opened, used and closed: no limit is exceeded, nobody loses a flow to a caller that has as many, and
    /// nothing is left once all are closed.
    #[test]
    fn limits_hold_and_shedding_is_fair(steps in prop::collection::vec((0..4_u8, 0..8_u8, any::<prop::sample::Index>()), 0..200)) {
        let admission = admission(10);
        let mut flows = Opened(Vec::new());
        for (now, (step, of, which)) in steps.into_iter().enumerate() {
            let now = u32::try_from(now).expect("few");
            let open: Vec<_> = flows.numbers();
            match step {
                0 if !open.is_empty() => flows.0[open[which.index(open.len())]] = None,
                1 if !open.is_empty() => flows.0[open[which.index(open.len())]].as_ref().expect("open").touch(now),
                _ => {
                    let before: Vec<_> = (0..8).map(|of| flows.of(caller(of))).collect();
                    let admitted = flows.open(&admission, caller(of), now);
                    let own = flows.of(caller(of));
                    prop_assert!(admitted || before[usize::from(of)] == 0, "a caller with flows always gets one");
                    for other in (0..8).filter(|other| *other != of) {
                        let (had, has) = (before[usize::from(other)], flows.of(caller(other)));
                        prop_assert!(has == had || (has + 1 == had && has >= own), "{had} became {has} for one with {own}");
                    }
                }
            }
            prop_assert!(admission.flows() <= 10 && flows.numbers().len() == admission.flows());
            prop_assert!((0..8).all(|of| flows.of(caller(of)) <= 2));
            let inner = admission.0.flows.lock();
            prop_assert!(inner.by_caller.values().all(|of| of.queue.len() <= 2 * of.open + 9));
        }
        drop(flows);
        prop_assert_eq!(admission.0.charged.load(Ordering::Relaxed), 0);
        prop_assert!(admission.0.flows.lock().by_count.is_empty());
    }
}
