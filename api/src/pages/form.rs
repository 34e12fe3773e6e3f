//! Forms as browsers send them.

use axum::body::{Body, to_bytes};
use zeroize::Zeroizing;

/// Names and values of `application/x-www-form-urlencoded`; wiped when dropped, as one of them may be a token.
pub(super) struct Form(Vec<(String, Zeroizing<String>)>);

/// The body is too long, cut off, or names something twice.
pub(super) struct NoForm;

impl Form {
    pub(super) async fn read(body: Body) -> Result<Self, NoForm> {
        let bytes = to_bytes(body, LONGEST).await.map_err(|_| NoForm)?;
        let mut pairs: Vec<(String, Zeroizing<String>)> = Vec::new();
        for (name, value) in form_urlencoded::parse(&bytes) {
            if pairs.iter().any(|(known, _)| *known == name) {
                return Err(NoForm);
            }
            pairs.push((name.into_owned(), Zeroizing::new(value.into_owned())));
        }
        Ok(Self(pairs))
    }

    pub(super) fn get(&self, name: &str) -> Option<&str> {
        self.0.iter().find(|(known, _)| known == name).map(|(_, value)| value.as_str())
    }
}

const LONGEST: usize = 8 * 1024;
