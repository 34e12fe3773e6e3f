//! What people and machines see: aligned, coloured tables on a terminal, JSON with `--json`.

use std::fmt::Write as _;

use anstyle::{AnsiColor, Style};
use serde::Serialize;
use serde_json::Value;

use crate::error::CliError;

/// For headings and names.
pub const BOLD: Style = Style::new().bold();
/// For what matters less.
pub const DIM: Style = Style::new().dimmed();
/// Allowed, passed.
pub const GOOD: Style = AnsiColor::Green.on_default();
/// Needs a look.
pub const WARN: Style = AnsiColor::Yellow.on_default();
/// Denied, failed.
pub const BAD: Style = AnsiColor::Red.on_default();

/// How a command prints its data.
#[derive(Debug, Clone, Copy)]
pub struct Output {
    /// One JSON document (or one a line, for streams) on stdout instead of text.
    pub json: bool,
}

impl Output {
    /// Prints `value` for machines, or what `text` says for people.
    pub fn show<T: Serialize + ?Sized>(self, value: &T, text: impl FnOnce() -> String) -> Result<(), CliError> {
        if self.json {
            let line = serde_json::to_string(value).map_err(|e| CliError::failed(format!("cannot be shown: {e}")))?;
            anstream::println!("{line}");
        } else {
            let text = text();
            anstream::println!("{}", text.trim_end_matches('\n'));
        }
        Ok(())
    }
}

/// An error on stderr: problems one a line with file and line, anything else as a sentence.
pub fn error(error: &CliError) {
    if let CliError::Problems(problems) = error {
        for problem in problems {
            anstream::eprintln!("{BAD}error{BAD:#}: {problem}");
        }
    }
    anstream::eprintln!("{BAD}error{BAD:#}: {error}");
}

/// Text with a style around it; padding has to be done before.
pub fn paint(style: Style, text: &str) -> String {
    format!("{style}{text}{style:#}")
}

/// The style of a state, decision or level.
pub fn style_of(word: &str) -> Style {
    match word {
        "active" | "allow" | "approved" | "ok" | "completed" | "low" | "yes" => GOOD,
        "pending" | "require_approval" | "frozen" | "medium" | "warn" | "consumed" => WARN,
        "deny" | "revoked" | "quarantined" | "rejected" | "expired" | "fail" | "high" | "critical" | "failed"
        | "no" => BAD,
        _ => Style::new(),
    }
}

/// Rows under headings, each column as wide as its widest cell.
pub struct Table {
    headings: Vec<&'static str>,
    rows: Vec<Vec<String>>,
    coloured: Vec<usize>,
}

impl Table {
    /// An empty table.
    pub fn new(headings: &[&'static str]) -> Self {
        Self { headings: headings.to_vec(), rows: Vec::new(), coloured: Vec::new() }
    }

    /// Colours a column by the words in it.
    pub fn coloured(mut self, heading: &str) -> Self {
        self.coloured.extend(self.headings.iter().position(|h| *h == heading));
        self
    }

    /// Adds a row; missing cells are empty.
    pub fn row<S: Into<String>>(&mut self, cells: impl IntoIterator<Item = S>) {
        self.rows.push(cells.into_iter().map(|c| printable(&c.into())).collect());
    }

    /// The table as text, or `empty` where there are no rows.
    pub fn render(&self, empty: &str) -> String {
        if self.rows.is_empty() {
            return empty.to_owned();
        }
        let width = |column: usize| {
            let cells = self.rows.iter().filter_map(|row| row.get(column)).map(|c| c.chars().count());
            cells.chain(self.headings.get(column).map(|h| h.len())).max().unwrap_or(0)
        };
        let widths: Vec<usize> = (0..self.headings.len()).map(width).collect();
        let mut out = String::new();
        let headings: Vec<String> = self.headings.iter().map(|h| h.to_uppercase()).collect();
        self.line(&mut out, &headings, &widths, |_, _| DIM);
        for row in &self.rows {
            self.line(&mut out, row, &widths, |column, cell| {
                if self.coloured.contains(&column) { style_of(cell) } else { Style::new() }
            });
        }
        out
    }

    fn line(&self, out: &mut String, cells: &[String], widths: &[usize], style: impl Fn(usize, &str) -> Style) {
        for (column, (cell, width)) in cells.iter().zip(widths).enumerate() {
            let style = style(column, cell);
            let gap = if column + 1 == cells.len() { 0 } else { width.saturating_sub(cell.chars().count()) + 2 };
            let _ = write!(out, "{style}{cell}{style:#}{:gap$}", "");
        }
        out.push('\n');
    }
}

/// Names and values, one a line, the values in one column.
pub fn fields<'a>(pairs: impl IntoIterator<Item = (&'a str, String)>) -> String {
    let pairs: Vec<(&str, String)> = pairs.into_iter().filter(|(_, v)| !v.is_empty()).collect();
    let width = pairs.iter().map(|(name, _)| name.chars().count()).max().unwrap_or(0);
    let mut out = String::new();
    for (name, value) in pairs {
        let gap = width - name.chars().count() + 2;
        let _ = writeln!(out, "{DIM}{name}{DIM:#}{:gap$}{}", "", printable(&value));
    }
    out
}

/// A member as text: strings as they are, absent and null as nothing, lists joined.
pub fn text(value: &Value, key: &str) -> String {
    plain(value.get(key).unwrap_or(&Value::Null))
}

/// A value as text.
pub fn plain(value: &Value) -> String {
    match value {
        Value::Null => String::new(),
        Value::String(s) => s.clone(),
        Value::Array(items) => items.iter().map(plain).collect::<Vec<_>>().join(", "),
        other => other.to_string(),
    }
}

/// Without characters that could move a terminal's cursor or change its state: what agents
/// and upstreams choose is shown too.
pub fn printable(text: &str) -> String {
    text.chars().map(|c| if c.is_control() && c != '\n' { '\u{fffd}' } else { c }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn stripped(text: &str) -> String {
        anstream::adapter::strip_str(text).to_string()
    }

    #[test]
    fn columns_line_up_and_the_last_has_no_trailing_blanks() {
        let mut table = Table::new(&["name", "state"]).coloured("state");
        table.row(["a", "active"]);
        table.row(["longer", "x"]);
        assert_eq!(stripped(&table.render("none")), "NAME    STATE\na       active\nlonger  x\n");
        assert!(table.render("").contains(&paint(GOOD, "active")));
        assert_eq!(Table::new(&["name"]).render("none"), "none");
    }

    #[test]
    fn what_an_agent_chose_cannot_drive_the_terminal() {
        let mut table = Table::new(&["title"]);
        table.row(["evil\u{1b}[2J\rtitle"]);
        assert!(!table.render("").contains("\u{1b}[2J"));
        assert!(!fields([("a", "x\u{7}".into())]).contains('\u{7}'));
    }

    #[test]
    fn empty_fields_are_left_out() {
        let shown = fields([("id", "1".to_owned()), ("longer", String::new()), ("name", "n".to_owned())]);
        assert_eq!(stripped(&shown), "id    1\nname  n\n");
    }
}
