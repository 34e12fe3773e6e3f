//! The vectors of `tests/vectors/`, shared with the other languages' implementations.

#![expect(clippy::unwrap_used, reason = "a test's helpers may fail loudly too")]

use aegis_action::{CanonError, canonicalize, parse_strict, sha256};
use serde_json::Value;

#[test]
fn accepted_vectors_give_their_bytes_and_hash() {
    let vectors = load(include_str!("../../tests/vectors/accepted.json"));
    assert!(vectors.len() >= 50);
    for vector in &vectors {
        let name = text(vector, "name");
        let value = parse_strict(&input(vector)).unwrap_or_else(|e| panic!("{name}: {e}"));
        let canonical = canonicalize(&value).unwrap_or_else(|e| panic!("{name}: {e}"));
        if let Some(expected) = vector.get("canonical") {
            assert_eq!(String::from_utf8_lossy(&canonical), expected.as_str().unwrap(), "{name}");
        }
        assert_eq!(sha256(&canonical).to_hex(), text(vector, "sha256"), "{name}");
        assert_eq!(canonicalize(&parse_strict(&canonical).unwrap()).unwrap(), canonical, "{name}: not a fixed point");
    }
}

#[test]
fn refused_vectors_are_refused_for_their_reason() {
    let vectors = load(include_str!("../../tests/vectors/refused.json"));
    assert!(vectors.len() >= 50);
    for vector in &vectors {
        let name = text(vector, "name");
        match parse_strict(&input(vector)) {
            Ok(value) => panic!("{name}: accepted as {value}"),
            Err(error) => assert_eq!(reason(&error), text(vector, "reason"), "{name}: {error}"),
        }
    }
}

/// The reason as the vectors name it.
fn reason(error: &CanonError) -> &'static str {
    match error {
        CanonError::Syntax(_) => "syntax",
        CanonError::DuplicateKey(_) => "duplicate_key",
        CanonError::NumberRange => "number_range",
        CanonError::AmbiguousOrder => "ambiguous_order",
        CanonError::TooDeep => "too_deep",
        CanonError::TooLarge(_) => "too_large",
        CanonError::ReservedKey(_) => "reserved_key",
    }
}

fn load(file: &str) -> Vec<Value> {
    serde_json::from_str(file).unwrap()
}

fn text<'a>(vector: &'a Value, key: &str) -> &'a str {
    vector[key].as_str().unwrap()
}

/// An input is text, hex for what is no text, or prefix, repetition and suffix for what is long.
fn input(vector: &Value) -> Vec<u8> {
    if let Some(made) = vector.get("make") {
        let count = usize::try_from(made["count"].as_u64().unwrap()).unwrap();
        return [text(made, "prefix"), &text(made, "repeat").repeat(count), text(made, "suffix")].concat().into_bytes();
    }
    match vector.get("hex") {
        Some(hex) => {
            let digits = hex.as_str().unwrap();
            (0..digits.len()).step_by(2).map(|at| u8::from_str_radix(&digits[at..at + 2], 16).unwrap()).collect()
        }
        None => text(vector, "input").as_bytes().to_vec(),
    }
}
