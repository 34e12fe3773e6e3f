//! Headers by allow-list, checked as they are picked.

use http::{HeaderMap, HeaderName, HeaderValue, header};

use super::{bad, refuse};
use crate::Refusal;

/// Headers that would make a server act on another method than the one that was judged.
pub(crate) fn refuse_method_override(headers: &HeaderMap) -> Result<(), Refusal> {
    match headers.keys().find(|name| METHOD_OVERRIDES.contains(&name.as_str())) {
        Some(name) => Err(bad("method_override", format!("the header `{name}` is not passed on"))),
        None => Ok(()),
    }
}

/// A body in any coding but the plain one cannot be judged.
pub(crate) fn refuse_encoded_body(headers: &HeaderMap) -> Result<(), Refusal> {
    match one(headers, &header::CONTENT_ENCODING)? {
        Some(coding) if !coding.eq_ignore_ascii_case("identity") => Err(refuse(
            "bad_content_encoding",
            http::StatusCode::UNSUPPORTED_MEDIA_TYPE,
            "send the body without `Content-Encoding`",
        )),
        _ => Ok(()),
    }
}

/// The value of a header that may stand once, as text.
pub(crate) fn one<'a>(headers: &'a HeaderMap, name: &HeaderName) -> Result<Option<&'a str>, Refusal> {
    let mut values = headers.get_all(name).iter();
    match (values.next(), values.next()) {
        (None, _) => Ok(None),
        (Some(value), None) => visible(name, value).map(Some),
        (Some(_), Some(_)) => Err(bad(BAD_HEADER, format!("the header `{name}` stands twice"))),
    }
}

/// The value if all of it is visible ASCII, spaces and tabs.
pub(crate) fn visible<'a>(name: &HeaderName, value: &'a HeaderValue) -> Result<&'a str, Refusal> {
    let ok = |text: &&str| text.len() <= MAX_VALUE;
    value.to_str().ok().filter(ok).ok_or_else(|| {
        bad(BAD_HEADER, format!("the header `{name}` is too long or has characters that are not visible ASCII"))
    })
}

/// Media type in lower case and its `charset`, in lower case too.
pub(crate) fn media_type(headers: &HeaderMap) -> Result<Option<(String, Option<String>)>, Refusal> {
    let Some(value) = one(headers, &header::CONTENT_TYPE)? else { return Ok(None) };
    let mut parts = value.split(';').map(str::trim);
    let media = parts.next().unwrap_or_default().to_ascii_lowercase();
    let mut charset = None;
    for parameter in parts {
        let Some((name, value)) = parameter.split_once('=') else {
            return Err(bad(BAD_HEADER, "the header `content-type` is malformed"));
        };
        if name.eq_ignore_ascii_case("charset") {
            if charset.is_some() {
                return Err(bad(BAD_HEADER, "the header `content-type` has two charsets"));
            }
            charset = Some(value.trim_matches('"').to_ascii_lowercase());
        }
    }
    Ok(Some((media, charset)))
}

/// Reason for refused headers.
pub(crate) const BAD_HEADER: &str = "bad_header";
const MAX_VALUE: usize = 4096;
const METHOD_OVERRIDES: [&str; 5] =
    ["x-http-method-override", "x-http-method", "x-method-override", "x-original-method", "x-rewrite-method"];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn content_type_is_read_whole() {
        let read =
            |v: &'static str| media_type(&HeaderMap::from_iter([(header::CONTENT_TYPE, HeaderValue::from_static(v))]));
        assert_eq!(
            read("Application/JSON; Charset=\"UTF-8\""),
            Ok(Some(("application/json".into(), Some("utf-8".into()))))
        );
        assert!(read("application/json; charset=utf-7; charset=utf-8").is_err());
        assert!(read("application/json; x").is_err());
        let mut twice = HeaderMap::new();
        twice.append(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
        twice.append(header::CONTENT_TYPE, HeaderValue::from_static("text/plain"));
        assert_eq!(media_type(&twice).map_err(|r| r.reason), Err(BAD_HEADER));
    }

    #[test]
    fn values_are_visible() {
        let hidden = HeaderMap::from_iter([(header::ACCEPT, HeaderValue::from_bytes(b"a\xffb").unwrap())]);
        assert_eq!(one(&hidden, &header::ACCEPT).map_err(|r| r.reason), Err(BAD_HEADER));
    }
}
