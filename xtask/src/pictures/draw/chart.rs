//! The two kinds of panels.

use std::fmt::Write as _;

use anyhow::{Context, Result};

use super::super::prometheus::Line;
use super::axis::Axis;
use super::unit::Unit;
use super::{COLOURS, UNNAMED, escaped};

/// The rows of a legend at most. Where there are more, lines that are 0 all the time are left out of it, and counted.
const LEGEND_ROWS: usize = 3;
const LEGEND_ROW: f64 = 15.0;
/// The width of a letter at most, where fonts are wide.
const LETTER: f64 = 6.7;

/// The size of a panel, and the time it shows.
pub(super) struct Frame {
    pub(super) width: f64,
    pub(super) height: f64,
    pub(super) seconds: f64,
}

/// Where values are inside a frame.
struct Plot {
    left: f64,
    right: f64,
    top: f64,
    bottom: f64,
    seconds: f64,
    greatest: f64,
}

impl Plot {
    fn x(&self, at: f64) -> f64 {
        self.left + (self.right - self.left) * at / self.seconds
    }

    fn y(&self, value: f64) -> f64 {
        self.bottom - (self.bottom - self.top) * value / self.greatest
    }

    /// A line through these points, interrupted where there is no value.
    fn path(&self, points: &[(f64, Option<f64>)]) -> String {
        let mut path = String::new();
        for run in runs(points) {
            for (index, (at, value)) in without_repetitions(&run).into_iter().enumerate() {
                let letter = if index == 0 { 'M' } else { 'L' };
                let _ = write!(path, "{letter}{:.1} {:.1}", self.x(at), self.y(value));
            }
        }
        path
    }

    /// The area between two lines of the same times, interrupted where a time is missing.
    fn area(&self, lower: &[(f64, f64)], upper: &[(f64, f64)]) -> String {
        let both: Vec<_> =
            upper.iter().zip(lower).map(|((at, upper), (_, lower))| (*at, Some((*upper, *lower)))).collect();
        let mut path = String::new();
        for run in runs(&both) {
            let there = run.iter().map(|(at, (upper, _))| (*at, *upper));
            let back = run.iter().rev().map(|(at, (_, lower))| (*at, *lower));
            for (index, (at, value)) in there.chain(back).enumerate() {
                let letter = if index == 0 { 'M' } else { 'L' };
                let _ = write!(path, "{letter}{:.1} {:.1}", self.x(at), self.y(value));
            }
            path.push('Z');
        }
        path
    }
}

/// Parts of a line without a gap: neither a time without a value nor one that is missing.
fn runs<T: Copy>(points: &[(f64, Option<T>)]) -> Vec<Vec<(f64, T)>> {
    let step = points.windows(2).map(|two| two[1].0 - two[0].0).fold(f64::INFINITY, f64::min);
    let mut runs: Vec<Vec<(f64, T)>> = Vec::new();
    let mut last = None;
    for (at, value) in points {
        let Some(value) = value else {
            last = None;
            continue;
        };
        match runs.last_mut().filter(|_| last.is_some_and(|last| at - last < step * 1.5)) {
            Some(run) => run.push((*at, *value)),
            None => runs.push(vec![(*at, *value)]),
        }
        last = Some(at);
    }
    runs
}

/// A line without the points between two of the same value.
fn without_repetitions(run: &[(f64, f64)]) -> Vec<(f64, f64)> {
    let is_inside = |index: usize| {
        index > 0 && index + 1 < run.len() && run[index - 1].1 == run[index].1 && run[index].1 == run[index + 1].1
    };
    run.iter().enumerate().filter(|(index, _)| !is_inside(*index)).map(|(_, point)| *point).collect()
}

/// Lines over time, with axes and a legend.
pub(super) fn time_series(svg: &mut String, frame: &Frame, unit: &str, is_stacked: bool, lines: &[Line]) -> Result<()> {
    let sums = stacked(lines);
    let plain = || lines.iter().flat_map(|line| &line.points).filter_map(|(_, value)| *value).fold(0.0, f64::max);
    let greatest = if is_stacked { sums.last().map_or(0.0, |sum| greatest(sum)) } else { plain() };
    let axis = Axis::new(Unit::named(unit)?, greatest);
    let legend = legend(lines, frame.width - 20.0);
    let bottom = frame.height - 30.0 - LEGEND_ROW * legend.len() as f64;
    let longest = axis.ticks().into_iter().map(|tick| axis.label(tick).chars().count()).max().unwrap_or_default();
    let plot = Plot {
        left: 20.0 + LETTER * longest as f64,
        right: frame.width - 14.0,
        top: 34.0,
        bottom,
        seconds: frame.seconds,
        greatest: axis.greatest,
    };
    grid(svg, &plot, &axis)?;
    let named: Vec<usize> = legend.iter().flatten().filter_map(|entry| entry.line).collect();
    let colour_of = |index: &usize| {
        named.iter().position(|named| named == index).map_or(UNNAMED, |place| COLOURS[place % COLOURS.len()])
    };
    for (index, line) in lines.iter().enumerate() {
        let colour = colour_of(&index);
        if is_stacked {
            let lower =
                if index == 0 { sums[0].iter().map(|(at, _)| (*at, 0.0)).collect() } else { sums[index - 1].clone() };
            let area = plot.area(&lower, &sums[index]);
            write!(svg, "<path d=\"{area}\" fill=\"{colour}\" fill-opacity=\".2\"/>")?;
        }
        let of_sum: Vec<_> = sums[index].iter().map(|(at, value)| (*at, Some(*value))).collect();
        let path = plot.path(if is_stacked { &of_sum } else { &line.points });
        write!(svg, "<path class=\"l\" stroke=\"{colour}\" d=\"{path}\"/>")?;
    }
    for (row, entries) in legend.iter().enumerate() {
        let y = frame.height - 10.0 - LEGEND_ROW * (legend.len() - 1 - row) as f64;
        for Entry { x, line, text } in entries {
            let x = x + 10.0;
            if let Some(colour) = line.as_ref().map(colour_of) {
                write!(svg, "<path d=\"M{x:.0} {:.1}h12\" stroke=\"{colour}\" stroke-width=\"3\"/>", y - 4.0)?;
            }
            write!(svg, "<text x=\"{:.0}\" y=\"{y}\">{}</text>", x + 16.0, escaped(text))?;
        }
    }
    Ok(())
}

/// Each line with all before it, at the times of all of them.
fn stacked(lines: &[Line]) -> Vec<Vec<(f64, f64)>> {
    let mut times: Vec<f64> = lines.iter().flat_map(|line| &line.points).map(|(at, _)| *at).collect();
    times.sort_by(f64::total_cmp);
    times.dedup();
    let mut sum: Vec<(f64, f64)> = times.into_iter().map(|at| (at, 0.0)).collect();
    let mut sums = Vec::new();
    for line in lines {
        for (at, value) in &line.points {
            if let Ok(index) = sum.binary_search_by(|(time, _)| time.total_cmp(at)) {
                sum[index].1 += value.unwrap_or(0.0);
            }
        }
        sums.push(sum.clone());
    }
    sums
}

fn greatest(line: &[(f64, f64)]) -> f64 {
    line.iter().map(|(_, value)| *value).fold(0.0, f64::max)
}

/// The grid with its labels.
fn grid(svg: &mut String, plot: &Plot, axis: &Axis) -> Result<()> {
    for value in axis.ticks() {
        let y = plot.y(value);
        write!(svg, "<path class=\"g\" d=\"M{} {y:.1}H{}\"/>", plot.left, plot.right)?;
        write!(svg, "<text x=\"{}\" y=\"{:.1}\" class=\"r\">{}</text>", plot.left - 6.0, y + 4.0, axis.label(value))?;
    }
    let time = Axis::new(Unit::named("s")?, plot.seconds);
    for at in time.ticks().into_iter().filter(|at| *at <= plot.seconds) {
        let x = plot.x(at);
        write!(svg, "<path class=\"g\" d=\"M{x:.1} {}V{}\"/>", plot.top, plot.bottom)?;
        let class = match at / plot.seconds {
            share if share < 0.05 => "",
            share if share > 0.95 => " class=\"r\"",
            _ => " class=\"m\"",
        };
        write!(svg, "<text x=\"{x:.1}\" y=\"{:.1}\"{class}>{}</text>", plot.bottom + 13.0, time.label(at))?;
    }
    Ok(())
}

/// A text of a legend: where it begins, and of which line it is.
struct Entry {
    x: f64,
    line: Option<usize>,
    text: String,
}

/// Rows of a legend.
fn legend(lines: &[Line], width: f64) -> Vec<Vec<Entry>> {
    let named = |(index, line): (usize, &Line)| (Some(index), line.name.clone());
    let all = rows(lines.iter().enumerate().map(named), width);
    if all.len() <= LEGEND_ROWS {
        return all;
    }
    let is_zero = |line: &Line| line.points.iter().all(|(_, value)| value.is_none_or(|value| value == 0.0));
    let zeros = lines.iter().filter(|line| is_zero(line)).count();
    let left = lines.iter().enumerate().filter(|(_, line)| !is_zero(line)).map(named);
    rows(left.chain((zeros > 0).then(|| (None, format!("and {zeros} that are 0")))), width)
}

/// Texts in as many rows as they need.
fn rows(texts: impl Iterator<Item = (Option<usize>, String)>, width: f64) -> Vec<Vec<Entry>> {
    let mut rows: Vec<Vec<Entry>> = vec![Vec::new()];
    let mut x = 0.0;
    for (line, text) in texts {
        let length = 30.0 + LETTER * text.chars().count() as f64;
        if x > 0.0 && x + length > width {
            rows.push(Vec::new());
            x = 0.0;
        }
        if let Some(row) = rows.last_mut() {
            row.push(Entry { x, line, text });
        }
        x += length;
    }
    rows
}

/// The last value, large, above its curve.
pub(super) fn stat(
    svg: &mut String,
    frame: &Frame,
    unit: &str,
    thresholds: &[(f64, String)],
    line: &Line,
) -> Result<()> {
    let last = line.points.iter().rev().find_map(|(_, value)| *value).context("a line without a value")?;
    let colour = thresholds.iter().rev().find(|(from, _)| last >= *from).map_or("green", |(_, colour)| colour);
    let colour = match colour {
        "orange" => "#b86e00",
        "red" => "#c0392b",
        _ => "#2e7d4f",
    };
    let axis = Axis::new(Unit::named(unit)?, last);
    let values = line.points.iter().filter_map(|(_, value)| *value);
    let greatest = values.fold(f64::MIN_POSITIVE, f64::max);
    let (top, bottom) = (frame.height - 34.0, frame.height - 3.0);
    let plot = Plot { left: 1.0, right: frame.width - 1.0, top, bottom, seconds: frame.seconds, greatest };
    write!(svg, "<path class=\"l\" stroke=\"{colour}\" stroke-opacity=\".45\" d=\"{}\"/>", plot.path(&line.points))?;
    let (x, y) = (frame.width / 2.0, frame.height / 2.0 + 8.0);
    write!(svg, "<text x=\"{x}\" y=\"{y}\" class=\"v\" style=\"fill:{colour}\">{}</text>", axis.exact(last))?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_interrupted_where_values_are_missing() {
        let points = [(0.0, Some(1.0)), (5.0, Some(1.0)), (10.0, None), (15.0, Some(2.0)), (30.0, Some(2.0))];
        let want = vec![vec![(0.0, 1.0), (5.0, 1.0)], vec![(15.0, 2.0)], vec![(30.0, 2.0)]];
        assert_eq!(runs(&points), want);
    }

    #[test]
    fn what_repeats_is_left_out() {
        let run = [(0.0, 1.0), (1.0, 1.0), (2.0, 1.0), (3.0, 2.0), (4.0, 2.0)];
        assert_eq!(without_repetitions(&run), [(0.0, 1.0), (2.0, 1.0), (3.0, 2.0), (4.0, 2.0)]);
    }

    #[test]
    fn stacked_lines_add_up_at_all_times() {
        let line = |points: &[(f64, f64)]| Line {
            name: String::new(),
            points: points.iter().map(|(at, value)| (*at, Some(*value))).collect(),
        };
        let sums = stacked(&[line(&[(0.0, 1.0), (5.0, 2.0)]), line(&[(5.0, 3.0)])]);
        assert_eq!(sums, [vec![(0.0, 1.0), (5.0, 2.0)], vec![(0.0, 1.0), (5.0, 5.0)]]);
    }

    #[test]
    fn a_legend_has_as_many_rows_as_it_needs() {
        let line =
            |number: u32| Line { name: format!("line {number}"), points: vec![(0.0, Some(f64::from(number % 2)))] };
        let lines: Vec<Line> = (0..6).map(line).collect();
        let texts = |width: f64| -> Vec<Vec<String>> {
            let rows = legend(&lines, width).into_iter();
            rows.map(|row| row.into_iter().map(|entry| entry.text).collect()).collect()
        };
        assert_eq!(texts(1_000.0).len(), 1);
        assert_eq!(texts(250.0), [["line 0", "line 1", "line 2"], ["line 3", "line 4", "line 5"]]);
        assert_eq!(texts(100.0), [["line 1"], ["line 3"], ["line 5"], ["and 3 that are 0"]]);
    }
}
