//! Whether leaf bytes are `aegis-jcs-1`, and what stands in them, without building a value.
//!
//! The fast walk accepts a subset that is canonical beyond doubt: ASCII keys in order,
//! integers, minimal escapes. Whatever else it meets is left to the reference
//! implementation in `aegis_action`, so a doubt costs time and never a wrong answer.

use aegis_action::{MAX_DEPTH, MAX_SAFE_INTEGER, canonicalize, parse_strict};

/// Checks that `bytes` are one canonical JSON object and calls `visit` with the raw text
/// of each top-level key (without quotes, escapes as they are) and value.
pub(crate) fn walk_object<'a>(bytes: &'a [u8], visit: &mut dyn FnMut(&'a str, &'a str)) -> Result<(), String> {
    let text = std::str::from_utf8(bytes).map_err(|_| "not UTF-8".to_owned())?;
    if text.as_bytes().first() != Some(&b'{') {
        return Err("not a JSON object".into());
    }
    if (Walk { text, at: 0, strict: true }).whole().is_none() {
        let value = parse_strict(bytes).map_err(|e| e.to_string())?;
        if canonicalize(&value).map_err(|e| e.to_string())? != bytes {
            return Err("not in canonical form".into());
        }
    }
    members(text, visit).ok_or_else(|| "not a JSON object".to_owned())
}

/// The members of canonical object text.
pub(crate) fn members<'a>(text: &'a str, visit: &mut dyn FnMut(&'a str, &'a str)) -> Option<()> {
    let mut walk = Walk { text, at: 0, strict: false };
    walk.eat(b'{')?;
    if walk.eat(b'}').is_some() {
        return Some(());
    }
    loop {
        let key = walk.string()?;
        walk.eat(b':')?;
        let start = walk.at;
        walk.value(1)?;
        visit(key, text.get(start..walk.at)?);
        if walk.eat(b',').is_none() {
            return walk.eat(b'}');
        }
    }
}

/// The items of canonical array text.
pub(crate) fn items<'a>(text: &'a str, visit: &mut dyn FnMut(&'a str)) -> Option<()> {
    let mut walk = Walk { text, at: 0, strict: false };
    walk.eat(b'[')?;
    if walk.eat(b']').is_some() {
        return Some(());
    }
    loop {
        let start = walk.at;
        walk.value(1)?;
        visit(text.get(start..walk.at)?);
        if walk.eat(b',').is_none() {
            return walk.eat(b']');
        }
    }
}

/// The text of a raw string without its quotes; escapes stay. `None` for other values.
pub(crate) fn raw_string(raw: &str) -> Option<&str> {
    raw.strip_prefix('"')?.strip_suffix('"')
}

/// `None` means "not surely", at whatever place.
struct Walk<'a> {
    text: &'a str,
    at: usize,
    /// Off for text that is known to be canonical: then only the structure is followed.
    strict: bool,
}

impl<'a> Walk<'a> {
    fn whole(&mut self) -> Option<()> {
        self.value(0)?;
        (self.at == self.text.len()).then_some(())
    }

    fn peek(&self) -> Option<u8> {
        self.text.as_bytes().get(self.at).copied()
    }

    fn eat(&mut self, b: u8) -> Option<()> {
        (self.peek()? == b).then(|| self.at += 1)
    }

    fn value(&mut self, depth: usize) -> Option<()> {
        match self.peek()? {
            b'{' => self.object(depth + 1),
            b'[' => self.array(depth + 1),
            b'"' => self.string().map(|_| ()),
            b't' => self.word("true"),
            b'f' => self.word("false"),
            b'n' => self.word("null"),
            _ => self.number(),
        }
    }

    fn object(&mut self, depth: usize) -> Option<()> {
        if depth > MAX_DEPTH {
            return None;
        }
        self.eat(b'{')?;
        if self.eat(b'}').is_some() {
            return Some(());
        }
        let mut last: Option<&str> = None;
        loop {
            let key = self.string()?;
            if self.strict {
                // Raw order is the order of the keys only where nothing is escaped.
                if !key.is_ascii() || key.contains('\\') || last.is_some_and(|last| last >= key) {
                    return None;
                }
                last = Some(key);
            }
            self.eat(b':')?;
            self.value(depth)?;
            if self.eat(b',').is_none() {
                return self.eat(b'}');
            }
        }
    }

    fn array(&mut self, depth: usize) -> Option<()> {
        if depth > MAX_DEPTH {
            return None;
        }
        self.eat(b'[')?;
        if self.eat(b']').is_some() {
            return Some(());
        }
        loop {
            self.value(depth)?;
            if self.eat(b',').is_none() {
                return self.eat(b']');
            }
        }
    }

    /// The raw text between the quotes.
    fn string(&mut self) -> Option<&'a str> {
        self.eat(b'"')?;
        let start = self.at;
        let rest = self.text.as_bytes().get(start..)?;
        let mut i = 0;
        loop {
            match *rest.get(i)? {
                b'"' => break,
                b'\\' => i += self.escape(rest.get(i + 1..)?)?,
                0..=0x1f => return None,
                _ => i += 1,
            }
        }
        self.at = start + i + 1;
        self.text.get(start..start + i)
    }

    /// Length of an escape, backslash included. RFC 8785 has exactly one for each character that needs one.
    fn escape(&self, after: &[u8]) -> Option<usize> {
        match after {
            [b'"' | b'\\' | b'b' | b't' | b'n' | b'f' | b'r', ..] => Some(2),
            [b'u', b'0', b'0', high @ b'0'..=b'1', low, ..] => {
                let short = *high == b'0' && matches!(low, b'8' | b'9' | b'a' | b'c' | b'd');
                (matches!(low, b'0'..=b'9' | b'a'..=b'f') && !short).then_some(6)
            }
            _ => None,
        }
    }

    fn word(&mut self, word: &str) -> Option<()> {
        self.text.get(self.at..)?.starts_with(word).then(|| self.at += word.len())
    }

    fn number(&mut self) -> Option<()> {
        let rest = self.text.get(self.at..)?;
        let len = rest.bytes().take_while(|b| matches!(b, b'0'..=b'9' | b'-' | b'+' | b'.' | b'e' | b'E')).count();
        let digits = rest.get(..len)?;
        if self.strict {
            let n: i64 = digits.parse().ok()?;
            let plain = n != 0 || digits == "0";
            let shortest =
                !digits.starts_with('+') && !digits.trim_start_matches('-').starts_with('0') || digits == "0";
            if !plain || !shortest || !(-MAX_SAFE_INTEGER..=MAX_SAFE_INTEGER).contains(&n) {
                return None;
            }
        }
        (len > 0).then(|| self.at += len)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn reference(bytes: &[u8]) -> bool {
        bytes.first() == Some(&b'{')
            && parse_strict(bytes).is_ok_and(|v| canonicalize(&v).is_ok_and(|canonical| canonical == bytes))
    }

    fn fast(text: &str) -> bool {
        Walk { text, at: 0, strict: true }.whole().is_some()
    }

    #[test]
    fn plain_leaves_take_the_fast_walk() {
        for text in [r#"{}"#, r#"{"a":[1,-2,0,true,false,null,"x\n\u0001é😀"],"b":{"c":""}}"#] {
            assert!(fast(text), "{text}");
            assert!(reference(text.as_bytes()), "{text}");
        }
    }

    #[test]
    fn what_is_not_canonical_is_refused_and_doubts_are_settled() {
        for text in [
            r#"{"b":1,"a":2}"#,
            r#"{"a":1,"a":1}"#,
            r#"{"a": 1}"#,
            r#"{"a":01}"#,
            r#"{"a":-0}"#,
            r#"{"a":+1}"#,
            r#"{"a":1.0}"#,
            r#"{"a":9007199254740992}"#,
            r#"{"a":"\u000a"}"#,
            r#"{"a":"\u001F"}"#,
            r#"{"a":"\/"}"#,
            r#"{"a":"\u0041"}"#,
            r#"{"a":1}x"#,
            r#"{"a":1"#,
            r#"{"a"}"#,
            r#"[1]"#,
            r#"{"a":tru}"#,
            r#"{"a":-}"#,
            "",
            "{\"a\":\"\u{1}\"}",
        ] {
            assert!(walk_object(text.as_bytes(), &mut |_, _| ()).is_err(), "{text}");
            assert!(!reference(text.as_bytes()), "{text}");
        }
        for text in [r#"{"a":1.5,"é":2}"#, r#"{"\n":1,"a":1e-7}"#] {
            assert!(!fast(text), "{text}");
            let mut seen = Vec::new();
            walk_object(text.as_bytes(), &mut |k, v| seen.push((k, v))).unwrap();
            assert_eq!(seen.len(), 2);
        }
        assert!(walk_object(b"{\"a\":\"\xff\"}", &mut |_, _| ()).is_err());
    }

    #[test]
    fn members_and_items_come_raw() {
        let mut seen = Vec::new();
        walk_object(br#"{"a":[1,{"x":"]"}],"b":"q\"z"}"#, &mut |k, v| seen.push((k, v))).unwrap();
        assert_eq!(seen, [("a", r#"[1,{"x":"]"}]"#), ("b", r#""q\"z""#)]);
        let mut seen = Vec::new();
        items(r#"[1,{"x":"]"}]"#, &mut |v| seen.push(v)).unwrap();
        assert_eq!(seen, ["1", r#"{"x":"]"}"#]);
        assert_eq!(raw_string(r#""x""#), Some("x"));
        assert_eq!(raw_string("1"), None);
    }

    proptest::proptest! {
        #[test]
        fn agrees_with_the_reference(text in "\\{(\"[a-cé\\\\nu01]{0,3}\":[0-9a-e\"\\\\\\[\\]{}:,.\\-tru]{0,8},?){0,3}\\}") {
            proptest::prop_assert_eq!(walk_object(text.as_bytes(), &mut |_, _| ()).is_ok(), reference(text.as_bytes()));
        }

        #[test]
        fn changed_bytes_of_canonical_text_agree_too(at in 0usize..60, byte in 0u8..128) {
            let mut bytes = br#"{"a":[1,-2,"x\n\u0001"],"b":{"c":"","d":true},"e":1700000}"#.to_vec();
            if let Some(b) = bytes.get_mut(at) { *b = byte; }
            proptest::prop_assert_eq!(walk_object(&bytes, &mut |_, _| ()).is_ok(), reference(&bytes));
        }
    }
}
