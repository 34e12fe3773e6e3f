//! Bodies, queries and ids, read strictly: every field that is not understood is an error that names it.

use std::time::Duration;

use aegis_action::{CanonError, Digest, canonicalize, parse_strict, sha256};
use axum::{
    body::{Body, HttpBody as _},
    extract::{FromRequestParts, Path},
};
use futures_util::StreamExt;
use http::{HeaderMap, header, request::Parts};
use serde::de::DeserializeOwned;
use serde_json::Value;
use zeroize::Zeroizing;

use crate::{
    error::{ApiError, Failure},
    strict::Strict,
};

/// Largest body, bytes.
pub(crate) const MAX_BODY: usize = aegis_action::MAX_BYTES;
/// Time for a whole body to arrive, seconds.
pub(crate) const BODY_SECONDS: u64 = 30;

/// The rest of a request, as handlers take it.
pub(crate) struct Request {
    pub(crate) headers: HeaderMap,
    pub(crate) body: Body,
}

impl<S: Send + Sync> axum::extract::FromRequest<S> for Request {
    type Rejection = std::convert::Infallible;

    async fn from_request(request: axum::extract::Request, _: &S) -> Result<Self, Self::Rejection> {
        let (parts, body) = request.into_parts();
        Ok(Self { headers: parts.headers, body })
    }
}

impl Request {
    /// The body as `T`.
    pub(crate) async fn json<T: DeserializeOwned>(self) -> Result<T, ApiError> {
        Ok(self.json_and_digest().await?.0)
    }

    /// The body as `T`, and the SHA-256 of its canonical form.
    pub(crate) async fn json_and_digest<T: DeserializeOwned>(self) -> Result<(T, Digest), ApiError> {
        check_media_type(&self.headers)?;
        let bytes = self.bytes().await?;
        let value = parse_strict(&bytes).map_err(not_json)?;
        let digest = sha256(&canonicalize(&value).map_err(not_json)?);
        Ok((typed(value)?, digest))
    }

    /// As [`Request::json`], where no body at all is as good as `{}`.
    pub(crate) async fn optional_json<T: DeserializeOwned + Default>(self) -> Result<T, ApiError> {
        let declared = check_media_type(&self.headers);
        let bytes = self.bytes().await?;
        if bytes.is_empty() {
            return Ok(T::default());
        }
        declared?;
        typed(parse_strict(&bytes).map_err(not_json)?)
    }

    /// Wiped when dropped, since a body may hold a credential.
    async fn bytes(self) -> Result<Zeroizing<Vec<u8>>, ApiError> {
        let declared: Option<usize> =
            self.headers.get(header::CONTENT_LENGTH).and_then(|v| v.to_str().ok()?.parse().ok());
        if declared.is_some_and(|length| length > MAX_BODY) {
            return Err(ApiError::TooLarge);
        }
        // Sized first, so that growing leaves no copy behind, and no larger than need be: it is wiped whole.
        let sized = self.body.size_hint().exact().and_then(|n| usize::try_from(n).ok()).filter(|n| *n <= MAX_BODY);
        let mut out = Zeroizing::new(Vec::with_capacity(declared.or(sized).unwrap_or(MAX_BODY.min(64 * 1024))));
        let mut chunks = self.body.into_data_stream();
        let read = async {
            while let Some(chunk) = chunks.next().await {
                let chunk = chunk.map_err(|_| ApiError::invalid("body_cut_off", "the body ended before its length"))?;
                if out.len() + chunk.len() > MAX_BODY {
                    return Err(ApiError::TooLarge);
                }
                out.extend_from_slice(&chunk);
            }
            Ok(())
        };
        tokio::time::timeout(Duration::from_secs(BODY_SECONDS), read).await.map_err(|_| ApiError::Slow)??;
        Ok(out)
    }
}

/// A query string as `T`. Unknown and repeated names are errors.
pub(crate) struct Query<T>(pub(crate) T);

impl<S: Send + Sync, T: DeserializeOwned> FromRequestParts<S> for Query<T> {
    type Rejection = Failure;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Failure> {
        match axum::extract::Query::<T>::try_from_uri(&parts.uri) {
            Ok(axum::extract::Query(query)) => Ok(Self(query)),
            Err(rejection) => {
                let text = rejection.body_text();
                let words = text.strip_prefix("Failed to deserialize query string: ").unwrap_or(&text);
                let (field, words) = words.split_once(": ").unwrap_or(("query", words));
                Err(ApiError::invalid("bad_query", format!("`{}`: {}", printable(field), without_values(words))).into())
            }
        }
    }
}

/// The id in a path.
pub(crate) struct Id(pub(crate) String);

impl<S: Send + Sync> FromRequestParts<S> for Id {
    type Rejection = Failure;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Failure> {
        let Path(id) = Path::<String>::from_request_parts(parts, state).await.map_err(|_| bad_id())?;
        if fits(&id) { Ok(Self(id)) } else { Err(bad_id().into()) }
    }
}

/// The two ids in a path: whose, and which.
pub(crate) struct Ids(pub(crate) String, pub(crate) String);

impl<S: Send + Sync> FromRequestParts<S> for Ids {
    type Rejection = Failure;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Failure> {
        let path = Path::<(String, String)>::from_request_parts(parts, state).await;
        let Path((whose, which)) = path.map_err(|_| bad_id())?;
        if fits(&whose) && fits(&which) { Ok(Self(whose, which)) } else { Err(bad_id().into()) }
    }
}

fn fits(id: &str) -> bool {
    (1..=128).contains(&id.len()) && id.bytes().all(|b| b.is_ascii_alphanumeric() || b"_-.".contains(&b))
}

fn bad_id() -> ApiError {
    ApiError::invalid("bad_id", "the id in the path must be 1 to 128 letters, digits, `_`, `-` or `.`")
}

/// A page size.
pub(crate) fn limit(asked: Option<u32>, default: u32, max: u32) -> Result<u32, ApiError> {
    match asked.unwrap_or(default) {
        n if (1..=max).contains(&n) => Ok(n),
        _ => Err(ApiError::invalid("bad_query", format!("`limit`: must be 1 to {max}"))),
    }
}

/// `application/json`, once; of the parameters only a charset that says what JSON is anyway.
fn check_media_type(headers: &HeaderMap) -> Result<(), ApiError> {
    let mut declared = headers.get_all(header::CONTENT_TYPE).iter();
    let (Some(value), None) = (declared.next(), declared.next()) else { return Err(ApiError::MediaType) };
    let text = value.to_str().map_err(|_| ApiError::MediaType)?.to_ascii_lowercase();
    let (media, parameters) = text.split_once(';').unwrap_or((&text, ""));
    match (media.trim(), parameters.trim()) {
        ("application/json", "" | "charset=utf-8" | "charset=\"utf-8\"") => Ok(()),
        _ => Err(ApiError::MediaType),
    }
}

fn not_json(error: CanonError) -> ApiError {
    match error {
        CanonError::TooLarge(_) => ApiError::TooLarge,
        CanonError::DuplicateKey(key) => ApiError::invalid("bad_json", format!("duplicate key `{}`", printable(&key))),
        other => ApiError::invalid("bad_json", other.to_string()),
    }
}

fn typed<T: DeserializeOwned>(value: Value) -> Result<T, ApiError> {
    serde_path_to_error::deserialize(Strict(value)).map_err(|error| {
        let path = error.path().to_string();
        let words = without_values(&error.into_inner().to_string());
        let field = if path == "." { "body".to_owned() } else { printable(&path) };
        ApiError::invalid("bad_field", format!("`{field}`: {words}"))
    })
}

/// serde quotes what it found; what was found may be a secret in the wrong place.
fn without_values(words: &str) -> String {
    let quotes = ["invalid type: ", "invalid value: ", "unknown variant "].iter().any(|start| words.starts_with(start));
    match words.rsplit_once(", expected ") {
        Some((_, expected)) if quotes => format!("expected {}", printable(expected)),
        _ if quotes => "not a value that is expected here".to_owned(),
        _ => printable(words),
    }
}

fn printable(text: &str) -> String {
    text.chars().filter(|c| !c.is_control()).take(240).collect()
}

#[cfg(test)]
mod tests {
    use serde::Deserialize;

    use super::*;

    #[derive(Debug, Deserialize)]
    #[serde(deny_unknown_fields)]
    struct Outer {
        #[expect(dead_code, reason = "only parsed")]
        inner: Inner,
    }

    #[derive(Debug, Deserialize)]
    #[serde(deny_unknown_fields)]
    #[expect(dead_code, reason = "only parsed")]
    struct Inner {
        n: u8,
        word: Word,
    }

    #[derive(Debug, Deserialize)]
    #[serde(rename_all = "snake_case")]
    enum Word {
        Yes,
    }

    fn refused(text: &str) -> String {
        parse_strict(text.as_bytes()).map_err(not_json).and_then(typed::<Outer>).unwrap_err().to_string()
    }

    #[test]
    fn errors_name_the_place_and_never_the_value() {
        assert!(
            Outer::deserialize(serde_json::json!({"inner":{"n":1,"word":"yes"}}))
                .is_ok_and(|o| matches!(o, Outer { .. }))
        );
        assert_eq!(refused(r#"{"inner":{"n":"hunter2","word":"yes"}}"#), "`inner.n`: expected u8");
        assert_eq!(refused(r#"{"inner":{"n":1,"word":"hunter2, expected x"}}"#), "`inner.word`: expected `yes`");
        assert_eq!(refused(r#"{"inner":{"n":1}}"#), "`inner`: missing field `word`");
        assert!(refused(r#"{"inner":{"n":1,"word":"yes","more":"hunter2"}}"#).contains("unknown field `more`"));
        assert!(refused(r#"{"inner":{"n":1,"n":2}}"#).contains("duplicate key `n`"));
        assert!(refused("{\n\"inner\": nul").contains("line 2"));
        assert_eq!(refused(r#""hunter2""#), "`body`: expected an object");
    }

    #[test]
    fn one_media_type() {
        let with = |values: &[&'static str]| {
            let mut headers = HeaderMap::new();
            values.iter().for_each(|v| {
                headers.append(header::CONTENT_TYPE, http::HeaderValue::from_static(v));
            });
            check_media_type(&headers).is_ok()
        };
        assert!(with(&["application/json"]) && with(&["Application/JSON; charset=UTF-8"]));
        for bad in
            [&[][..], &["text/plain"], &["application/json", "application/json"], &["application/json; charset=utf-7"]]
        {
            assert!(!with(bad), "{bad:?}");
        }
    }
}
