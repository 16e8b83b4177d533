//! Instructions: what the parts of a request's work take, counted by callgrind instead of timed.
//!
//! A count is the same on every machine, whatever else that does, so it can be compared with the one that is checked in, in
//! `docs/instructions.md`. What would still vary is fixed: the C library is the one that comes with the compiler (musl, linked
//! in), the allocator and what moves memory are our own, and counts of another compiler are not compared at all.

mod page;
mod program;

use std::fs;

use anyhow::{Context, Result, bail};
use clap::Args;
use maesh_test_support::{generated::WRITE, repository};

use self::page::{PAGE, Page};
use self::program::Program;
pub(crate) use self::program::Unavailable;

/// What can be chosen.
#[derive(Args)]
pub(crate) struct Options {
    /// Only the parts whose names contain this; they are not compared
    part: Option<String>,
    /// Also print in which functions the instructions of these parts are
    #[arg(long, requires = "part")]
    functions: bool,
}

/// How the counts compare with the page.
pub(crate) struct Compared {
    /// Parts that take what the page says.
    pub(crate) same: usize,
    /// What is to be said of the others, a line each.
    pub(crate) differences: Vec<String>,
}

/// Prints the counts, and compares them with the page, or writes it.
///
/// # Errors
/// When they differ.
pub(crate) fn run(options: &Options) -> Result<()> {
    let program = Program::build()?;
    if let Some(wanted) = &options.part {
        return show(&program, wanted, options.functions);
    }
    let counted = Page { compiler: program::compiler()?, counts: program.count(&program.parts()?)? };
    print!("{}", counted.table());
    if std::env::var_os(WRITE).is_some() {
        fs::write(repository().join(PAGE), counted.to_string()).with_context(|| format!("writing {PAGE}"))?;
        println!("{PAGE} is written; `git diff {PAGE}` shows what changed");
        return Ok(());
    }
    let expected = Page::read()?;
    is_comparable(&expected, &counted.compiler)?;
    let Compared { differences, .. } = expected.compare(&counted);
    if differences.is_empty() {
        println!("{PAGE} says the same");
        return Ok(());
    }
    bail!(explained(&differences))
}

/// Counts and compares, for `cargo xtask test`.
///
/// # Errors
/// When nothing can be compared; [`Unavailable`] when that is for want of something on this machine.
pub(crate) fn check() -> Result<Compared> {
    let (expected, compiler) = (Page::read()?, program::compiler()?);
    is_comparable(&expected, &compiler)?;
    let program = Program::build()?;
    let counts = program.count(&program.parts()?)?;
    Ok(expected.compare(&Page { compiler, counts }))
}

/// What a person is told of `differences`.
pub(crate) fn explained(differences: &[String]) -> String {
    format!(
        "{PAGE} says otherwise:\n  {}\n\
         `cargo xtask bench instructions PART --functions` shows where the instructions of a part are. If the change is \
         meant: {WRITE}=1 cargo xtask bench instructions",
        differences.join("\n  ")
    )
}

/// Another compiler makes other code of the same source.
fn is_comparable(expected: &Page, compiler: &str) -> Result<()> {
    if expected.compiler == compiler {
        return Ok(());
    }
    let counted_by = &expected.compiler;
    bail!(Unavailable(format!(
        "instruction counts: those of {PAGE} are of {counted_by}, and this is {compiler}, which makes other code. Count anew: \
         {WRITE}=1 cargo xtask bench instructions"
    )))
}

fn show(program: &Program, wanted: &str, functions: bool) -> Result<()> {
    let parts: Vec<String> = program.parts()?.into_iter().filter(|part| part.contains(wanted)).collect();
    if parts.is_empty() {
        bail!("no part's name contains {wanted:?}; there are:\n{}", program.parts()?.join("\n"));
    }
    for count in program.count(&parts)? {
        println!("{count}");
        if functions {
            println!("{}", program.functions(&count.part)?);
        }
    }
    Ok(())
}
