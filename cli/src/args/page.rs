//! The page of the reference that lists every command, flag and environment variable: `docs/reference/commands.md`.

use clap::{Arg, Command, CommandFactory as _};
use maesh_test_support::generated::{NOTE, is_current};

use super::Cli;

#[test]
fn reference_page_is_current() {
    let mut root = Cli::command();
    root.build();
    let mut page = format!(
        "{NOTE}\n# Commands, flags and environment variables\n\n`maesh` is one program. `maesh COMMAND --help` prints the same \
         as this page. A flag wins over its environment variable. A duration is a number with a unit: `500ms`, `45s`, \
         `1m30s`, `2h`.\n\n"
    );
    for command in shown(&root) {
        page += &format!("- [`maesh {name}`](#maesh-{name})\n", name = command.get_name());
    }
    page += "\n## Flags of every command\n\n";
    page += &table(root.get_arguments().filter(|argument| argument.is_global_set()));
    for command in shown(&root) {
        section(&mut page, "maesh", command, 2);
    }
    is_current("docs/reference/commands.md", &page, "cargo xtask docs");
}

fn shown(command: &Command) -> impl Iterator<Item = &Command> {
    command.get_subcommands().filter(|command| !command.is_hide_set() && command.get_name() != "help")
}

fn section(page: &mut String, parent: &str, command: &Command, level: usize) {
    let name = format!("{parent} {}", command.get_name());
    let about = command.get_long_about().or_else(|| command.get_about()).map(ToString::to_string).unwrap_or_default();
    *page += &format!("\n{} {name}\n\n{}\n", "#".repeat(level), sentences(&about));
    let own: Vec<&Arg> =
        command.get_arguments().filter(|argument| !argument.is_global_set() && !is_standard(argument)).collect();
    if !own.is_empty() {
        *page += &format!("\n{}", table(own.into_iter()));
    }
    for inner in shown(command) {
        section(page, &name, inner, level + 1);
    }
}

/// `--help` and `--version`.
fn is_standard(argument: &Arg) -> bool {
    matches!(argument.get_id().as_str(), "help" | "version")
}

fn table<'a>(arguments: impl Iterator<Item = &'a Arg>) -> String {
    let mut text = "| flag | variable | default | meaning |\n|---|---|---|---|\n".to_owned();
    for argument in arguments.filter(|argument| !argument.is_hide_set()) {
        let values = argument.get_value_names().unwrap_or_default().iter().map(|name| name.as_str());
        let value =
            if argument.get_action().takes_values() { values.collect::<Vec<_>>().join(" ") } else { String::new() };
        let short = argument.get_short().map_or_else(String::new, |short| format!("-{short}, "));
        let flag = match argument.get_long() {
            Some(long) => format!("{short}--{long} {value}"),
            None => value,
        };
        let variable = argument.get_env().map(|name| format!("`{}`", name.display())).unwrap_or_default();
        let defaults = argument.get_default_values().iter().map(|it| it.to_string_lossy()).collect::<Vec<_>>();
        let default = match (argument.get_action().takes_values(), defaults.is_empty()) {
            (true, false) => format!("`{}`", defaults.join(",")),
            _ if argument.is_required_set() => "required".to_owned(),
            _ => String::new(),
        };
        let help =
            argument.get_long_help().or_else(|| argument.get_help()).map(ToString::to_string).unwrap_or_default();
        let possible: Vec<String> = argument
            .get_possible_values()
            .iter()
            .filter(|value| !value.is_hide_set() && argument.get_action().takes_values())
            .map(|value| match value.get_help() {
                Some(help) => format!("`{}` ({})", value.get_name(), lower(&help.to_string())),
                None => format!("`{}`", value.get_name()),
            })
            .collect();
        let help = match possible.is_empty() || argument.get_value_parser().type_id() == std::any::TypeId::of::<bool>()
        {
            true => sentences(&help),
            false => format!("{} One of {}.", sentences(&help), possible.join(", ")),
        };
        text += &format!(
            "| `{}` | {variable} | {default} | {} |\n",
            flag.trim(),
            help.replace('\n', " ").replace('|', "\\|")
        );
    }
    text
}

/// With a full stop at the end.
fn sentences(text: &str) -> String {
    let text = text.trim();
    if text.is_empty() || text.ends_with(['.', '!', '?', ':']) { text.to_owned() } else { format!("{text}.") }
}

/// Begins with a small letter, unless its first word is an abbreviation.
fn lower(text: &str) -> String {
    let mut letters = text.chars();
    if text.chars().nth(1).is_some_and(|second| !second.is_lowercase() && !second.is_whitespace()) {
        return text.to_owned();
    }
    letters.next().map_or_else(String::new, |first| first.to_lowercase().chain(letters).collect())
}
