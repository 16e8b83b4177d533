//! Aligned columns, as kubectl has them.
//!
//! Cells have text in them that others wrote. It is escaped here, so that a cell neither commands a terminal nor begins a line.

use maesh_compiler::diagnostic::escaped;

/// What stands for nothing.
const NONE: &str = "-";
/// Between two columns.
const GAP: &str = "  ";

/// Rows below a line of headers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Table {
    headers: Vec<&'static str>,
    rows: Vec<Vec<String>>,
}

impl Table {
    /// An empty one.
    pub fn new(headers: impl Into<Vec<&'static str>>) -> Self {
        Self { headers: headers.into(), rows: Vec::new() }
    }

    /// Adds a row; an empty cell is shown as one.
    pub fn row(&mut self, cells: impl IntoIterator<Item = String>) {
        let shown = |cell: String| if cell.is_empty() { NONE.to_owned() } else { escaped(&cell).into_owned() };
        self.rows.push(cells.into_iter().map(shown).collect());
    }

    /// The table, with its headers or without.
    pub fn text(&self, with_headers: bool) -> String {
        let headers = with_headers.then(|| self.headers.iter().map(|header| (*header).to_owned()).collect());
        let rows: Vec<&Vec<String>> = headers.iter().chain(&self.rows).collect();
        let width =
            |column: usize| rows.iter().filter_map(|row| row.get(column)).map(|cell| cell.chars().count()).max();
        let widths: Vec<usize> = (0..self.headers.len()).map_while(width).collect();
        let line = |row: &&Vec<String>| {
            let cells: Vec<_> = row.iter().zip(&widths).map(|(cell, width)| format!("{cell:width$}")).collect();
            cells.join(GAP).trim_end().to_owned() + "\n"
        };
        rows.iter().map(line).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_are_aligned() {
        let mut table = Table::new(["NAME", "PORTS", "NOTE"]);
        table.row(["web.shop.maesh", "80/http", ""].map(str::to_owned));
        table.row(["ä", "", "last"].map(str::to_owned));
        let want = "NAME            PORTS    NOTE\nweb.shop.maesh  80/http  -\nä               -        last\n";
        assert_eq!(table.text(true), want);
        assert_eq!(table.text(false), want.split_once('\n').unwrap().1);
        assert_eq!(Table::new(["NAME"]).text(false), "");
    }

    #[test]
    fn a_cell_commands_nothing_and_begins_no_line() {
        let mut table = Table::new(["NAME", "VALUE"]);
        table.row(["a", "\u{1b}[2J\u{9b}31m\u{202e}\r\nerror: forged\tx"].map(str::to_owned));
        let text = table.text(true);
        assert_eq!(text.lines().count(), 2, "{text:?}");
        assert!(text.ends_with("\\u{1b}[2J\\u{9b}31m\\u{202e}\\r\\nerror: forged\\tx\n"), "{text:?}");
    }
}
