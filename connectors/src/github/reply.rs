//! Refusals in the shape that GitHub's own clients read.

use bytes::Bytes;
use http::{HeaderValue, StatusCode, header};
use serde_json::json;

use crate::{Denial, ErrorReply};

/// A denial as a GitHub error: the words for people in `message`, the codes in `aegis`.
pub(super) fn denial(denial: &Denial) -> ErrorReply {
    let mut message = format!("Aegis refused this request: {} (reason {}", denial.message, denial.reason);
    if let Some(receipt) = &denial.receipt {
        message.push_str(&format!(", receipt {receipt}"));
    }
    if let Some(approval) = &denial.approval {
        message.push_str(&format!(", approval {approval}"));
    }
    message.push(')');
    if denial.status == StatusCode::UNAUTHORIZED {
        // The words that GitHub's clients look for; the codes stand in `aegis`.
        message = "Bad credentials".to_owned();
    }
    let body = json!({
        "message": message,
        "documentation_url": DOCUMENTATION,
        "status": denial.status.as_u16().to_string(),
        "aegis": {"reason": denial.reason, "receipt": denial.receipt, "approval": denial.approval},
    });
    reply(denial.status, &body)
}

/// What `api.github.com` tells a client without a credential.
pub(super) fn challenge() -> ErrorReply {
    let body = json!({"message": "Requires authentication", "documentation_url": DOCUMENTATION, "status": "401"});
    let mut reply = reply(StatusCode::UNAUTHORIZED, &body);
    reply.headers.push((header::WWW_AUTHENTICATE, HeaderValue::from_static("Basic realm=\"GitHub\"")));
    reply
}

/// The path of a `Link` that GitHub wrote with numeric ids, as the client asked for it.
///
/// Pages of `/repos/octo/payments/issues` are linked as `/repositories/1296269/issues?page=2`,
/// which names no repository that a policy could know. Where the rest of the path is that of
/// the request, the request's own path is the same list; otherwise `None`.
pub fn same_page<'a>(request_path: &'a str, linked_path: &str) -> Option<&'a str> {
    let plain = request_path.strip_prefix("/api/v3").unwrap_or(request_path);
    let (asked, linked) = FORMS.iter().find_map(|(asked, names, linked)| {
        let asked = skip(plain.strip_prefix(asked)?, *names)?;
        let (id, rest) = split(linked_path.strip_prefix(linked)?);
        (!id.is_empty() && id.bytes().all(|b| b.is_ascii_digit())).then_some((asked, rest))
    })?;
    (asked == linked).then_some(request_path)
}

fn skip(mut path: &str, names: usize) -> Option<&str> {
    for at in 0..names {
        let (name, rest) = split(path);
        if name.is_empty() {
            return None;
        }
        path = if at + 1 < names { rest.strip_prefix('/')? } else { rest };
    }
    Some(path)
}

fn split(path: &str) -> (&str, &str) {
    path.split_at(path.find('/').unwrap_or(path.len()))
}

fn reply(status: StatusCode, body: &serde_json::Value) -> ErrorReply {
    let media = HeaderValue::from_static("application/json; charset=utf-8");
    ErrorReply { status, headers: vec![(header::CONTENT_TYPE, media)], body: Bytes::from(body.to_string()) }
}

/// As asked for, how many names follow, and as linked.
const FORMS: [(&str, usize, &str); 3] =
    [("/repos/", 2, "/repositories/"), ("/orgs/", 1, "/organizations/"), ("/users/", 1, "/user/")];
const DOCUMENTATION: &str = "https://docs.github.com/rest";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pages_by_id_are_the_same_list() {
        let asked = "/repos/octo/payments/issues";
        assert_eq!(same_page(asked, "/repositories/1296269/issues"), Some(asked));
        assert_eq!(same_page("/api/v3/orgs/octo/repos", "/organizations/9/repos"), Some("/api/v3/orgs/octo/repos"));
        assert_eq!(same_page("/users/octo/repos", "/user/583231/repos"), Some("/users/octo/repos"));
        for linked in [
            "/repositories/1296269/pulls",
            "/repositories/x/issues",
            "/repositories//issues",
            "/repos/a/b/issues",
            "/user/1/issues",
        ] {
            assert_eq!(same_page(asked, linked), None, "{linked}");
        }
        assert_eq!(same_page("/repos/octo", "/repositories/1"), None);
    }

    #[test]
    fn a_denial_says_what_to_do_in_words() {
        let reply = denial(&Denial {
            status: StatusCode::FORBIDDEN,
            reason: "approval_required".into(),
            message: "a person must approve the merge".into(),
            receipt: Some("rcp_1".into()),
            approval: Some("apr_2".into()),
        });
        let body: serde_json::Value = serde_json::from_slice(&reply.body).unwrap();
        assert_eq!(
            body["message"],
            "Aegis refused this request: a person must approve the merge (reason approval_required, receipt rcp_1, approval apr_2)"
        );
        assert_eq!(body["status"], "403");
        assert_eq!(body["aegis"]["approval"], "apr_2");
    }

    #[test]
    fn the_challenge_is_github_s() {
        let reply = challenge();
        assert_eq!(reply.status, StatusCode::UNAUTHORIZED);
        assert!(
            reply.headers.contains(&(header::WWW_AUTHENTICATE, HeaderValue::from_static("Basic realm=\"GitHub\"")))
        );
    }
}
