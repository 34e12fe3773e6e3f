//! The verifier: a log or a bundle, checked from its bytes alone.
//!
//! Checked are framing, canonical form, known types, numbering without gaps across
//! segments, the hash chain, one node, the head file, and that outcomes name earlier
//! intents of the same decision. A bundle's openings are checked against the
//! commitments. The log is hash-chained, not signed: whoever can rewrite all of it can
//! make another consistent one; and without the head file a cut at a record's border shows nothing.

mod bundle;
mod dir;
mod links;
mod report;

use std::path::Path;

use crate::disk::RealDisk;

pub use bundle::verify_bundle;
pub use dir::{Progress, verify_dir_with};
pub use report::{Report, Verdict};

/// Verifies a log directory.
pub fn verify_dir(dir: &Path) -> Report {
    verify_dir_with(&RealDisk, dir, &mut |_| ())
}

/// Verifies a log directory or a bundle file, whichever is there.
pub fn verify_path(path: &Path, progress: &mut dyn FnMut(Progress)) -> Report {
    if path.is_dir() {
        return verify_dir_with(&RealDisk, path, progress);
    }
    match std::fs::read(path) {
        Ok(bytes) => verify_bundle(&bytes),
        Err(e) => Report::unreadable(format!("cannot read `{}`: {e}", path.display())),
    }
}
