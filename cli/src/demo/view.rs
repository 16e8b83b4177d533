//! A small live view of the requests, for a person at a terminal.

use std::{
    io::{IsTerminal as _, Write as _, stdout},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use super::backend::Backend;

const EVERY: Duration = Duration::from_secs(1);
const BAR: usize = 30;

/// What one backend has answered.
pub struct Counter {
    name: &'static str,
    answered: Arc<AtomicU64>,
    before: u64,
}

impl Counter {
    /// The counter of this backend.
    pub fn of(backend: &Backend) -> Self {
        Self { name: backend.name, answered: backend.counter(), before: 0 }
    }

    /// Answers since the last look.
    fn step(&mut self) -> u64 {
        let now = self.answered.load(Ordering::Relaxed);
        let step = now - self.before;
        self.before = now;
        step
    }
}

/// Prints a line a second while something happens; nothing when standard output is no terminal.
pub async fn run(mut counters: Vec<Counter>) {
    if !stdout().is_terminal() {
        return;
    }
    let mut tick = tokio::time::interval(EVERY);
    loop {
        tick.tick().await;
        let steps: Vec<_> = counters.iter_mut().map(|counter| (counter.name, counter.step())).collect();
        if steps.iter().any(|(_, step)| *step > 0) {
            let mut out = stdout().lock();
            let _ = out.write_all(line(&steps).as_bytes()).and_then(|()| out.flush());
        }
    }
}

/// `12/s  v1 6 ######  v2 6 ######  flaky 0  echo 0`
fn line(steps: &[(&str, u64)]) -> String {
    let total: u64 = steps.iter().map(|(_, step)| step).sum();
    let mut text = format!("{total:>5}/s");
    for (name, step) in steps {
        let bar = "#".repeat(usize::try_from(*step * BAR as u64 / total.max(1)).unwrap_or(BAR));
        text += &format!("  {name} {step}{}{bar}", if bar.is_empty() { "" } else { " " });
    }
    text + "\n"
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bars_share_one_width() {
        let want = format!("   12/s  v1 9 {}  v2 3 {}  echo 0\n", "#".repeat(22), "#".repeat(7));
        assert_eq!(line(&[("v1", 9), ("v2", 3), ("echo", 0)]), want);
    }
}
