//! Resource templates, and the names that GitHub gives to what is acted on.

use std::{collections::BTreeMap, sync::Arc};

use crate::wire::path;

/// A template such as `{owner}/{repo}#{pull_number}`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Template(Vec<Part>);

#[derive(Debug, Clone, PartialEq, Eq)]
enum Part {
    Literal(String),
    Variable(Arc<str>),
}

/// Path variables by name.
pub(super) type Variables = BTreeMap<Arc<str>, String>;

impl Template {
    pub fn parse(text: &str) -> Self {
        let mut parts = Vec::new();
        for (at, piece) in text.split('{').enumerate() {
            let (variable, literal) = piece.split_once('}').unwrap_or(("", piece));
            if at > 0 {
                parts.push(Part::Variable(Arc::from(variable)));
            }
            if !literal.is_empty() {
                parts.push(Part::Literal(literal.to_owned()));
            }
        }
        Self(parts)
    }

    pub fn variables(&self) -> impl Iterator<Item = &str> {
        self.0.iter().filter_map(|p| match p {
            Part::Variable(name) => Some(&**name),
            Part::Literal(_) => None,
        })
    }

    /// The id, if all variables are known.
    pub fn fill(&self, variables: &Variables) -> Option<String> {
        let mut out = String::new();
        for part in &self.0 {
            match part {
                Part::Literal(text) => out.push_str(text),
                Part::Variable(name) => out.push_str(variables.get(name)?),
            }
        }
        Some(out)
    }

    /// The variables of an id. No name in a template can hold `/` or `#`, so there is one reading.
    pub fn read(&self, id: &str) -> Option<Variables> {
        let mut variables = Variables::new();
        let mut rest = id;
        for part in &self.0 {
            match part {
                Part::Literal(text) => rest = rest.strip_prefix(text.as_str())?,
                Part::Variable(name) => {
                    let end = rest.find(['/', '#']).unwrap_or(rest.len());
                    let (value, after) = rest.split_at_checked(end)?;
                    variables.insert(name.clone(), value.to_owned());
                    rest = after;
                }
            }
        }
        rest.is_empty().then_some(variables)
    }
}

/// Whether a value can be what the variable names.
pub(super) fn is_valid(variable: &str, value: &str) -> bool {
    match variable {
        "owner" | "org" | "template_owner" | "repo_owner" | "username" | "target_user" | "assignee" => is_login(value),
        "repo" | "template_repo" | "repo_name" => is_repository(value),
        "pull_number" | "issue_number" | "team_id" | "installation_id" | "project_number" => is_integer(value),
        "team_slug" | "enterprise-team" | "enterprise" | "gist_id" | "client_id" | "app_slug" | "codespace_name"
        | "user_id" => is_slug(value),
        _ => path::doubt(value).is_none(),
    }
}

/// Whether GitHub compares the variable without case; the action then has it in lower case,
/// so that no policy is passed by writing a name differently.
pub(super) fn is_caseless(variable: &str) -> bool {
    matches!(
        variable,
        "owner"
            | "org"
            | "template_owner"
            | "repo_owner"
            | "username"
            | "target_user"
            | "assignee"
            | "repo"
            | "template_repo"
            | "repo_name"
            | "team_slug"
            | "enterprise-team"
            | "enterprise"
            | "app_slug"
            | "gist_id"
            | "codespace_name"
            | "environment_name"
            | "secret_name"
            | "actor_identifier"
    )
}

/// As it stands in the action.
pub(super) fn canonical(variable: &str, value: &str) -> String {
    if is_caseless(variable) { value.to_lowercase() } else { value.to_owned() }
}

/// Digits without sign or leading zeros, within what JSON numbers hold exactly.
pub(super) fn is_integer(value: &str) -> bool {
    let spelled_once = value == "0" || (!value.starts_with('0') && value.bytes().all(|b| b.is_ascii_digit()));
    spelled_once && value.parse::<i64>().is_ok_and(|n| n <= aegis_action::MAX_SAFE_INTEGER)
}

/// A login of a user, organisation, managed user (`name_company`) or app (`name[bot]`).
fn is_login(value: &str) -> bool {
    let name = value.strip_suffix("[bot]").unwrap_or(value);
    (1..=100).contains(&name.len())
        && name.starts_with(|c: char| c.is_ascii_alphanumeric())
        && name.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_'))
}

/// GitHub lets no repository end in `.git` or `.wiki`, and parts of it read such a name without the ending.
fn is_repository(value: &str) -> bool {
    let lower = value.to_ascii_lowercase();
    is_slug(value) && !lower.ends_with(".git") && !lower.ends_with(".wiki")
}

fn is_slug(value: &str) -> bool {
    (1..=100).contains(&value.len())
        && value.bytes().any(|b| b != b'.')
        && value.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.'))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn templates_have_one_reading() {
        let template = Template::parse("{owner}/{repo}#{pull_number}");
        let variables = template.read("octo/payments#482").unwrap();
        assert_eq!(variables["repo"], "payments");
        assert_eq!(template.fill(&variables).unwrap(), "octo/payments#482");
        for id in ["octo/payments", "octo#482", "octo/a/b#1", "octo/a#1#2", "octo/a#1/", ""] {
            assert_eq!(template.read(id), None, "{id}");
        }
        let project = Template::parse("{org}/projects/{project_number}");
        assert_eq!(project.read("octo/projects/7").unwrap()["project_number"], "7");
        assert_eq!(project.read("octo/boards/7"), None);
    }

    #[test]
    fn names_are_github_s_own() {
        assert!(
            is_valid("owner", "octo-org") && is_valid("username", "dependabot[bot]") && is_valid("repo", ".github")
        );
        for (variable, value) in [
            ("owner", ""),
            ("owner", "-a"),
            ("owner", "a.b"),
            ("owner", "a/b"),
            ("owner", "é"),
            ("repo", "a b"),
            ("repo", "."),
            ("repo", "..."),
            ("repo", "payments.git"),
            ("repo", "payments.GIT"),
            ("repo", "a.wiki"),
            ("pull_number", "01"),
            ("pull_number", "+1"),
            ("pull_number", "-1"),
            ("pull_number", ""),
            ("pull_number", "9007199254740992"),
            ("team_slug", "a#b"),
            ("path", "../../octo/spare/contents/x"),
            ("path", "a/./b"),
            ("path", "a//b"),
            ("path", "a\\b"),
            ("path", "a%2e%2e/b"),
            ("path", "a\nb"),
            ("ref", "heads/.."),
        ] {
            assert!(!is_valid(variable, value), "{variable}={value}");
        }
    }
}
