//! Scales with round numbers.

use super::unit::{Scale, Unit};

/// Intervals of an axis at most.
const INTERVALS: f64 = 5.0;

/// A scale from 0 to a round number.
pub(super) struct Axis {
    scale: Scale,
    /// Between two ticks, in numbers of the scale.
    step: f64,
    /// The end of the axis.
    pub(super) greatest: f64,
}

impl Axis {
    /// An axis on which `greatest` has room.
    pub(super) fn new(unit: Unit, greatest: f64) -> Self {
        let scale = unit.scale(greatest);
        let least = (greatest / scale.factor / INTERVALS).max(if greatest > 0.0 { 0.0 } else { 1.0 / INTERVALS });
        let power = 10_f64.powf(least.log10().floor());
        let rounded = [1.0, 2.0, 2.5, 5.0, 10.0].map(|round| round * power);
        let step = rounded.into_iter().find(|step| *step >= least * 0.999).unwrap_or(10.0 * power);
        let intervals = (greatest / scale.factor / step * 0.999).ceil().max(1.0);
        let intervals = if greatest > 0.0 { intervals } else { INTERVALS };
        Self { step, greatest: intervals * step * scale.factor, scale }
    }

    /// The values with a label.
    pub(super) fn ticks(&self) -> Vec<f64> {
        let step = self.step * self.scale.factor;
        let count = (self.greatest / step).round();
        (0..).map(f64::from).take_while(|index| *index <= count).map(|index| index * step).collect()
    }

    /// The label of a tick.
    pub(super) fn label(&self, value: f64) -> String {
        let digits = (-self.step.log10().floor()).max(0.0) as usize;
        // 2.5 has one digit more than its power of ten.
        let has_half = (self.step / 10_f64.powf(self.step.log10().floor()) - 2.5).abs() < 0.01;
        self.scale.text(value, digits + usize::from(has_half && self.step < 10.0))
    }

    /// A value that is no tick, with three digits that matter.
    pub(super) fn exact(&self, value: f64) -> String {
        let number = value / self.scale.factor;
        let digits =
            if number == 0.0 || number.fract() == 0.0 { 0.0 } else { (2.0 - number.abs().log10().floor()).max(0.0) };
        self.scale.text(value, digits as usize)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ticks_are_round() {
        for (unit, greatest, want) in [
            ("short", 0.0, vec!["0", "0.2", "0.4", "0.6", "0.8", "1"]),
            ("short", 3.0, vec!["0", "1", "2", "3"]),
            ("reqps", 48.0, vec!["0 req/s", "10 req/s", "20 req/s", "30 req/s", "40 req/s", "50 req/s"]),
            ("s", 0.012, vec!["0 ms", "2.5 ms", "5 ms", "7.5 ms", "10 ms", "12.5 ms"]),
            ("s", 600.0, vec!["0 min", "2 min", "4 min", "6 min", "8 min", "10 min"]),
            ("bytes", 3000.0, vec!["0 KiB", "1 KiB", "2 KiB", "3 KiB"]),
            ("percentunit", 0.04, vec!["0 %", "1 %", "2 %", "3 %", "4 %"]),
        ] {
            let axis = Axis::new(Unit::named(unit).unwrap(), greatest);
            let labels: Vec<String> = axis.ticks().into_iter().map(|tick| axis.label(tick)).collect();
            assert_eq!(labels, want, "{greatest} {unit}");
            assert!(axis.greatest >= greatest, "{greatest} {unit}: it ends at {}", axis.greatest);
        }
    }

    #[test]
    fn values_have_three_digits() {
        for (unit, value, want) in [
            ("reqps", 52.345, "52.3 req/s"),
            ("short", 3.0, "3"),
            ("s", 0.012_34, "12.3 ms"),
            ("percentunit", 0.0, "0 %"),
        ] {
            assert_eq!(Axis::new(Unit::named(unit).unwrap(), value).exact(value), want);
        }
    }
}
