//! The binary that is measured: the image's own, unless another one is named.

use std::path::PathBuf;
use std::process::Command;

use anyhow::{Context, Result};
use clap::Args;

use crate::command::quietly;

/// Which binary of maesh is measured.
#[derive(Args, Debug, Clone)]
pub(crate) struct Binary {
    /// Measure this program, such as the image's of an earlier build, instead of building the image's
    #[arg(long, value_name = "FILE")]
    maesh: Option<PathBuf>,
}

impl Binary {
    /// Where it is; built first where none is named.
    ///
    /// # Errors
    /// When it does not start, or cannot be built.
    pub(crate) fn file(&self) -> Result<PathBuf> {
        let Some(file) = &self.maesh else { return crate::image::build() };
        quietly(Command::new(file).arg("--version")).context("--maesh must name a program that starts")?;
        Ok(file.clone())
    }
}
