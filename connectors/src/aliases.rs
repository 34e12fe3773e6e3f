//! What people call the arguments of their own functions, and what the catalog calls the same thing.
//!
//! An alias holds for an entry that knows the catalog's name and does not know the alias as a name of
//! its own. SDKs rename by it before they hash, so that `merge(repo, pr_number)` is the action that
//! the proxied call would be.

use std::collections::BTreeMap;

use crate::Entry;

impl Entry {
    /// The aliases that hold here, by alias: the name of a parameter or of a variable in the resource.
    pub fn argument_aliases(&self) -> BTreeMap<&str, &str> {
        let mut found: BTreeMap<&str, &str> =
            self.aliases.iter().map(|(alias, name)| (alias.as_str(), name.as_str())).collect();
        if self.tool.as_ref() == crate::github::SYSTEM {
            for (alias, name) in GITHUB {
                if self.knows(name) && !self.knows(alias) {
                    found.entry(alias).or_insert(name);
                }
            }
        }
        found
    }

    /// Whether a name is a parameter, or a variable of the resource template.
    pub fn knows(&self, name: &str) -> bool {
        self.parameters.contains_key(name) || self.resource_variables().any(|v| v == name)
    }

    /// The variables of the resource template, in its order.
    pub fn resource_variables(&self) -> impl Iterator<Item = &str> {
        let template = self.resource.as_deref().unwrap_or_default();
        template.split('{').skip(1).filter_map(|piece| piece.split_once('}').map(|(name, _)| name))
    }
}

/// Reviewed by hand: only words that mean the same thing wherever they are used. Of several names for
/// one alias, the first that the entry knows holds.
const GITHUB: &[(&str, &str)] = &[
    ("pr", "pull_number"),
    ("pr_number", "pull_number"),
    ("pull", "pull_number"),
    ("pull_request", "pull_number"),
    ("pull_request_number", "pull_number"),
    ("issue", "issue_number"),
    ("number", "pull_number"),
    ("number", "issue_number"),
    ("repository", "repo"),
    ("repo_full_name", "repo"),
    ("full_name", "repo"),
    ("repository_owner", "owner"),
    ("organization", "org"),
    ("organisation", "org"),
    ("user", "username"),
    ("login", "username"),
    ("team", "team_slug"),
    ("base_branch", "base"),
    ("head_branch", "head"),
    ("branch_name", "branch"),
    ("file_path", "path"),
    ("filename", "path"),
    ("comment", "comment_id"),
    ("release", "release_id"),
    ("tag", "tag_name"),
    ("workflow", "workflow_id"),
    ("run", "run_id"),
    ("job", "job_id"),
    ("gist", "gist_id"),
    ("milestone_id", "milestone_number"),
    ("environment", "environment_name"),
    ("secret", "secret_name"),
    ("deployment", "deployment_id"),
    ("hook", "hook_id"),
    ("method", "merge_method"),
];

#[cfg(test)]
mod tests {
    use crate::{Connector, github::GithubConnector};

    #[test]
    fn what_people_write_leads_to_the_catalogs_names() {
        let github = GithubConnector::new();
        let entries = github.catalog();
        let of = |name: &str| entries.iter().find(|e| e.name == name).unwrap();
        let merge = of("merge_pull_request").argument_aliases();
        assert_eq!(merge.get("pr_number"), Some(&"pull_number"));
        assert_eq!(merge.get("number"), Some(&"pull_number"));
        assert_eq!(merge.get("repository"), Some(&"repo"));
        assert_eq!(merge.get("method"), Some(&"merge_method"));
        assert_eq!(merge.get("issue"), None);
        assert_eq!(of("add_issue_comment").argument_aliases().get("number"), Some(&"issue_number"));
    }

    #[test]
    fn an_alias_never_hides_a_name_and_always_leads_to_one() {
        for entry in GithubConnector::new().catalog() {
            for (alias, name) in entry.argument_aliases() {
                assert!(entry.knows(name) && !entry.knows(alias), "{} {alias} {name}", entry.name);
            }
        }
    }
}
