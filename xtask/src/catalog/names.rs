//! Published action names: from the summary, once, and for good.

use std::collections::{BTreeMap, BTreeSet};

use super::{
    overrides::Overrides,
    spec::{Operation, Spec},
};

/// Names that were ever published, in the order they were.
pub struct Lock {
    lines: Vec<(String, String)>,
}

/// What every operation is called.
pub struct Names {
    /// Operation id to name.
    pub by_operation: BTreeMap<String, String>,
    /// New ones, sorted by operation id.
    pub added: Vec<(String, String)>,
    /// In the lock and no longer in the description.
    pub removed: Vec<String>,
}

impl Lock {
    /// `operation name` a line; `#` starts a comment.
    pub fn parse(text: &str) -> Result<Self, String> {
        let mut lines = Vec::new();
        for line in text.lines().filter(|l| !l.is_empty() && !l.starts_with('#')) {
            let (operation, name) = line.split_once(' ').ok_or_else(|| format!("bad line in the lock: `{line}`"))?;
            lines.push((operation.to_owned(), name.to_owned()));
        }
        Ok(Self { lines })
    }

    /// The file with the new names at its end.
    pub fn append(&self, added: &[(String, String)]) -> String {
        let mut text = String::from(LOCK_HEADER);
        for (operation, name) in self.lines.iter().chain(added) {
            text.push_str(&format!("{operation} {name}\n"));
        }
        text
    }
}

/// A name for every operation: the lock's, else the reviewed one, else the rule's.
pub fn assign(spec: &Spec, overrides: &Overrides, lock: &Lock) -> Result<Names, String> {
    let locked: BTreeMap<&str, &str> = lock.lines.iter().map(|(o, n)| (o.as_str(), n.as_str())).collect();
    let mut taken: BTreeSet<String> = lock.lines.iter().map(|(_, n)| n.clone()).collect();
    let mut plain: BTreeMap<String, usize> = BTreeMap::new();
    for operation in &spec.operations {
        *plain.entry(snake(&operation.summary)).or_default() += 1;
    }
    let mut by_operation = BTreeMap::new();
    let mut added = Vec::new();
    for operation in &spec.operations {
        if let Some(name) = locked.get(operation.id.as_str()) {
            by_operation.insert(operation.id.clone(), (*name).to_owned());
            continue;
        }
        let name = match overrides.name(&operation.id) {
            Some(name) => name.to_owned(),
            None => by_rule(operation, &plain),
        };
        if !taken.insert(name.clone()) {
            return Err(format!("`{name}` for `{}` is taken: add a name to the overrides", operation.id));
        }
        added.push((operation.id.clone(), name.clone()));
        by_operation.insert(operation.id.clone(), name);
    }
    let ids: BTreeSet<&str> = spec.operations.iter().map(|o| o.id.as_str()).collect();
    let removed = locked.keys().filter(|id| !ids.contains(*id)).map(|id| (*id).to_owned()).collect();
    Ok(Names { by_operation, added, removed })
}

/// The summary without articles; the category in front where several operations share it.
fn by_rule(operation: &Operation, plain: &BTreeMap<String, usize>) -> String {
    let name = snake(&operation.summary);
    match plain.get(&name) {
        Some(1) => name,
        _ => format!("{}_{name}", operation.category().replace('-', "_")),
    }
}

fn snake(summary: &str) -> String {
    let lower = summary.to_ascii_lowercase().replace("'s ", " ");
    let words = lower.split(|c: char| !c.is_ascii_alphanumeric()).filter(|w| !matches!(*w, "" | "a" | "an" | "the"));
    words.collect::<Vec<_>>().join("_")
}

const LOCK_HEADER: &str = "\
# Vendor operation id and published action name. Names never change and are never used again;
# `cargo xtask catalog github` only appends.
";

#[cfg(test)]
mod tests {
    use super::snake;

    #[test]
    fn names_are_summaries_without_articles() {
        assert_eq!(snake("Merge a pull request"), "merge_pull_request");
        assert_eq!(
            snake("List packages for the authenticated user's namespace"),
            "list_packages_for_authenticated_user_namespace"
        );
        assert_eq!(snake("Get a team (Legacy)"), "get_team_legacy");
    }
}
