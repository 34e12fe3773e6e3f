//! Access class and risk by rule; `github.overrides.toml` has the exceptions.

use super::spec::Operation;

/// The class that the method and path suggest.
pub fn class(operation: &Operation) -> &'static str {
    if operation.method == "GET" {
        return "read";
    }
    // A slash at the end lets every pattern name whole segments.
    let path = format!("{}/", operation.path);
    let rule = RULES.iter().find(|rule| rule.matches(&operation.method, &path));
    match (rule, operation.method.as_str()) {
        (Some(rule), _) => rule.class,
        (None, "DELETE") => "delete",
        (None, _) => "write",
    }
}

/// The risk that a class has unless reviewed otherwise.
pub fn risk(class: &str) -> &'static str {
    match class {
        "read" => "low",
        "write" => "medium",
        "mint" => "critical",
        _ => "high",
    }
}

struct Rule {
    class: &'static str,
    methods: &'static [&'static str],
    /// Any of these, anywhere in the path; `^` binds to its start, `$` to its end.
    paths: &'static [&'static str],
}

impl Rule {
    fn matches(&self, method: &str, path: &str) -> bool {
        let hit = |pattern: &&str| match (pattern.strip_prefix('^'), pattern.strip_suffix('$')) {
            (Some(p), Some(_)) => p.strip_suffix('$') == Some(path),
            (Some(p), None) => path.starts_with(p),
            (None, Some(p)) => path.ends_with(p),
            (None, None) => path.contains(pattern),
        };
        self.methods.contains(&method) && self.paths.iter().any(hit)
    }
}

const CHANGES: &[&str] = &["POST", "PUT", "PATCH", "DELETE"];
const PLANTS: &[&str] = &["POST", "PUT", "PATCH"];

/// The first that matches decides.
const RULES: &[Rule] = &[
    // The answer holds a credential.
    Rule {
        class: "mint",
        methods: &["POST", "PATCH"],
        paths: &[
            "/access_tokens/$",
            "/registration-token/$",
            "/remove-token/$",
            "/generate-jitconfig/$",
            "/conversions/$",
            "/token/scoped/$",
            "^/applications/{client_id}/token/$",
        ],
    },
    Rule {
        class: "delete",
        methods: &["DELETE"],
        paths: &["^/repos/{owner}/{repo}/$", "^/orgs/{org}/$", "/members/{username}/codespaces/"],
    },
    Rule { class: "write", methods: &["POST"], paths: &["/members/{username}/codespaces/"] },
    // Who may do what, and what guards it.
    Rule {
        class: "admin",
        methods: CHANGES,
        paths: &[
            "^/repos/{owner}/{repo}/$",
            "^/orgs/{org}/$",
            "^/enterprises/",
            "^/app/installations/",
            "^/user/installations/",
            "^/applications/",
            "^/credentials/",
            "^/installation/token/",
            "^/orgs/{org}/blocks/",
            "^/orgs/{org}/copilot/",
            "^/orgs/{org}/{security_product}/",
            "/transfer/$",
            "/branches/{branch}/protection/",
            "/rulesets/",
            "/collaborators/",
            "/outside_collaborators/",
            "/members/{username}/",
            "/memberships/",
            "/invitations/",
            "/repository_invitations/",
            "/organization-roles/",
            "/security-managers/",
            "/teams/",
            "/interaction-limits/",
            "/personal-access-tokens/",
            "/personal-access-token-requests/",
            "/code-security/",
            "/secret-scanning/",
            "/code-scanning/default-setup/",
            "/code-quality/setup/",
            "/automated-security-fixes/",
            "/vulnerability-alerts/",
            "/private-vulnerability-reporting/",
            "/immutable-releases/",
            "/oidc/",
            "/cache/retention-limit/",
            "/cache/storage-limit/",
            "/dependabot/repository-access/",
            "/settings/",
            "/codespaces/access/",
            "/properties/",
            "/issue-types/",
            "^/orgs/{org}/issue-fields/",
            "/check-suites/preferences/",
            "/runs/{run_id}/approve/",
            "/runs/{run_id}/pending_deployments/",
            "/runs/{run_id}/deployment_protection_rule/",
        ],
    },
    // Taking a guard away is not tidying up.
    Rule {
        class: "admin",
        methods: &["DELETE"],
        paths: &[
            "/deployment_protection_rules/",
            "/deployment-branch-policies/",
            "/actions/permissions/",
            "/runner-groups/",
        ],
    },
    // What acts later, or lets others in later.
    Rule {
        class: "persist",
        methods: PLANTS,
        paths: &[
            "/hooks/",
            "/hook/",
            "/keys/",
            "/gpg_keys/",
            "/ssh_signing_keys/",
            "/secrets/",
            "/variables/",
            "/private-registries/",
            "/dispatches/",
            "/workflows/",
            "/environments/",
            "/pages/",
            "/actions/permissions/",
            "/runner-groups/",
            "/hosted-runners/",
            "/runners/",
            "^/agents/",
        ],
    },
];
