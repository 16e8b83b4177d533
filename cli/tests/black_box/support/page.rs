//! Pages of the documentation, and what a person takes out of them.

use std::fs;

use maesh_test_support::repository;

pub fn page(name: &str) -> String {
    fs::read_to_string(repository().join(name)).expect("a page")
}

/// The section under this heading.
pub fn section<'a>(page: &'a str, heading: &str) -> &'a str {
    let from = page.find(heading).unwrap_or_else(|| panic!("no heading {heading:?}")) + heading.len();
    let rest = &page[from..];
    &rest[..rest.find("\n## ").unwrap_or(rest.len())]
}

/// The blocks of code in this language.
pub fn blocks<'a>(text: &'a str, language: &str) -> Vec<&'a str> {
    let fence = format!("```{language}\n");
    text.split(&fence).skip(1).map(|rest| rest.split("\n```").next().expect("the first part")).collect()
}

/// Code within sentences.
pub fn spans(text: &str) -> Vec<&str> {
    let sentences = text.split("```").step_by(2);
    sentences.flat_map(|text| text.split('`').skip(1).step_by(2)).collect()
}

/// The commands of a block with prompts, each with what it prints.
pub fn typed(block: &str) -> Vec<(&str, String)> {
    assert!(block.starts_with("$ "), "a block begins with a command: {block}");
    let commands: Vec<&str> = block.split("\n$ ").map(|part| part.trim_start_matches("$ ")).collect();
    let parts = commands.into_iter().map(|part| part.split_once('\n').unwrap_or((part, "")));
    parts.map(|(command, printed)| (command, lines(printed))).collect()
}

/// Text without the blanks at the ends of its lines, and of its own end.
pub fn lines(text: &str) -> String {
    text.lines().map(str::trim_end).collect::<Vec<_>>().join("\n").trim_end().to_owned()
}
