//! Form-encoded queries, decoded once, in the order they came.

use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};

use super::{bad, path::hex};
use crate::Refusal;

/// One `key=value`; the value is `None` where there was no `=`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Pair {
    pub key: String,
    pub value: Option<String>,
}

/// Reads a query. Duplicates are the caller's to judge.
pub(crate) fn parse(query: Option<&str>) -> Result<Vec<Pair>, Refusal> {
    let query = query.unwrap_or_default();
    if query.len() > MAX_BYTES {
        return Err(bad(BAD_QUERY, format!("the query is longer than {MAX_BYTES} bytes")));
    }
    if query.is_empty() {
        return Ok(Vec::new());
    }
    let pairs: Vec<Pair> = query.split('&').map(pair).collect::<Result<_, _>>()?;
    if pairs.len() > MAX_PAIRS {
        return Err(bad(BAD_QUERY, format!("the query has more than {MAX_PAIRS} parameters")));
    }
    if let Some(pair) = pairs.iter().find(|p| is_method_override(&p.key)) {
        return Err(bad("method_override", format!("the query parameter `{}` is not passed on", pair.key)));
    }
    if let Some(pair) = pairs.iter().find(|p| is_credential(&p.key)) {
        let detail = format!("the query parameter `{}` would carry a credential", pair.key);
        return Err(bad("credential_in_query", detail));
    }
    Ok(pairs)
}

/// Writes a query, with its `?` if there is any.
pub(crate) fn write(pairs: &[Pair]) -> String {
    let mut out = String::new();
    for pair in pairs {
        out.push(if out.is_empty() { '?' } else { '&' });
        out.extend(utf8_percent_encode(&pair.key, COMPONENT));
        if let Some(value) = &pair.value {
            out.push('=');
            out.extend(utf8_percent_encode(value, COMPONENT));
        }
    }
    out
}

fn pair(raw: &str) -> Result<Pair, Refusal> {
    let (key, value) = raw.split_once('=').map_or((raw, None), |(k, v)| (k, Some(v)));
    let pair = Pair { key: decode(key)?, value: value.map(decode).transpose()? };
    if pair.key.is_empty() {
        return Err(bad(BAD_QUERY, "a query parameter without a name"));
    }
    Ok(pair)
}

fn decode(raw: &str) -> Result<String, Refusal> {
    let mut bytes = Vec::with_capacity(raw.len());
    let mut rest = raw.as_bytes();
    while let [first, tail @ ..] = rest {
        rest = tail;
        match (first, tail) {
            (b'+', _) => bytes.push(b' '),
            (b'%', [high, low, after @ ..]) => match (hex(*high), hex(*low)) {
                (Some(high), Some(low)) => {
                    bytes.push(high << 4 | low);
                    rest = after;
                }
                _ => return Err(bad(BAD_QUERY, "a `%` without two hex digits")),
            },
            (b'%', _) => return Err(bad(BAD_QUERY, "a `%` without two hex digits")),
            // Some servers part pairs at `;`.
            (b';', _) => return Err(bad(BAD_QUERY, "a bare `;`")),
            (b'!'..=b'~', _) if *first != b'#' => bytes.push(*first),
            _ => return Err(bad(BAD_QUERY, "a character that a query must encode")),
        }
    }
    let text = String::from_utf8(bytes).map_err(|_| bad(BAD_QUERY, "percent-encoding that is not UTF-8"))?;
    if text.chars().any(char::is_control) {
        return Err(bad(BAD_QUERY, "a control character"));
    }
    Ok(text)
}

fn is_method_override(key: &str) -> bool {
    let key = key.to_ascii_lowercase();
    matches!(key.as_str(), "_method" | "_httpmethod" | "x-http-method-override" | "x-http-method" | "x-method-override")
}

/// Credentials in a URL end up in logs, and an agent has none to send.
fn is_credential(key: &str) -> bool {
    let key = key.to_ascii_lowercase();
    matches!(
        key.as_str(),
        "access_token"
            | "client_secret"
            | "api_key"
            | "apikey"
            | "authorization"
            | "x-amz-signature"
            | "x-goog-signature"
    )
}

/// Reason of most refusals of this module.
pub(crate) const BAD_QUERY: &str = "bad_query";
const MAX_BYTES: usize = 8 * 1024;
const MAX_PAIRS: usize = 64;
const COMPONENT: &AsciiSet = &NON_ALPHANUMERIC
    .remove(b'-')
    .remove(b'.')
    .remove(b'_')
    .remove(b'~')
    .remove(b':')
    .remove(b',')
    .remove(b'/')
    .remove(b'@');

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pairs_are_decoded_once_and_written_back() {
        let read = parse(Some("q=a+b%2Bc&flag&e=&x%5B%5D=1&y[]=%2564")).unwrap();
        let flat: Vec<_> = read.iter().map(|p| (p.key.as_str(), p.value.as_deref())).collect();
        assert_eq!(
            flat,
            [("q", Some("a b+c")), ("flag", None), ("e", Some("")), ("x[]", Some("1")), ("y[]", Some("%64"))]
        );
        assert_eq!(write(&read), "?q=a%20b%2Bc&flag&e=&x%5B%5D=1&y%5B%5D=%2564");
        assert_eq!(parse(Some(write(&read).trim_start_matches('?'))).unwrap(), read);
        assert_eq!(write(&parse(None).unwrap()), "");
    }

    #[test]
    fn hostile_queries_are_refused() {
        for query in
            ["a=1&&b=2", "=1", "a=%", "a=%2", "a=%zz", "a=%ff", "a=%00", "a=1;b=2", "a=\u{e9}", "a= b", "a=%0d%0a"]
        {
            assert_eq!(parse(Some(query)).map_err(|r| r.reason), Err(BAD_QUERY), "{query}");
        }
        assert_eq!(parse(Some("_method=DELETE")).map_err(|r| r.reason), Err("method_override"));
        assert_eq!(parse(Some("%5fMethod=DELETE")).map_err(|r| r.reason), Err("method_override"));
        assert_eq!(parse(Some("_HttpMethod=PUT")).map_err(|r| r.reason), Err("method_override"));
        assert_eq!(parse(Some("access_token=x")).map_err(|r| r.reason), Err("credential_in_query"));
        assert_eq!(parse(Some("X-Amz-Signature=x")).map_err(|r| r.reason), Err("credential_in_query"));
        let many = vec!["a=1"; MAX_PAIRS + 1].join("&");
        assert_eq!(parse(Some(&many)).map_err(|r| r.reason), Err(BAD_QUERY));
    }
}
