//! A command line that is refused: which variable of the environment a bad value came from, and nothing that commands the
//! terminal.

use std::{borrow::Cow, collections::BTreeSet, ffi::OsString};

use clap::{
    Command, CommandFactory as _,
    error::{ContextKind, ContextValue, ErrorKind},
};

use super::Cli;
use crate::terminal;

/// Says what is wrong, and ends the process as clap does.
pub fn refuse(error: &clap::Error) -> ! {
    let variables = of_environment(error, std::env::args_os());
    let is_harmful = |argument: OsString| matches!(terminal::printable(&argument.to_string_lossy()), Cow::Owned(_));
    // What clap prints by itself has the arguments as they are.
    if !error.use_stderr() || (variables.is_empty() && !std::env::args_os().any(is_harmful)) {
        error.exit();
    }
    terminal::err(format_args!("{}", error.render()));
    for (flag, variable) in variables {
        terminal::err(format_args!(
            "\nThe value of {flag} is that of the environment variable {variable}. Correct it there, or unset it.\n"
        ));
    }
    std::process::exit(error.exit_code());
}

/// Says why arguments of this command do not go together, and ends the process as clap does.
pub fn refuse_combination(command: &str, why: &str) -> ! {
    let mut root = Cli::command();
    root.build();
    let command = root.find_subcommand_mut(command);
    let mut command = command.map(|found| found.clone()).unwrap_or_else(Cli::command);
    refuse(&command.error(ErrorKind::ArgumentConflict, why))
}

/// The flags that an error is about and that nobody wrote on the command line, each with the variable that gives it a value.
fn of_environment(error: &clap::Error, arguments: impl Iterator<Item = OsString>) -> BTreeSet<(String, String)> {
    let written: Vec<String> = arguments.map(|argument| argument.to_string_lossy().into_owned()).collect();
    let mut found = BTreeSet::new();
    for kind in [ContextKind::InvalidArg, ContextKind::PriorArg] {
        let texts = match error.get(kind) {
            Some(ContextValue::String(text)) => vec![text.as_str()],
            Some(ContextValue::Strings(texts)) => texts.iter().map(String::as_str).collect(),
            _ => Vec::new(),
        };
        // `--flag <VALUE>`
        for flag in texts.iter().filter_map(|text| text.split([' ', '=']).next()) {
            let is_it = |argument: &String| argument == flag || argument.starts_with(&format!("{flag}="));
            let Some(long) = flag.strip_prefix("--").filter(|_| !written.iter().any(is_it)) else { continue };
            let mut variables = BTreeSet::new();
            variables_of(&Cli::command(), long, &mut variables);
            let set = variables.into_iter().filter(|variable| std::env::var_os(variable).is_some());
            found.extend(set.map(|variable| (flag.to_owned(), variable)));
        }
    }
    found
}

/// The variables of this flag in all commands.
fn variables_of(command: &Command, long: &str, found: &mut BTreeSet<String>) {
    let flags = command.get_arguments().filter(|argument| argument.get_long() == Some(long));
    found.extend(flags.filter_map(|flag| Some(flag.get_env()?.to_string_lossy().into_owned())));
    for inner in command.get_subcommands() {
        variables_of(inner, long, found);
    }
}
