//! The pieces of HTTP that every grammar reads the same, strict way.

pub(crate) mod headers;
pub(crate) mod path;
pub(crate) mod query;

use http::StatusCode;

use crate::Refusal;

/// A refusal with status 400.
pub(crate) fn bad(reason: &'static str, detail: impl Into<String>) -> Refusal {
    refuse(reason, StatusCode::BAD_REQUEST, detail)
}

/// A refusal.
pub(crate) fn refuse(reason: &'static str, status: StatusCode, detail: impl Into<String>) -> Refusal {
    Refusal { reason, detail: detail.into(), status }
}
