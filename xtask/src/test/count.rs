//! Counting the tests in what `cargo test` prints.

/// Counts of one or several test programs.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Counts {
    pub(super) passed: usize,
    pub(super) failed: usize,
    pub(super) ignored: usize,
}

/// Adds up the result lines of all test programs in `output`.
pub(super) fn counts(output: &str) -> Counts {
    let mut sum = Counts::default();
    for line in output.lines() {
        // A program that prints without a line's end may stand before the result on the same line.
        let Some((_, result)) = line.split_once("test result: ") else { continue };
        let Some((_, result)) = result.split_once(". ") else { continue };
        for part in result.split("; ") {
            let Some((number, word)) = part.split_once(' ') else { continue };
            let Ok(number) = number.parse::<usize>() else { continue };
            match word {
                "passed" => sum.passed += number,
                "failed" => sum.failed += number,
                "ignored" => sum.ignored += number,
                _ => {}
            }
        }
    }
    sum
}

/// The skipped tests in `list`, the file that `maesh_test_support::skip` writes: each test once, with its reasons.
pub(super) fn skips(list: &str) -> Vec<String> {
    let mut tests: Vec<(&str, Vec<&str>)> = Vec::new();
    for line in list.lines() {
        let (test, reason) = line.split_once('\t').unwrap_or((line, "no reason given"));
        match tests.iter_mut().find(|(known, _)| *known == test) {
            Some((_, reasons)) => reasons.push(reason),
            None => tests.push((test, vec![reason])),
        }
    }
    tests.into_iter().map(|(test, reasons)| format!("{test}: {}", reasons.join("; "))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn result_lines_are_added_up() {
        let output = "running 3 tests\ntest a ... ok\n\
            test result: ok. 2 passed; 0 failed; 1 ignored; 0 measured; 0 filtered out; finished in 0.1s\n\
            some program's last words test result: FAILED. 4 passed; 1 failed; 0 ignored; 0 measured; 3 filtered out\n\
            test result: nonsense\n";
        assert_eq!(counts(output), Counts { passed: 6, failed: 1, ignored: 1 });
        assert_eq!(counts(""), Counts::default());
    }

    #[test]
    fn a_test_is_skipped_once() {
        let list = "a\tno etcd\nb\tno root\na\tno kube\n";
        assert_eq!(skips(list), ["a: no etcd; no kube", "b: no root"]);
    }
}
