//! One path, one reading: each segment is decoded once and whatever two servers could read
//! differently is refused.

use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};

use super::bad;
use crate::Refusal;

/// A path, decoded segment by segment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Path {
    /// Never empty, `.` or `..`.
    pub segments: Vec<Segment>,
    /// Whether a single slash ends the path (`/` alone has none).
    pub trailing_slash: bool,
}

/// One decoded segment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Segment {
    /// The text; has a `/` only where `%2F` was sent.
    pub text: String,
    /// Whether any of it was percent-encoded: a literal never is.
    pub encoded: bool,
}

impl Segment {
    /// Whether `%2F` was sent.
    pub fn has_slash(&self) -> bool {
        self.text.contains('/')
    }
}

/// Reads an origin-form path.
pub(crate) fn parse(path: &str) -> Result<Path, Refusal> {
    if path.len() > MAX_BYTES {
        return Err(bad(BAD_PATH, format!("the path is longer than {MAX_BYTES} bytes")));
    }
    let rest = path.strip_prefix('/').ok_or_else(|| bad(BAD_PATH, "the path must start with `/`"))?;
    if rest.is_empty() {
        return Ok(Path { segments: Vec::new(), trailing_slash: false });
    }
    let (rest, trailing_slash) = rest.strip_suffix('/').map_or((rest, false), |rest| (rest, true));
    let segments = rest.split('/').map(segment).collect::<Result<_, _>>()?;
    Ok(Path { segments, trailing_slash })
}

/// Writes a segment; a `/` in it becomes `%2F`.
pub(crate) fn encode(segment: &str) -> impl std::fmt::Display + '_ {
    utf8_percent_encode(segment, SEGMENT)
}

fn segment(raw: &str) -> Result<Segment, Refusal> {
    let mut bytes = Vec::with_capacity(raw.len());
    let mut rest = raw.as_bytes();
    while let [first, tail @ ..] = rest {
        rest = tail;
        if *first != b'%' {
            if !is_plain(*first) {
                return Err(bad(BAD_PATH, "a character that a path must not hold, or must encode"));
            }
            bytes.push(*first);
            continue;
        }
        let [high, low, tail @ ..] = tail else {
            return Err(bad(BAD_PATH, "a `%` without two hex digits"));
        };
        let (Some(high), Some(low)) = (hex(*high), hex(*low)) else {
            return Err(bad(BAD_PATH, "a `%` without two hex digits"));
        };
        let byte = high << 4 | low;
        if is_unreserved(byte) {
            return Err(bad(BAD_PATH, "a percent-encoded letter, digit, `-`, `.`, `_` or `~`"));
        }
        bytes.push(byte);
        rest = tail;
    }
    let text = String::from_utf8(bytes).map_err(|_| bad(BAD_PATH, "percent-encoding that is not UTF-8"))?;
    match doubt(&text) {
        Some(what) => Err(bad(BAD_PATH, what)),
        None => Ok(Segment { text, encoded: raw.contains('%') }),
    }
}

/// What two servers could read differently in a decoded segment, or in several with `/` between them.
/// No path holds such a value, so no action has one.
pub(crate) fn doubt(text: &str) -> Option<&'static str> {
    if text.contains('\\') {
        return Some("a backslash");
    }
    if text.chars().any(char::is_control) {
        return Some("a control character");
    }
    if text.split('/').any(|part| matches!(part, "" | "." | "..")) {
        return Some("an empty, `.` or `..` segment");
    }
    is_encoded_again(text.as_bytes()).then_some("percent-encoding twice over")
}

/// RFC 3986 `pchar` without `;`, and with brackets, which many clients send as they are.
fn is_plain(b: u8) -> bool {
    is_unreserved(b)
        || matches!(b, b'!' | b'$' | b'&' | b'\'' | b'(' | b')' | b'*' | b'+' | b',' | b'=' | b':' | b'@' | b'[' | b']')
}

/// RFC 3986 section 2.3: encoding these changes nothing, so only someone who hides does it.
fn is_unreserved(b: u8) -> bool {
    b.is_ascii_alphanumeric() || matches!(b, b'-' | b'.' | b'_' | b'~')
}

/// Whether a server that decodes twice would see something else.
fn is_encoded_again(text: &[u8]) -> bool {
    text.windows(3).any(|w| matches!(w, [b'%', a, b] if hex(*a).is_some() && hex(*b).is_some()))
}

pub(super) fn hex(b: u8) -> Option<u8> {
    match b {
        b'0'..=b'9' => Some(b - b'0'),
        b'a'..=b'f' => Some(b - b'a' + 10),
        b'A'..=b'F' => Some(b - b'A' + 10),
        _ => None,
    }
}

/// Reason for every refusal of this module.
pub(crate) const BAD_PATH: &str = "bad_path";
/// Bytes of a path.
pub(crate) const MAX_BYTES: usize = 8 * 1024;

const SEGMENT: &AsciiSet = &NON_ALPHANUMERIC
    .remove(b'-')
    .remove(b'.')
    .remove(b'_')
    .remove(b'~')
    .remove(b'!')
    .remove(b'$')
    .remove(b'&')
    .remove(b'\'')
    .remove(b'(')
    .remove(b')')
    .remove(b'*')
    .remove(b'+')
    .remove(b',')
    .remove(b'=')
    .remove(b':')
    .remove(b'@');

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hostile_spellings_are_refused() {
        for path in [
            "",
            "x",
            "//",
            "/a//b",
            "/./a",
            "/a/..",
            "/a/%2e%2e/b",
            "/%2e/a",
            "/a%2F..%2Fb",
            "/a%2F",
            "/%2Fa",
            "/a%2F%2Fb",
            "/a;b=c",
            "/a\\b",
            "/a%5Cb",
            "/%64eny",
            "/a%2Db",
            "/a%7E",
            "/%252e",
            "/a%252fb",
            "/%25%32%65",
            "/a%00",
            "/a%0d%0a",
            "/a%7f",
            "/%c0%ae",
            "/%ff",
            "/%e2%28%a1",
            "/%",
            "/%2",
            "/%zz",
            "/a b",
            "/a\u{e9}",
            "/a\"b",
            "/a<b",
            "/a{b}",
            "/a|b",
            "/a^b",
            "/a`b",
            "/%C2%85",
            "/a\u{0}b",
            "/a#b",
            "/a?b",
        ] {
            assert_eq!(parse(path).map_err(|r| r.reason), Err(BAD_PATH), "{path:?}");
        }
        assert!(parse(&format!("/{}", "a".repeat(MAX_BYTES))).is_err());
    }

    #[test]
    fn honest_spellings_are_decoded_once() {
        let texts = |p: &str| parse(p).unwrap().segments.into_iter().map(|s| s.text).collect::<Vec<_>>();
        assert_eq!(texts("/"), Vec::<String>::new());
        assert_eq!(texts("/repos/o/r.x"), ["repos", "o", "r.x"]);
        assert_eq!(texts("/a%2Fb/c%20d/%C3%A9"), ["a/b", "c d", "é"]);
        assert_eq!(texts("/100%25"), ["100%"]);
        assert_eq!(texts("/x%3By/main...dev/[bot]"), ["x;y", "main...dev", "[bot]"]);
        assert!(parse("/a/").unwrap().trailing_slash);
    }

    proptest::proptest! {
        #[test]
        fn what_is_written_reads_back(parts in proptest::collection::vec("\\PC{1,8}", 1..5)) {
            let path: String = parts.iter().map(|p| format!("/{}", encode(p))).collect();
            if let Ok(read) = parse(&path) {
                let texts: Vec<String> = read.segments.into_iter().map(|s| s.text).collect();
                proptest::prop_assert_eq!(texts, parts);
            }
        }
    }
}
