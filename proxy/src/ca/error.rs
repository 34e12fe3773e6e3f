//! Why there is no certificate.

use std::{io, path::PathBuf, sync::Arc};

/// Why a certificate cannot be had.
#[derive(Debug, Clone, thiserror::Error)]
pub enum CaError {
    /// A file cannot be read or written.
    #[error("cannot {doing} `{}`: {why}", path.display())]
    File {
        /// `read`, `write`, …
        doing: &'static str,
        /// Which.
        path: PathBuf,
        /// Why.
        why: String,
    },
    /// A root's key does not open: the vault that sealed it is another one.
    #[error(
        "`{}` was sealed under the key of another vault; restore that vault, or move the file away to make a new \
         root that clients have to install",
        .0.display()
    )]
    Sealed(PathBuf),
    /// A root's key cannot be sealed.
    #[error("the root's key cannot be sealed")]
    NotSealed,
    /// The operator's intermediate is not usable.
    #[error("`{}`: {why}", path.display())]
    Provided {
        /// Certificate or key.
        path: PathBuf,
        /// Why.
        why: String,
    },
    /// No route and no name of the gateway's is this host.
    #[error("no certificate is issued for `{0}`")]
    NotPermitted(String),
    /// The intermediate has ended and cannot be renewed by us.
    #[error("the intermediate certificate has expired; replace the files that `[ca]` names")]
    Expired,
    /// A rotation is under way already.
    #[error("a rotation is under way; finish it with `aegis ca rotate --finish`")]
    Rotating,
    /// There is no rotation to finish.
    #[error("no rotation is under way")]
    NotRotating,
    /// The root is not ours.
    #[error("`[ca]` names an intermediate of yours; its root is rotated where it is kept")]
    NotOurs,
    /// It cannot be put on record, so it is not done.
    #[error("{0}")]
    Unrecorded(String),
    /// A key or certificate could not be made or read.
    #[error("certificate: {0}")]
    Failed(String),
}

impl CaError {
    pub(super) fn file(doing: &'static str, path: impl Into<PathBuf>, why: &io::Error) -> Self {
        Self::File { doing, path: path.into(), why: why.to_string() }
    }

    /// From a look-up that several shared.
    #[expect(clippy::needless_pass_by_value, reason = "as `map_err` gives it")]
    pub(super) fn shared(error: Arc<Self>) -> Self {
        (*error).clone()
    }
}

impl From<rcgen::Error> for CaError {
    fn from(error: rcgen::Error) -> Self {
        Self::Failed(error.to_string())
    }
}
