//! The routes and policies that come with the binary.

use std::path::Path;

use aegis_broker::policy::PolicySource;
use include_dir::{Dir, include_dir};

/// The shipped `routes.toml`.
pub const ROUTES: &str = include_str!("../../routes.toml");

/// The shipped policies, in name order, as [`crate::reload::Files::read`] would give them.
pub fn policies() -> Vec<PolicySource> {
    let mut sources: Vec<PolicySource> = cedar_files()
        .map(|(name, text)| PolicySource { file: format!("policies/{name}"), text: text.to_owned() })
        .collect();
    sources.sort_by(|a, b| a.file.cmp(&b.file));
    sources
}

/// Writes the shipped policies and their cases below `folder`, which must exist.
pub fn write_policies(folder: &Path) -> std::io::Result<()> {
    POLICIES.extract(folder)
}

/// The shipped policy cases: name and JSON text.
pub fn cases() -> Vec<(String, String)> {
    let files = POLICIES.get_dir("cases").map(Dir::files).into_iter().flatten();
    let mut cases: Vec<(String, String)> = files
        .filter_map(|f| Some((format!("policies/{}", f.path().display()), f.contents_utf8()?.to_owned())))
        .collect();
    cases.sort();
    cases
}

fn cedar_files() -> impl Iterator<Item = (&'static str, &'static str)> {
    POLICIES.files().filter_map(|file| {
        let name = file.path().file_name()?.to_str()?;
        name.ends_with(".cedar").then_some((name, file.contents_utf8()?))
    })
}

static POLICIES: Dir<'static> = include_dir!("$CARGO_MANIFEST_DIR/../policies");
