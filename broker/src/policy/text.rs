//! Where policies begin and end in a file, so that every message can name a line.
//!
//! Cedar ends each policy with `;`, which elsewhere occurs only in strings and
//! comments. Splitting before parsing gives each policy its own errors, so one slip
//! does not hide the next.

use std::ops::Range;

use super::types::Problem;

/// One policy's text within its file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Chunk {
    /// Byte offset of its first token (annotations included).
    pub start: usize,
    /// Text from there to `;`.
    pub text: String,
}

/// A `when` or `unless` with its body as written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ClauseText {
    /// `true` for `when`.
    pub when: bool,
    /// The parts that have to hold together, each an expression of its own.
    pub parts: Vec<String>,
}

/// Splits a file into policies. Text after the last `;` is a chunk too: it does not
/// parse, and says so.
pub fn split(text: &str) -> Vec<Chunk> {
    let mut chunks = Vec::new();
    let mut start = None;
    for token in tokens(text) {
        let first = *start.get_or_insert(token.start);
        if slice(text, &token) == ";" {
            chunks.push(Chunk { start: first, text: slice(text, &(first..token.end)).to_owned() });
            start = None;
        }
    }
    if let Some(first) = start {
        chunks.push(Chunk { start: first, text: text.get(first..).unwrap_or_default().trim_end().to_owned() });
    }
    chunks
}

/// The `when` and `unless` clauses of one policy, in order.
pub fn clauses(policy: &str) -> Vec<ClauseText> {
    let tokens: Vec<Range<usize>> = tokens(policy).collect();
    let mut found = Vec::new();
    let mut depth = 0_usize;
    let mut open: Option<(bool, usize, usize)> = None;
    for (at, token) in tokens.iter().enumerate() {
        match slice(policy, token) {
            "{" | "(" | "[" => {
                let before = at.checked_sub(1).and_then(|i| tokens.get(i)).map(|t| slice(policy, t));
                if depth == 0 && slice(policy, token) == "{" {
                    open = Some((before == Some("when"), at + 1, token.end));
                }
                depth += 1;
            }
            "}" | ")" | "]" => {
                depth = depth.saturating_sub(1);
                if let (0, Some((when, first, from))) = (depth, open) {
                    let body = tokens.get(first..at).unwrap_or_default();
                    found.push(ClauseText { when, parts: conjuncts(policy, body, from..token.start) });
                    open = None;
                }
            }
            _ => {}
        }
    }
    found
}

/// Renames the last part of qualified type names (`GitHub::Team`), leaving every offset
/// where it was: `renamed` gives names of the same length.
pub fn rename_types(policy: &str, renamed: impl Fn(&str) -> Option<String>) -> Option<String> {
    let tokens: Vec<Range<usize>> = tokens(policy).collect();
    let is = |at: usize, text: &str| tokens.get(at).is_some_and(|t| slice(policy, t) == text);
    let mut out = policy.to_owned();
    let mut changed = false;
    for (at, token) in tokens.iter().enumerate() {
        let is_last =
            at >= 3 && is(at - 1, ":") && is(at - 2, ":") && !(is(at + 1, ":") && word(policy, tokens.get(at + 3)));
        if is_last && let Some(name) = renamed(slice(policy, token)).filter(|n| n.len() == token.len()) {
            out.replace_range(token.clone(), &name);
            changed = true;
        }
    }
    changed.then_some(out)
}

fn word(policy: &str, token: Option<&Range<usize>>) -> bool {
    token.is_some_and(|t| slice(policy, t).starts_with(|c: char| c.is_ascii_alphabetic() || c == '_'))
}

/// Line and column, both from 1, columns in characters.
pub fn position(text: &str, offset: usize) -> (u32, u32) {
    let before = text.get(..offset).unwrap_or(text);
    let line = before.matches('\n').count() + 1;
    let column = before.rsplit('\n').next().map_or(0, |l| l.chars().count()) + 1;
    (u32::try_from(line).unwrap_or(u32::MAX), u32::try_from(column).unwrap_or(u32::MAX))
}

/// A problem at a byte offset of a file.
pub fn problem(file: &str, text: &str, offset: usize, message: String, help: Option<String>) -> Problem {
    let (line, column) = position(text, offset);
    Problem { file: file.to_owned(), line, column, message, help }
}

/// Splits a body at its outermost `&&`; one with an outermost `||` or `if` stays whole,
/// as those bind weaker.
fn conjuncts(text: &str, tokens: &[Range<usize>], body: Range<usize>) -> Vec<String> {
    let mut cuts = Vec::new();
    let mut depth = 0_usize;
    for token in tokens {
        match slice(text, token) {
            "{" | "(" | "[" => depth += 1,
            "}" | ")" | "]" => depth = depth.saturating_sub(1),
            "||" | "if" if depth == 0 => return vec![tidy(slice(text, &body))],
            "&&" if depth == 0 => cuts.push(token.clone()),
            _ => {}
        }
    }
    let mut from = body.start;
    let mut parts = Vec::new();
    for cut in cuts {
        parts.push(tidy(slice(text, &(from..cut.start))));
        from = cut.end;
    }
    parts.push(tidy(slice(text, &(from..body.end))));
    parts
}

/// One line, comments gone.
fn tidy(text: &str) -> String {
    let mut out = String::new();
    let mut last = 0;
    for token in tokens(text) {
        if !out.is_empty() && token.start > last {
            out.push(' ');
        }
        out.push_str(slice(text, &token));
        last = token.end;
    }
    out
}

/// Byte ranges of tokens: strings, words, `&&`, `||`, and single characters. Whitespace
/// and comments are skipped.
fn tokens(text: &str) -> impl Iterator<Item = Range<usize>> + '_ {
    let bytes = text.as_bytes();
    let mut at = 0;
    std::iter::from_fn(move || {
        loop {
            let byte = *bytes.get(at)?;
            if byte.is_ascii_whitespace() {
                at += 1;
            } else if byte == b'/' && bytes.get(at + 1) == Some(&b'/') {
                at = bytes.iter().skip(at).position(|b| *b == b'\n').map_or(bytes.len(), |n| at + n);
            } else {
                break;
            }
        }
        let start = at;
        at = token_end(text, bytes, at);
        Some(start..at)
    })
}

fn token_end(text: &str, bytes: &[u8], start: usize) -> usize {
    let is_word = |b: &u8| b.is_ascii_alphanumeric() || *b == b'_';
    match bytes.get(start) {
        Some(b'"') => {
            let mut at = start + 1;
            while let Some(b) = bytes.get(at) {
                match b {
                    b'\\' => at += 2,
                    b'"' => return at + 1,
                    _ => at += 1,
                }
            }
            bytes.len()
        }
        Some(b) if is_word(b) => start + bytes.iter().skip(start).take_while(|b| is_word(b)).count(),
        Some(b @ (b'&' | b'|')) if bytes.get(start + 1) == Some(b) => start + 2,
        _ => start + text.get(start..).and_then(|t| t.chars().next()).map_or(1, char::len_utf8),
    }
}

fn slice<'a>(text: &'a str, range: &Range<usize>) -> &'a str {
    text.get(range.clone()).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn semicolons_in_strings_and_comments_end_nothing() {
        let text = "// a; b\n@id(\"x;\\\";\")\npermit (principal, action, resource); // tail;\n\nforbid (principal";
        let chunks = split(text);
        assert_eq!(chunks.len(), 2);
        assert!(chunks[0].text.starts_with("@id") && chunks[0].text.ends_with("resource);"));
        assert_eq!(position(text, chunks[0].start), (2, 1));
        assert_eq!(position(text, chunks[1].start), (5, 1));
        assert_eq!(chunks[1].text, "forbid (principal");
    }

    #[test]
    fn clauses_are_cut_where_their_parts_stand_alone() {
        let policy = r#"@when("{") permit (principal, action, resource)
            when { context.route == "a && b" && // why
                   [1, 2].contains(3) && (true || false) }
            unless { true || context.door == "x" && false }
            when { if true then true else true && false };"#;
        let found = clauses(policy);
        assert_eq!(
            found[0].parts,
            [r#"context.route == "a && b""#, "[1, 2].contains(3)", "(true || false)"].map(String::from)
        );
        assert!(found[0].when && !found[1].when);
        assert_eq!(found[1].parts, [r#"true || context.door == "x" && false"#]);
        assert_eq!(found[2].parts.len(), 1);
    }

    #[test]
    fn only_the_last_part_of_a_type_is_renamed() {
        let rename = |text: &str| rename_types(text, |name| (name == "Team").then(|| "Tea_".to_owned()));
        assert_eq!(rename(r#"Team::"GitHub::Team" == x.Team"#), None);
        assert_eq!(
            rename(r#"x in GitHub :: Team::"Team" || y is GitHub::Team || z is Team::Part"#).unwrap(),
            r#"x in GitHub :: Tea_::"Team" || y is GitHub::Tea_ || z is Team::Part"#
        );
    }

    #[test]
    fn columns_count_characters() {
        assert_eq!(position("é\nüü x", 8), (2, 4));
    }

    proptest::proptest! {
        #[test]
        fn nothing_makes_it_panic(text in "[\\PC\n\"\\\\/;{}&|]{0,60}") {
            for chunk in split(&text) {
                clauses(&chunk.text);
                position(&text, chunk.start);
            }
        }
    }
}
