//! `cargo xtask pictures`: the pictures of the dashboards in `docs/pictures`.
//!
//! A mesh runs on loopback under a load in which endpoints fail, a circuit breaker opens, and callers ask too much. A real
//! Prometheus scrapes it. Then each panel of each dashboard is drawn from the results of its own queries, with its title,
//! unit and legend. The pictures are not Grafana's: it is no part of this. A panel without data is a fault of the panel or
//! of the mesh, so it fails the command.

mod callers;
mod dashboard;
mod draw;
mod endpoints;
mod mesh;
mod names;
mod prometheus;
mod stage;

use std::fs;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use clap::Args;
use maesh_test_support::{TOOLS, repository};
use serde::{Deserialize, Serialize};

use dashboard::Dashboard;
use mesh::Mesh;
use prometheus::Line;
use stage::{Stage, Times};

/// The program that scrapes. Nothing else needs it, so it is built here and not by `cargo xtask test --setup`.
pub(crate) const PROMETHEUS: &str = "prometheus";

/// What is measured, and for how long.
#[derive(Args)]
pub(crate) struct Options {
    /// Run this binary of maesh instead of building one
    #[arg(long, value_name = "FILE")]
    maesh: Option<PathBuf>,
    /// Seconds that the pictures show
    #[arg(long, default_value_t = 600)]
    seconds: u64,
    /// Seconds before that. With less than the two minutes over which the dashboards take rates, curves begin too low
    #[arg(long, default_value_t = 120)]
    warm_up: u64,
    /// Only draw what was measured last, without a mesh
    #[arg(long)]
    draw: bool,
}

/// The results of the queries of one dashboard: for each panel its lines.
#[derive(Serialize, Deserialize)]
pub(super) struct Measured {
    /// Seconds that are shown.
    seconds: f64,
    panels: Vec<Vec<Line>>,
}

/// Measures, unless only to draw, and writes the pictures.
pub(crate) fn run(options: &Options) -> Result<()> {
    let dashboards = Dashboard::all()?;
    let kept = repository().join("target/pictures");
    fs::create_dir_all(&kept).with_context(|| format!("creating {}", kept.display()))?;
    if !options.draw {
        for (dashboard, measured) in dashboards.iter().zip(measure(options, &dashboards)?) {
            fs::write(kept.join(format!("{}.json", dashboard.name)), serde_json::to_string(&measured)?)?;
        }
    }
    let pictures = repository().join("docs/pictures");
    fs::create_dir_all(&pictures).with_context(|| format!("creating {}", pictures.display()))?;
    let mut empty = Vec::new();
    for dashboard in &dashboards {
        let file = kept.join(format!("{}.json", dashboard.name));
        let text = fs::read_to_string(&file).with_context(|| format!("{}; run without --draw", file.display()))?;
        let measured: Measured = serde_json::from_str(&text)?;
        let picture = draw::picture(dashboard, &measured)?;
        let file = pictures.join(format!("{}.svg", dashboard.name));
        println!("{} ({} KB)", file.display(), picture.len() / 1000);
        fs::write(file, picture)?;
        let without = dashboard.panels.iter().zip(&measured.panels).filter(|(_, lines)| lines.is_empty());
        empty.extend(without.map(|(panel, _)| format!("{}: {}", dashboard.name, panel.title)));
    }
    if !empty.is_empty() {
        bail!("these panels have no data:\n{}", empty.join("\n"));
    }
    Ok(())
}

/// Runs a mesh under load beside Prometheus, and all queries at the end.
fn measure(options: &Options, dashboards: &[Dashboard]) -> Result<Vec<Measured>> {
    let maesh = match &options.maesh {
        Some(file) => file.clone(),
        None => crate::bench::rivals::built("release", "maesh", &["--bin", "maesh"], "maesh")?,
    };
    let tool = TOOLS.iter().find(|tool| tool.answers_to(PROMETHEUS)).context("no tool is called prometheus")?;
    crate::tool::ensure(tool)?;
    let length = Duration::from_secs(options.seconds);
    let times = Times { warm_up: Duration::from_secs(options.warm_up), length };
    let stage = Arc::new(Stage::new(times));
    let mut mesh = Mesh::start(&maesh, &stage)?;
    callers::start(&mesh, &stage);
    println!("a mesh under load, for {} s", (times.warm_up + times.length).as_secs());
    mesh.play(&stage)?;
    let run = prometheus::Run::until_now(mesh.prometheus(), length);
    dashboards.iter().map(|dashboard| run.measure(dashboard)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// So that no picture shows a dashboard of another time.
    #[test]
    fn pictures_show_the_panels_that_the_dashboards_have() {
        for dashboard in Dashboard::all().unwrap() {
            let file = format!("docs/pictures/{}.svg", dashboard.name);
            let picture = fs::read_to_string(repository().join(&file)).unwrap_or_default();
            for panel in &dashboard.panels {
                let title = format!(">{}</text>", draw::escaped(&panel.title));
                assert!(picture.contains(&title), "{file} lacks {}: cargo xtask pictures", panel.title);
            }
            assert!(picture.len() < 150_000, "{file} is large: {} bytes", picture.len());
        }
    }

    #[test]
    fn every_dashboard_can_be_drawn() {
        for dashboard in Dashboard::all().unwrap() {
            let line = |number: usize| Line {
                name: format!("line {number} & <more>"),
                points: (0..120).map(|at| (f64::from(at) * 5.0, Some(f64::from(at) * (number + 1) as f64))).collect(),
            };
            let panels = dashboard.panels.iter().map(|_| (0..4).map(line).collect()).collect();
            let picture = draw::picture(&dashboard, &Measured { seconds: 600.0, panels }).unwrap();
            assert_eq!(picture.matches("<svg").count(), 1, "{}", dashboard.name);
            assert!(!picture.contains("NaN") && !picture.contains("& <"), "{picture}");
        }
    }
}
