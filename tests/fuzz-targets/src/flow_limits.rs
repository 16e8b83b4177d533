//! Limits on flows and connections: counts are those of a plain model, no limit is exceeded, the flow that is given up is the
//! one of the right caller, and nothing is left once all are closed.
//!
//! Two bytes for each step.

use std::{collections::BTreeMap, net::IpAddr, sync::LazyLock};

use crate::{
    config::Limits,
    proxy::admission::{Admission, Budget, ConnectionPermit, FlowPermit},
};

const CALLERS: u8 = 8;

/// Flows that were given up and not closed; with so many, no other one is admitted.
const CLOSING: usize = 64;

/// Descriptors of a connection.
const CONNECTION: usize = 2;

fn admission() -> Admission {
    let limits = Limits { flows: 20, other_files: 0, ..Limits::default() };
    Admission::new(Budget::new(220, 1, &limits).expect("enough files"))
}

fn caller(number: u8) -> IpAddr {
    [10, 0, 0, number].into()
}

/// Descriptors that an admission with nothing open gives: to one caller, and to all.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Room {
    of_caller: usize,
    of_all: usize,
}

static ROOM: LazyLock<Room> = LazyLock::new(|| room(&admission()));

/// Finds out by taking all there is.
fn room(admission: &Admission) -> Room {
    let fill = |number| {
        let connections: Vec<_> = std::iter::from_fn(|| admission.connection(caller(number))).collect();
        // What one descriptor is enough for.
        let flow = admission.flow(caller(number), 0).filter(|(_, shed)| *shed == 0);
        let taken = CONNECTION * connections.len() + usize::from(flow.is_some());
        (taken, connections, flow)
    };
    let first = fill(100);
    let others: Vec<_> = (101..120).map(fill).collect();
    Room { of_caller: first.0, of_all: first.0 + others.iter().map(|(taken, ..)| taken).sum::<usize>() }
}

pub(crate) fn run(steps: &[u8]) {
    let mut run = Run::new();
    for &[step, of] in steps.as_chunks().0 {
        match step % 8 {
            0..=2 => run.open(of % CALLERS),
            3 => run.close(of.into()),
            4 => run.touch(of.into()),
            5 => run.connect(of % CALLERS),
            6 => run.disconnect(of.into()),
            _ if of & 1 == 0 => run.reap(),
            _ => run.now += u32::from(of >> 1),
        }
        run.check();
    }
    run.end();
}

/// A flow that was admitted and is not closed.
struct OpenFlow {
    permit: FlowPermit,
    caller: u8,
    opened: u32,
    touched: bool,
    /// It was given up, as the model knows.
    shed: bool,
    /// Its descriptor is its caller's.
    charged: bool,
}

struct Run {
    admission: Admission,
    now: u32,
    flows: Vec<OpenFlow>,
    connections: Vec<(u8, ConnectionPermit)>,
}

impl Run {
    fn new() -> Self {
        // Time begins somewhere; it is compared for being the same, and for order.
        Self { admission: admission(), now: 1, flows: Vec::new(), connections: Vec::new() }
    }

    fn open_flows(&self) -> BTreeMap<u8, usize> {
        let mut counts = BTreeMap::new();
        for flow in self.flows.iter().filter(|flow| !flow.shed) {
            *counts.entry(flow.caller).or_insert(0) += 1;
        }
        counts
    }

    /// Whether `caller` may have so many more descriptors.
    fn has_room(&self, caller: u8, more: usize) -> bool {
        let charged = |is_it: &dyn Fn(u8) -> bool| {
            let flows = self.flows.iter().filter(|flow| flow.charged && is_it(flow.caller)).count();
            flows + CONNECTION * self.connections.iter().filter(|(of, _)| is_it(*of)).count()
        };
        charged(&|of| of == caller) + more <= ROOM.of_caller && charged(&|_| true) + more <= ROOM.of_all
    }

    /// Whose flow is given up for a new one of `caller`; `Err` where none is admitted.
    fn gives_up(&self, of: u8) -> Result<Option<u8>, ()> {
        let budget = self.admission.budget();
        let counts = self.open_flows();
        let own = counts.get(&of).copied().unwrap_or(0);
        if self.flows.iter().filter(|flow| flow.shed).count() >= CLOSING {
            return Err(());
        }
        if own >= budget.flows_per_caller() || !self.has_room(of, 1) {
            return if own > 0 { Ok(Some(of)) } else { Err(()) };
        }
        if counts.values().sum::<usize>() < budget.flows() {
            return Ok(None);
        }
        let (most, count) =
            counts.iter().max_by_key(|(of, count)| (**count, **of)).map_or((of, 0), |it| (*it.0, *it.1));
        if count >= own + 2 {
            return Ok(Some(most));
        }
        if own > 0 { Ok(Some(of)) } else { Err(()) }
    }

    fn open(&mut self, of: u8) {
        let want = self.gives_up(of);
        let takes_over = matches!(want, Ok(Some(_))) && {
            let own = self.open_flows().get(&of).copied().unwrap_or(0);
            own >= self.admission.budget().flows_per_caller() || !self.has_room(of, 1)
        };
        let admitted = self.admission.flow(caller(of), self.now);
        assert_eq!(admitted.is_some(), want.is_ok(), "a flow of {of}");
        let Some((permit, shed)) = admitted else { return };
        assert_eq!(shed, usize::from(want != Ok(None)));
        if let Ok(Some(from)) = want {
            self.note_shed(from, takes_over);
        }
        self.flows.push(OpenFlow { permit, caller: of, opened: self.now, touched: false, shed: false, charged: true });
    }

    /// Finds the flow of `from` that was given up, and judges which one that is.
    fn note_shed(&mut self, from: u8, takes_over: bool) {
        let news: Vec<usize> =
            (0..self.flows.len()).filter(|at| self.flows[*at].permit.is_shed() && !self.flows[*at].shed).collect();
        let [at] = news[..] else { panic!("{} flows were given up", news.len()) };
        let used = self.flows[at].permit.used();
        assert_eq!(self.flows[at].caller, from);
        // One that nobody used since it was opened has a place in the order that is known.
        let untouched = self.flows.iter().filter(|flow| flow.caller == from && !flow.shed && !flow.touched);
        let oldest = untouched.map(|flow| flow.opened).min();
        assert!(oldest.is_none_or(|oldest| used <= oldest), "used at {used}, and another one last at {oldest:?}");
        let flow = &mut self.flows[at];
        flow.shed = true;
        flow.charged = !takes_over;
    }

    fn close(&mut self, at: usize) {
        if !self.flows.is_empty() {
            self.flows.swap_remove(at % self.flows.len());
        }
    }

    fn touch(&mut self, at: usize) {
        let now = self.now;
        let count = self.flows.len().max(1);
        if let Some(flow) = self.flows.get_mut(at % count) {
            flow.permit.touch(now);
            flow.touched = true;
        }
    }

    fn connect(&mut self, of: u8) {
        let most = self.admission.budget().connections(0);
        let want = self.connections.len() < most && self.has_room(of, CONNECTION);
        let admitted = self.admission.connection(caller(of));
        assert_eq!(admitted.is_some(), want, "a connection of {of}");
        self.connections.extend(admitted.map(|permit| (of, permit)));
    }

    fn disconnect(&mut self, at: usize) {
        if !self.connections.is_empty() {
            self.connections.swap_remove(at % self.connections.len());
        }
    }

    /// Closes what was given up.
    fn reap(&mut self) {
        self.flows.retain(|flow| !flow.shed);
    }

    fn check(&self) {
        let budget = self.admission.budget();
        assert!(self.flows.iter().all(|flow| flow.permit.is_shed() == flow.shed), "one was given up for nobody");
        let counts = self.open_flows();
        assert!(counts.values().sum::<usize>() <= budget.flows());
        assert!(counts.values().all(|count| *count <= budget.flows_per_caller()));
        assert_eq!(self.admission.connections(), self.connections.len());
    }

    fn end(self) {
        drop((self.flows, self.connections));
        assert_eq!(self.admission.connections(), 0);
        assert_eq!(room(&self.admission), *ROOM, "something was left");
        let most = self.admission.budget().flows();
        let each = self.admission.budget().flows_per_caller();
        let flows: Vec<_> = (0..most).map(|at| self.admission.flow(caller(200 + (at / each) as u8), 0)).collect();
        assert!(flows.iter().all(|flow| matches!(flow, Some((_, 0)))), "as many as at the beginning");
    }
}
