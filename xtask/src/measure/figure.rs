//! Figures that are held to a must and a goal.

/// What a figure must be below, and should be below.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Figure {
    pub(crate) must: f64,
    pub(crate) goal: f64,
    /// None for a ratio.
    pub(crate) unit: &'static str,
}

impl Figure {
    /// Must and goal, and whether `value` meets them; what was not measured meets neither.
    pub(crate) fn judge(self, value: f64) -> String {
        let word = if value < self.goal {
            "goal met"
        } else if self.is_met(value) {
            "must met"
        } else {
            "MISSED"
        };
        let with_unit = |number: f64| format!("{number} {}", self.unit).trim_end().to_owned();
        format!("{} ({}): {word}", with_unit(self.must), with_unit(self.goal))
    }

    /// Whether `value` is below the must.
    pub(crate) fn is_met(self, value: f64) -> bool {
        value < self.must
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_figure_is_judged_by_its_must_and_its_goal() {
        let figure = Figure { must: 200.0, goal: 50.0, unit: "ms" };
        for (value, word) in [(49.9, "goal met"), (50.0, "must met"), (200.0, "MISSED"), (f64::NAN, "MISSED")] {
            assert_eq!(figure.judge(value), format!("200 ms (50 ms): {word}"), "{value}");
        }
        assert_eq!(Figure { must: 0.35, goal: 0.2, unit: "" }.judge(0.3), "0.35 (0.2): must met");
    }
}
