//! Reading TOML tables key by key, so that one bad key does not hide the next.

use std::{fmt, ops::Range};

use toml::{
    Spanned,
    de::{DeTable, DeValue},
};

/// Something wrong in a file that an admin edits.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub struct Problem {
    /// File as the admin named it.
    pub file: String,
    /// Line, from 1.
    pub line: usize,
    /// What is wrong, and what to do.
    pub message: String,
    /// Whether it stops the file from being used.
    pub severity: Severity,
}

/// How bad a [`Problem`] is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Severity {
    /// The file is refused.
    Error,
    /// The file works, but not as somebody may think.
    Warning,
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}: {}", self.file, self.line, self.message)
    }
}

/// One table being read; knows which keys were asked for, so that the rest are unknown.
pub(super) struct Reader<'a, 'p> {
    file: &'a str,
    text: &'a str,
    table: &'a DeTable<'a>,
    what: String,
    at: Range<usize>,
    asked: Vec<&'static str>,
    problems: &'p mut Vec<Problem>,
}

impl<'a, 'p> Reader<'a, 'p> {
    pub(super) fn new(
        file: &'a str,
        text: &'a str,
        table: &'a DeTable<'a>,
        at: Range<usize>,
        what: &str,
        problems: &'p mut Vec<Problem>,
    ) -> Self {
        Self { file, text, table, what: what.to_owned(), at, asked: Vec::new(), problems }
    }

    pub(super) fn named(&mut self, what: String) {
        self.what = what;
    }

    pub(super) fn line_of(&self, key: &str) -> usize {
        let at =
            self.table.iter().find(|(k, _)| k.get_ref().as_ref() == key).map_or(self.at.start, |(k, _)| k.span().start);
        line(self.text, at)
    }

    pub(super) fn error_at(&mut self, key: &str, message: String) {
        let line = self.line_of(key);
        let message = format!("{}: {message}", self.what);
        self.problems.push(Problem { file: self.file.to_owned(), line, message, severity: Severity::Error });
    }

    pub(super) fn get(&mut self, key: &'static str) -> Option<&'a Spanned<DeValue<'a>>> {
        self.asked.push(key);
        self.table.get(key)
    }

    pub(super) fn string(&mut self, key: &'static str) -> Option<String> {
        match self.get(key)?.get_ref() {
            DeValue::String(s) => Some(s.to_string()),
            other => self.wrong_type(key, "a string", other),
        }
    }

    pub(super) fn required(&mut self, key: &'static str) -> String {
        match self.string(key) {
            Some(s) => s,
            None => {
                if !self.table.contains_key(key) {
                    self.error_at(key, format!("`{key}` is required"));
                }
                String::new()
            }
        }
    }

    pub(super) fn boolean(&mut self, key: &'static str) -> Option<bool> {
        match self.get(key)?.get_ref() {
            DeValue::Boolean(b) => Some(*b),
            other => self.wrong_type(key, "true or false", other),
        }
    }

    /// A whole number within bounds, both included.
    pub(super) fn integer(&mut self, key: &'static str, bounds: (u64, u64)) -> Option<u64> {
        match self.get(key)?.get_ref() {
            DeValue::Integer(n) => {
                let parsed = u64::from_str_radix(&n.as_str().replace('_', ""), n.radix()).ok();
                match parsed.filter(|n| (bounds.0..=bounds.1).contains(n)) {
                    Some(n) => Some(n),
                    None => {
                        self.error_at(key, format!("`{key}` must be between {} and {}", bounds.0, bounds.1));
                        None
                    }
                }
            }
            other => self.wrong_type(key, "a whole number", other),
        }
    }

    pub(super) fn strings(&mut self, key: &'static str) -> Vec<String> {
        let Some(value) = self.get(key) else { return Vec::new() };
        let DeValue::Array(items) = value.get_ref() else {
            self.wrong_type::<()>(key, "an array of strings", value.get_ref());
            return Vec::new();
        };
        let mut out = Vec::new();
        for item in items.iter() {
            match item.get_ref() {
                DeValue::String(s) => out.push(s.to_string()),
                other => {
                    self.wrong_type::<()>(key, "an array of strings", other);
                }
            }
        }
        out
    }

    /// A string out of a closed list of words, parsed by the caller.
    pub(super) fn word<T>(
        &mut self,
        key: &'static str,
        expected: &str,
        parse: impl Fn(&str) -> Option<T>,
    ) -> Option<T> {
        let text = self.string(key)?;
        let parsed = parse(&text);
        if parsed.is_none() {
            self.error_at(key, format!("`{key}` is `{text}`, expected {expected}"));
        }
        parsed
    }

    /// Reports every key that nobody asked for.
    pub(super) fn finish(mut self) {
        let unknown: Vec<String> =
            self.table.keys().map(|k| k.get_ref().to_string()).filter(|k| !self.asked.contains(&k.as_str())).collect();
        for key in unknown {
            let nearest = nearest(&key, &self.asked);
            let hint = nearest.map(|n| format!(", did you mean `{n}`?")).unwrap_or_default();
            self.error_at(&key, format!("unknown key `{key}`{hint}"));
        }
    }

    fn wrong_type<T>(&mut self, key: &'static str, expected: &str, got: &DeValue<'_>) -> Option<T> {
        self.error_at(key, format!("`{key}` must be {expected}, not {}", got.type_str()));
        None
    }
}

/// The line, from 1, of a byte offset.
pub(super) fn line(text: &str, at: usize) -> usize {
    text.as_bytes().iter().take(at).filter(|b| **b == b'\n').count() + 1
}

/// The word with the smallest edit distance, if it is close enough to be a slip.
pub(super) fn nearest<'w>(word: &str, among: &[&'w str]) -> Option<&'w str> {
    among.iter().map(|w| (distance(word, w), *w)).min().filter(|(d, w)| *d <= 2.max(w.len() / 4)).map(|(_, w)| w)
}

/// Levenshtein distance.
fn distance(a: &str, b: &str) -> usize {
    let b: Vec<char> = b.chars().collect();
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, ca) in a.chars().enumerate() {
        let mut diagonal = i;
        let mut left = i + 1;
        let mut next = vec![left];
        for (cell, cb) in row.iter().skip(1).zip(&b) {
            left = (left + 1).min(cell + 1).min(diagonal + usize::from(ca != *cb));
            diagonal = *cell;
            next.push(left);
        }
        row = next;
    }
    row.last().copied().unwrap_or_default()
}
