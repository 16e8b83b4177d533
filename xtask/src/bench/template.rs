//! Configurations of the programs that are compared: templates in `tests/bench/`, filled in before each bench.

use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use maesh_test_support::repository;
use tempfile::TempDir;

/// Fills templates: `@NAME@` by its value, and lines from `# each` to `# end` once for each number below a count.
pub(crate) struct Template {
    values: Vec<(String, String)>,
    folder: TempDir,
}

impl Template {
    /// A template without values, and a folder for what programs write.
    pub(crate) fn new() -> Result<Self> {
        let folder = tempfile::Builder::new().prefix("maesh-bench").tempdir()?;
        // nginx started by root writes its temporary files as another user.
        let open = std::os::unix::fs::PermissionsExt::from_mode(0o777);
        fs::set_permissions(folder.path(), open)?;
        let mut template = Self { values: Vec::new(), folder };
        let path = template.folder.path().display().to_string();
        template.set("FOLDER", path);
        Ok(template)
    }

    /// The folder for what programs write.
    pub(crate) fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// Gives `@name@` a value; a later one replaces it.
    pub(crate) fn set(&mut self, name: &str, value: impl Into<String>) {
        let key = format!("@{name}@");
        self.values.retain(|(have, _)| *have != key);
        self.values.push((key, value.into()));
    }

    /// The value of `@name@`, if it has one.
    pub(crate) fn value(&self, name: &str) -> &str {
        let key = format!("@{name}@");
        self.values.iter().find(|(have, _)| *have == key).map_or("", |(_, value)| value)
    }

    /// Gives `@name@` an address, and `@name_PORT@` its port.
    pub(crate) fn set_address(&mut self, name: &str, address: SocketAddr) {
        self.set(name, address.to_string());
        self.set(&format!("{name}_PORT"), address.port().to_string());
    }

    /// Fills `file` of `tests/bench/` and writes it into the folder under `name`.
    pub(crate) fn write(&self, file: &str, name: &str, count: usize) -> Result<PathBuf> {
        let source = repository().join("tests/bench").join(file);
        let text = fs::read_to_string(&source).with_context(|| format!("reading {}", source.display()))?;
        let target = self.folder().join(name);
        fs::write(&target, self.fill(&text, count)).with_context(|| format!("writing {}", target.display()))?;
        Ok(target)
    }

    fn fill(&self, text: &str, count: usize) -> String {
        let values = self.values.iter().fold(text.to_owned(), |text, (key, value)| text.replace(key, value));
        let mut filled = String::new();
        let mut lines = values.lines();
        while let Some(line) = lines.next() {
            if line.trim() != "# each" {
                filled.push_str(line);
                filled.push('\n');
                continue;
            }
            let block: String =
                lines.by_ref().take_while(|line| line.trim() != "# end").flat_map(|line| [line, "\n"]).collect();
            for index in 0..count {
                filled.push_str(&block.replace("@I@", &index.to_string()));
            }
        }
        filled
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn templates_are_filled_and_repeated() {
        let mut template = Template::new().unwrap();
        template.set_address("A", "127.0.0.1:80".parse().unwrap());
        let text = "x @A@ @A_PORT@\n# each\ns@I@ @A_PORT@\n# end\ny\n";
        assert_eq!(template.fill(text, 2), "x 127.0.0.1:80 80\ns0 80\ns1 80\ny\n");
    }
}
