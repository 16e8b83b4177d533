//! Processor time and memory of a process and of all below it, from `/proc`.

use std::fs;
use std::ops::Sub;
use std::time::Duration;

use anyhow::{Context, Result};

/// Length of a clock tick in `/proc/PID/stat`: USER_HZ is 100 on every architecture that Linux has.
const TICK: Duration = Duration::from_millis(10);

/// Processor time.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Usage {
    /// Time in the program itself.
    pub(crate) user: Duration,
    /// Time in the kernel on the program's behalf.
    pub(crate) system: Duration,
}

impl Usage {
    /// What `pid` and every process below it used so far: all their threads, also those that ended, and children that
    /// were waited for. Steps of 10 ms each.
    pub(crate) fn of_tree(pid: u32) -> Result<Self> {
        Stat::read(pid).with_context(|| format!("process {pid} is gone"))?;
        let mut sum = Self::default();
        for stat in tree(pid) {
            sum.user += stat.usage.user;
            sum.system += stat.usage.system;
        }
        Ok(sum)
    }

    /// User and system time together.
    pub(crate) fn total(self) -> Duration {
        self.user + self.system
    }

    /// Microseconds for each of `count` things that were done meanwhile: in all, in the program, in the kernel.
    pub(crate) fn micros_per(self, count: f64) -> [f64; 3] {
        [self.total(), self.user, self.system].map(|time| time.as_secs_f64() * 1e6 / count)
    }
}

impl Sub for Usage {
    type Output = Self;

    fn sub(self, earlier: Self) -> Self {
        Self { user: self.user.saturating_sub(earlier.user), system: self.system.saturating_sub(earlier.system) }
    }
}

/// One line of `/proc/PID/stat`, as far as it is of use here.
#[derive(Debug)]
pub(crate) struct Stat {
    /// The process id.
    pub(crate) pid: u32,
    parent: u32,
    /// When it started, in ticks since boot: together with the id it names one process for ever.
    started: u64,
    ended: bool,
    usage: Usage,
}

impl Stat {
    fn read(pid: u32) -> Option<Self> {
        Self::parse(&fs::read_to_string(format!("/proc/{pid}/stat")).ok()?)
    }

    /// The second field is the program's name in parentheses, which may hold spaces and parentheses itself.
    fn parse(line: &str) -> Option<Self> {
        let pid = line.split(' ').next()?.parse().ok()?;
        let (_, rest) = line.rsplit_once(')')?;
        let field: Vec<&str> = rest.split_whitespace().collect();
        let number = |nth: usize| field.get(nth - 3)?.parse::<u64>().ok();
        let ticks = |own: usize, children: usize| {
            let sum = number(own)?.checked_add(number(children)?)?;
            TICK.checked_mul(u32::try_from(sum).ok()?)
        };
        Some(Self {
            pid,
            parent: number(4)?.try_into().ok()?,
            started: number(22)?,
            ended: matches!(*field.first()?, "Z" | "X"),
            usage: Usage { user: ticks(14, 16)?, system: ticks(15, 17)? },
        })
    }

    /// Says whether the process that this was read from still runs. Its id may be another's by now, or be kept only
    /// for a parent that has not yet asked how it ended.
    pub(crate) fn is_running(&self) -> bool {
        Self::read(self.pid).is_some_and(|now| now.started == self.started && !now.ended)
    }
}

/// `pid` and every process below it, as they are now.
pub(crate) fn tree(pid: u32) -> Vec<Stat> {
    let mut others: Vec<Stat> = fs::read_dir("/proc")
        .into_iter()
        .flatten()
        .filter_map(|entry| Stat::read(entry.ok()?.file_name().to_str()?.parse().ok()?))
        .collect();
    let mut found: Vec<Stat> = others.extract_if(.., |stat| stat.pid == pid).collect();
    let mut next = 0;
    while let Some(parent) = found.get(next).map(|stat| stat.pid) {
        found.extend(others.extract_if(.., |stat| stat.parent == parent));
        next += 1;
    }
    found
}

/// Resident memory, in bytes, of `pid` and every process below it. Pages that two of them share count twice.
pub(crate) fn resident(pid: u32) -> Result<u64> {
    Stat::read(pid).with_context(|| format!("process {pid} is gone"))?;
    let of_one = |pid: u32| -> Option<u64> {
        let status = fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
        line.split_whitespace().next()?.parse::<u64>().ok()?.checked_mul(1024)
    };
    Ok(tree(pid).iter().filter_map(|stat| of_one(stat.pid)).sum())
}

/// Bytes in MiB.
#[allow(clippy::cast_precision_loss, reason = "shown with few digits")]
pub(crate) fn mebibytes(bytes: u64) -> f64 {
    bytes as f64 / f64::from(1 << 20)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::measure::{Running, until};
    use std::process::Command;

    #[test]
    fn a_name_with_spaces_and_parentheses_does_not_shift_fields() {
        let line =
            "42 (a) b (c) S 7 42 42 0 -1 4194304 100 0 0 0 150 25 10 5 20 0 3 0 9000 1000 200 18446744073709551615";
        let stat = Stat::parse(line).unwrap();
        assert_eq!((stat.pid, stat.parent, stat.started), (42, 7, 9000));
        assert_eq!(stat.usage.user, Duration::from_millis(1600));
        assert_eq!(stat.usage.system, Duration::from_millis(300));
        assert_eq!(stat.usage.total(), Duration::from_millis(1900));
    }

    #[test]
    fn time_is_divided_by_what_was_done() {
        let usage = Usage { user: Duration::from_millis(10), system: Duration::from_millis(30) };
        assert_eq!(usage.micros_per(100.0), [400.0, 100.0, 300.0]);
    }

    #[test]
    fn torn_lines_are_no_process() {
        for line in ["", "42", "42 (a", "42 (a) S", "x (a) S 7 42 42 0 -1 4194304 100 0 0 0 1 2 3 4 20 0 3 0 9 1"] {
            assert!(Stat::parse(line).is_none(), "{line:?}");
        }
    }

    #[test]
    fn a_busy_child_of_a_child_is_counted_and_ended() {
        let mut command = Command::new("sh");
        command.args(["-c", "sh -c 'while :; do :; done' & wait"]);
        let mut shell = Running::start("sh", command).unwrap();
        let pid = shell.pid();
        shell
            .wait_until(Duration::from_secs(20), || {
                Usage::of_tree(pid).is_ok_and(|usage| usage.total() > Duration::from_millis(50))
            })
            .unwrap();
        assert!(shell.resident().unwrap() > 0);
        let all = tree(pid);
        assert_eq!(all.len(), 2);
        drop(shell);
        let ended = until(Duration::from_secs(5), || all.iter().all(|process| !process.is_running()));
        assert!(ended, "left running: {all:?}");
    }
}
