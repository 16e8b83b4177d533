//! Dashboards as SVG.

mod axis;
mod chart;
mod unit;

use std::fmt::Write as _;

use anyhow::{Result, ensure};

use super::Measured;
use super::dashboard::{Dashboard, Kind, Panel};
use super::prometheus::Line;
use chart::{Frame, stat, time_series};

/// A column and a row of the grid.
const COLUMN: f64 = 50.0;
const ROW: f64 = 30.0;
/// Between panels.
const GAP: f64 = 8.0;
/// Above the panels.
const HEADER: f64 = 56.0;

/// Colours of lines, in turn.
const COLOURS: [&str; 10] =
    ["#2f6fb7", "#c8553d", "#3b8f5a", "#b8860b", "#7d5ba6", "#1b8a99", "#d1478b", "#5f6b55", "#8d5524", "#4a4e69"];

/// The colour of lines that the legend leaves out.
const UNNAMED: &str = "#c9ced6";

const STYLE: &str = "text{font-family:Helvetica,Arial,'Liberation Sans',sans-serif;font-size:11px;fill:#4b5160}\
    .h{font-size:18px;font-weight:bold;fill:#1f2430}.t{font-weight:bold;fill:#1f2430}.r{text-anchor:end}\
    .m{text-anchor:middle}.v{font-size:26px;font-weight:bold;text-anchor:middle}.p{fill:#fff;stroke:#dcdfe6}\
    .g{stroke:#eceef2}.l{fill:none;stroke-width:1.5;stroke-linejoin:round}";

/// A dashboard with what was measured.
pub(super) fn picture(dashboard: &Dashboard, measured: &Measured) -> Result<String> {
    let panels = &dashboard.panels;
    ensure!(panels.len() == measured.panels.len(), "{} has other panels than were measured", dashboard.name);
    let rows = panels.iter().map(|panel| panel.place[1] + panel.place[3]).fold(0.0, f64::max);
    let (width, height) = (24.0 * COLUMN + GAP, rows * ROW + HEADER + GAP);
    let mut svg = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {width} {height}\" width=\"{width}\" height=\"{height}\">\
         <title>{0}</title><style>{STYLE}</style>\
         <rect width=\"{width}\" height=\"{height}\" fill=\"#f4f5f7\"/><text x=\"12\" y=\"24\" class=\"h\">{0}</text>",
        escaped(&dashboard.title)
    );
    let variables: Vec<String> =
        dashboard.variables.iter().map(|one| format!("{}: {}", one.title, one.value)).collect();
    write!(svg, "<text x=\"12\" y=\"43\">{}</text>", escaped(&variables.join(", ")))?;
    let origin =
        "Drawn by cargo xtask pictures from the queries of the dashboard, run by Prometheus. Not a picture of Grafana.";
    write!(svg, "<text x=\"{}\" y=\"24\" class=\"r\">{origin}</text>", width - 12.0)?;
    for (panel, lines) in panels.iter().zip(&measured.panels) {
        draw(&mut svg, panel, lines, measured.seconds)?;
    }
    svg += "\n</svg>\n";
    Ok(svg)
}

/// The size of a title that has to fit into this width.
fn size_of_title(title: &str, width: f64) -> f64 {
    let fits = (width - 20.0) / (title.chars().count() as f64 * 0.66);
    fits.min(13.0)
}

/// Draws a panel in its place.
fn draw(svg: &mut String, panel: &Panel, lines: &[Line], seconds: f64) -> Result<()> {
    let [x, y, width, height] = panel.place;
    let frame = Frame { width: width * COLUMN - GAP, height: height * ROW - GAP, seconds };
    write!(
        svg,
        "\n<g transform=\"translate({} {})\"><rect class=\"p\" width=\"{}\" height=\"{}\" rx=\"3\"/>\
         <text x=\"10\" y=\"19\" class=\"t\" style=\"font-size:{:.1}px\">{}</text>",
        x * COLUMN + GAP,
        y * ROW + HEADER,
        frame.width,
        frame.height,
        size_of_title(&panel.title, frame.width),
        escaped(&panel.title)
    )?;
    match &panel.kind {
        _ if lines.is_empty() => {
            write!(svg, "<text x=\"{}\" y=\"{}\" class=\"m\">no data</text>", frame.width / 2.0, frame.height / 2.0)?;
        }
        Kind::Stat(thresholds) => stat(svg, &frame, &panel.unit, thresholds, &lines[0])?,
        Kind::TimeSeries { is_stacked } => time_series(svg, &frame, &panel.unit, *is_stacked, lines)?,
    }
    *svg += "</g>";
    Ok(())
}

/// Text for SVG.
pub(super) fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;")
}
