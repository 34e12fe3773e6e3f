//! The canonical form behind the protocol of the SDKs' drivers, so that one test can hold all
//! implementations against each other (see `tests/sdk-contract`). One JSON object per line in, one out:
//!
//! `{"op":"canon","id":…,"text_b64":"…"}` and `{"op":"hash_call","id":…,"tool_call":{…}}` are answered with
//! `{"id":…,"ok":true,"sha256":"…"}` or `{"id":…,"ok":false,"reason":"…"}`.

use std::{
    error::Error,
    io::{self, BufRead as _, Write as _},
};

use aegis_action::{Action, ActionError, CanonError, ToolCall, canonicalize, parse_strict, sha256};
use serde::Deserialize;
use serde_json::{Value, json};

#[derive(Deserialize)]
#[serde(tag = "op", rename_all = "snake_case")]
enum Order {
    Canon { id: Value, text_b64: String },
    HashCall { id: Value, tool_call: Value },
}

fn main() -> Result<(), Box<dyn Error>> {
    let mut out = io::BufWriter::new(io::stdout().lock());
    let mut input = io::stdin().lock();
    let mut line = String::new();
    while input.read_line(&mut line)? > 0 {
        let (id, hash) = match serde_json::from_str::<Order>(&line)? {
            Order::Canon { id, text_b64 } => (id, canon(&from_base64(&text_b64).ok_or("`text_b64` is no base64")?)),
            Order::HashCall { id, tool_call } => (id, hash_call(tool_call)),
        };
        let answer = match hash {
            Ok(hash) => json!({"id": id, "ok": true, "sha256": hash}),
            Err(reason) => json!({"id": id, "ok": false, "reason": reason}),
        };
        writeln!(out, "{answer}")?;
        // Whoever asks one at a time waits for the answer.
        out.flush()?;
        line.clear();
    }
    Ok(())
}

fn canon(text: &[u8]) -> Result<String, &'static str> {
    let bytes = parse_strict(text).and_then(|value| canonicalize(&value)).map_err(|e| reason(&e))?;
    Ok(sha256(&bytes).to_hex())
}

fn hash_call(call: Value) -> Result<String, &'static str> {
    let call: ToolCall = serde_json::from_value(call).map_err(|_| "bad_call")?;
    match Action::new(call) {
        Ok(action) => Ok(action.hash().to_hex()),
        Err(ActionError::BadName { .. }) => Err("bad_name"),
        Err(ActionError::BadResource) => Err("bad_resource"),
        Err(ActionError::Parameters(e)) => Err(reason(&e)),
    }
}

/// As the vectors of `tests/vectors` name it.
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

/// RFC 4648 section 4, with padding.
fn from_base64(text: &str) -> Option<Vec<u8>> {
    let digits = text.trim_end_matches('=');
    let mut out = Vec::with_capacity(digits.len() * 3 / 4);
    let (mut bits, mut held) = (0u32, 0u32);
    for digit in digits.bytes() {
        let value = match digit {
            b'A'..=b'Z' => digit - b'A',
            b'a'..=b'z' => digit - b'a' + 26,
            b'0'..=b'9' => digit - b'0' + 52,
            b'+' => 62,
            b'/' => 63,
            _ => return None,
        };
        bits = (bits << 6) | u32::from(value);
        held += 6;
        if held >= 8 {
            held -= 8;
            out.push(u8::try_from((bits >> held) & 0xff).ok()?);
        }
    }
    Some(out)
}
