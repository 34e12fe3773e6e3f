//! `aegis-jcs-1`: RFC 8785, refusing what RFC 8785 implementations disagree on.

use std::fmt;

use serde::de::{DeserializeSeed, Deserializer, Error as _, MapAccess, SeqAccess, Visitor};
use serde_json::{Map, Number, Value};

/// Names the definition in every answer and leaf, so that a later one can coexist.
pub const CANON_VERSION: &str = "aegis-jcs-1";
/// Nesting of arrays and objects; the outermost container is depth 1.
pub const MAX_DEPTH: usize = 64;
/// Size of the canonical bytes, and of the text a strict parse accepts.
pub const MAX_BYTES: usize = 1024 * 1024;
/// 2^53 - 1: beyond it an IEEE double no longer tells neighbours apart.
pub const MAX_SAFE_INTEGER: i64 = 9_007_199_254_740_991;

/// Why a value has no canonical form. There is never a best effort: two values
/// that both fail must not end up with the same bytes.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CanonError {
    /// The text is not one JSON value.
    #[error("not valid JSON: {0}")]
    Syntax(String),
    /// An object has the same key twice.
    #[error("duplicate key `{0}`")]
    DuplicateKey(String),
    /// A number is beyond ±(2^53−1) or not finite.
    #[error("number beyond ±(2^53-1)")]
    NumberRange,
    /// The keys of an object sort differently by UTF-16 unit and by code point.
    #[error("keys of one object sort differently by UTF-16 unit and by code point")]
    AmbiguousOrder,
    /// More than [`MAX_DEPTH`] levels.
    #[error("nested deeper than {MAX_DEPTH} levels")]
    TooDeep,
    /// More than [`MAX_BYTES`] bytes.
    #[error("larger than {0} bytes")]
    TooLarge(usize),
    /// A reserved key (`$bulk`, `$stream`) came from outside.
    #[error("reserved key `{0}`")]
    ReservedKey(&'static str),
}

/// Parses one JSON value of at most [`MAX_BYTES`], refusing whatever has no canonical form.
pub fn parse_strict(text: &[u8]) -> Result<Value, CanonError> {
    parse_strict_bounded(text, MAX_BYTES)
}

/// As [`parse_strict`] with a bound of the caller's own: a request body may carry
/// strings that are folded to digests (see `$bulk`) before the canonical bound applies.
pub fn parse_strict_bounded(text: &[u8], max_bytes: usize) -> Result<Value, CanonError> {
    if text.len() > max_bytes {
        return Err(CanonError::TooLarge(max_bytes));
    }
    let mut fault = None;
    let mut de = serde_json::Deserializer::from_slice(text);
    // Our own depth bound is stricter and has its own error.
    let seed = Strict { depth: 0, fault: &mut fault };
    let parsed = seed.deserialize(&mut de).and_then(|v| de.end().map(|()| v));
    match (parsed, fault) {
        (_, Some(fault)) => Err(fault),
        (Ok(value), None) => Ok(value),
        (Err(e), None) if e.to_string().starts_with("number out of range") => Err(CanonError::NumberRange),
        (Err(e), None) => Err(CanonError::Syntax(e.to_string())),
    }
}

/// The canonical bytes of a value.
pub fn canonicalize(value: &Value) -> Result<Vec<u8>, CanonError> {
    let mut out = Vec::with_capacity(256);
    write_value(value, 0, &mut out)?;
    if out.len() > MAX_BYTES {
        return Err(CanonError::TooLarge(MAX_BYTES));
    }
    Ok(out)
}

pub(crate) fn write_value(value: &Value, depth: usize, out: &mut Vec<u8>) -> Result<(), CanonError> {
    // Checked as we go, so that a hostile value cannot make us build far more than the bound.
    if out.len() > MAX_BYTES {
        return Err(CanonError::TooLarge(MAX_BYTES));
    }
    match value {
        Value::Null => out.extend_from_slice(b"null"),
        Value::Bool(true) => out.extend_from_slice(b"true"),
        Value::Bool(false) => out.extend_from_slice(b"false"),
        Value::Number(n) => write_number(n, out)?,
        Value::String(s) => write_string(s, out),
        Value::Array(items) => {
            let depth = deeper(depth)?;
            out.push(b'[');
            for (i, item) in items.iter().enumerate() {
                if i > 0 {
                    out.push(b',');
                }
                write_value(item, depth, out)?;
            }
            out.push(b']');
        }
        Value::Object(map) => write_object(map, depth, out)?,
    }
    Ok(())
}

pub(crate) fn write_object(map: &Map<String, Value>, depth: usize, out: &mut Vec<u8>) -> Result<(), CanonError> {
    let depth = deeper(depth)?;
    // `serde_json::Map` keeps insertion order when any crate in the build asks for
    // it, so the order is always made here.
    let mut entries: Vec<(&String, &Value)> = map.iter().collect();
    entries.sort_unstable_by(|a, b| a.0.cmp(b.0));
    // Keys are distinct, so neighbours in code-point order decide whether UTF-16 order agrees.
    for pair in entries.windows(2) {
        if let [(a, _), (b, _)] = pair
            && a.encode_utf16().gt(b.encode_utf16())
        {
            return Err(CanonError::AmbiguousOrder);
        }
    }
    out.push(b'{');
    for (i, (key, value)) in entries.into_iter().enumerate() {
        if i > 0 {
            out.push(b',');
        }
        write_string(key, out);
        out.push(b':');
        write_value(value, depth, out)?;
    }
    out.push(b'}');
    Ok(())
}

/// RFC 8785 section 3.2.2.2: two-character escapes where JSON has them, `\u00xx`
/// for the other controls, everything else as it is.
pub(crate) fn write_string(s: &str, out: &mut Vec<u8>) {
    out.push(b'"');
    let bytes = s.as_bytes();
    let mut plain = 0;
    for (i, &b) in bytes.iter().enumerate() {
        let short: &[u8] = match b {
            b'"' => b"\\\"",
            b'\\' => b"\\\\",
            0x08 => b"\\b",
            0x09 => b"\\t",
            0x0a => b"\\n",
            0x0c => b"\\f",
            0x0d => b"\\r",
            0x00..=0x1f => b"",
            _ => continue,
        };
        out.extend_from_slice(bytes.get(plain..i).unwrap_or_default());
        if short.is_empty() {
            out.extend_from_slice(format!("\\u{b:04x}").as_bytes());
        } else {
            out.extend_from_slice(short);
        }
        plain = i + 1;
    }
    out.extend_from_slice(bytes.get(plain..).unwrap_or_default());
    out.push(b'"');
}

/// RFC 8785 section 3.2.2.3: the number as ECMAScript prints it.
fn write_number(n: &Number, out: &mut Vec<u8>) -> Result<(), CanonError> {
    check_number(n)?;
    if let Some(i) = n.as_i64() {
        out.extend_from_slice(i.to_string().as_bytes());
    } else if let Some(f) = n.as_f64() {
        out.extend_from_slice(ryu_js::Buffer::new().format_finite(f).as_bytes());
    } else {
        return Err(CanonError::NumberRange);
    }
    Ok(())
}

/// By value and not by spelling, as a language with one number type cannot tell `1e20` from its digits.
fn check_number(n: &Number) -> Result<(), CanonError> {
    let in_range = match (n.as_i64(), n.as_u64(), n.as_f64()) {
        (Some(i), _, _) => (-MAX_SAFE_INTEGER..=MAX_SAFE_INTEGER).contains(&i),
        (None, Some(_), _) => false,
        (None, None, Some(f)) => f.is_finite() && f.abs() <= MAX_SAFE_INTEGER as f64,
        (None, None, None) => false,
    };
    if in_range { Ok(()) } else { Err(CanonError::NumberRange) }
}

fn deeper(depth: usize) -> Result<usize, CanonError> {
    if depth >= MAX_DEPTH { Err(CanonError::TooDeep) } else { Ok(depth + 1) }
}

/// A `Value` that notices what serde_json's own would pass over in silence.
struct Strict<'a> {
    depth: usize,
    /// The typed reason; serde's errors carry only text.
    fault: &'a mut Option<CanonError>,
}

impl Strict<'_> {
    fn refuse<T, E: serde::de::Error>(self, fault: CanonError) -> Result<T, E> {
        let error = E::custom(&fault);
        *self.fault = Some(fault);
        Err(error)
    }

    fn number<E: serde::de::Error>(self, n: Option<Number>) -> Result<Value, E> {
        match n.map(|n| check_number(&n).map(|()| n)) {
            Some(Ok(n)) => Ok(Value::Number(n)),
            _ => self.refuse(CanonError::NumberRange),
        }
    }
}

impl<'de> DeserializeSeed<'de> for Strict<'_> {
    type Value = Value;
    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Value, D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Strict<'_> {
    type Value = Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a JSON value")
    }
    fn visit_unit<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }
    fn visit_bool<E>(self, v: bool) -> Result<Value, E> {
        Ok(Value::Bool(v))
    }
    fn visit_i64<E: serde::de::Error>(self, v: i64) -> Result<Value, E> {
        self.number(Some(v.into()))
    }
    fn visit_u64<E: serde::de::Error>(self, v: u64) -> Result<Value, E> {
        self.number(Some(v.into()))
    }
    fn visit_f64<E: serde::de::Error>(self, v: f64) -> Result<Value, E> {
        self.number(Number::from_f64(v))
    }
    fn visit_str<E>(self, v: &str) -> Result<Value, E> {
        Ok(Value::String(v.to_owned()))
    }
    fn visit_string<E>(self, v: String) -> Result<Value, E> {
        Ok(Value::String(v))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Value, A::Error> {
        let depth = match deeper(self.depth) {
            Ok(depth) => depth,
            Err(fault) => return self.refuse(fault),
        };
        let mut items = Vec::new();
        while let Some(item) = seq.next_element_seed(Strict { depth, fault: self.fault })? {
            items.push(item);
        }
        Ok(Value::Array(items))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut access: A) -> Result<Value, A::Error> {
        let depth = match deeper(self.depth) {
            Ok(depth) => depth,
            Err(fault) => return self.refuse(fault),
        };
        let mut map = Map::new();
        while let Some(key) = access.next_key::<String>()? {
            if map.contains_key(&key) {
                return self.refuse(CanonError::DuplicateKey(key));
            }
            let value = access.next_value_seed(Strict { depth, fault: self.fault })?;
            map.insert(key, value);
        }
        // Refused here too, so that what parses always has canonical bytes.
        let mut keys: Vec<&String> = map.keys().collect();
        keys.sort_unstable();
        let agree = keys.windows(2).all(|p| match p {
            [a, b] => a.encode_utf16().lt(b.encode_utf16()),
            _ => true,
        });
        if !agree {
            *self.fault = Some(CanonError::AmbiguousOrder);
            return Err(A::Error::custom(CanonError::AmbiguousOrder));
        }
        Ok(Value::Object(map))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn canon(text: &str) -> Result<String, CanonError> {
        canonicalize(&parse_strict(text.as_bytes())?).map(|b| String::from_utf8(b).unwrap())
    }

    #[test]
    fn sorts_keys_and_prints_numbers_as_ecmascript_does() {
        assert_eq!(
            canon(r#"{ "b":[1.0, 1e-7, 0.1, -0.0, 123456789012.5], "a":"\u20ac\u000f\n" }"#).unwrap(),
            "{\"a\":\"€\\u000f\\n\",\"b\":[1,1e-7,0.1,0,123456789012.5]}"
        );
    }

    #[test]
    fn refuses_what_implementations_disagree_on() {
        assert_eq!(canon(r#"{"a":1,"a":1}"#), Err(CanonError::DuplicateKey("a".into())));
        assert_eq!(canon("9007199254740992"), Err(CanonError::NumberRange));
        assert_eq!(canon("1e20"), Err(CanonError::NumberRange));
        assert_eq!(canon("18446744073709551616"), Err(CanonError::NumberRange));
        assert_eq!(canon("1e999"), Err(CanonError::NumberRange));
        assert_eq!(canon(r#"{"\uffff":1,"😀":2}"#), Err(CanonError::AmbiguousOrder));
        assert!(matches!(canon(r#""\ud800""#), Err(CanonError::Syntax(_))));
        assert!(matches!(canon("1 2"), Err(CanonError::Syntax(_))));
        assert!(matches!(canon("\"\u{1}\""), Err(CanonError::Syntax(_))));
        assert_eq!(canon("9007199254740991").unwrap(), "9007199254740991");
    }

    #[test]
    fn depth_is_bounded_at_sixty_four() {
        let nest = |n: usize| format!("{}{}", "[".repeat(n), "]".repeat(n));
        assert!(canon(&nest(64)).is_ok());
        assert_eq!(canon(&nest(65)), Err(CanonError::TooDeep));
    }

    #[test]
    fn size_is_bounded() {
        let big = format!("\"{}\"", "a".repeat(MAX_BYTES));
        assert_eq!(canon(&big), Err(CanonError::TooLarge(MAX_BYTES)));
        // Escapes grow: what parses within the bound may still be too large when written.
        let grows = Value::String("\u{1}".repeat(MAX_BYTES / 4));
        assert_eq!(canonicalize(&grows), Err(CanonError::TooLarge(MAX_BYTES)));
    }

    proptest::proptest! {
        #[test]
        fn canonical_bytes_parse_back_to_themselves(keys in proptest::collection::vec("\\PC{0,6}", 0..6), n in proptest::num::f64::ANY, i in proptest::num::i64::ANY) {
            let mut map = Map::new();
            for (at, key) in keys.into_iter().enumerate() {
                let value = match at % 3 { 0 => Number::from_f64(n).map_or(Value::Null, Value::Number), 1 => Value::from(i), _ => Value::String(key.clone()) };
                map.insert(key, value);
            }
            if let Ok(bytes) = canonicalize(&Value::Object(map)) {
                let again = parse_strict(&bytes).expect("canonical bytes parse");
                proptest::prop_assert_eq!(canonicalize(&again).unwrap(), bytes);
            }
        }

        #[test]
        fn whatever_parses_has_canonical_bytes(text in "[\\[\\]{}:,\"a-c0-9.eE\\\\u \\-]{0,40}") {
            if let Ok(value) = parse_strict(text.as_bytes()) {
                proptest::prop_assert!(canonicalize(&value).is_ok());
            }
        }
    }
}
