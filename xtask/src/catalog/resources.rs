//! What an operation acts on, and what that belongs to.

/// Cedar type and id template, nearest first; empty where the resource is `null`.
pub fn entities(path: &str) -> &'static [(&'static str, &'static str)] {
    // Whole segments only: `/orgs/{org}` is not a prefix of `/orgs/{org}x`.
    let below = |prefix: &str| path.strip_prefix(prefix).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'));
    RULES.iter().find(|(prefix, _)| below(prefix)).map_or(&[], |(_, entities)| entities)
}

type Rule = (&'static str, &'static [(&'static str, &'static str)]);

const REPOSITORY: &[(&str, &str)] = &[("GitHub::Repository", "{owner}/{repo}"), ("GitHub::Organization", "{owner}")];
const ORGANIZATION: &[(&str, &str)] = &[("GitHub::Organization", "{org}")];
const USER: &[(&str, &str)] = &[("GitHub::User", "{username}")];
const INSTALLATION: &[(&str, &str)] = &[("GitHub::Installation", "{installation_id}")];

/// The first prefix that fits decides.
const RULES: &[Rule] = &[
    (
        "/repos/{owner}/{repo}/pulls/{pull_number}",
        &[
            ("GitHub::PullRequest", "{owner}/{repo}#{pull_number}"),
            ("GitHub::Repository", "{owner}/{repo}"),
            ("GitHub::Organization", "{owner}"),
        ],
    ),
    (
        "/repos/{owner}/{repo}/issues/{issue_number}",
        &[
            ("GitHub::Issue", "{owner}/{repo}#{issue_number}"),
            ("GitHub::Repository", "{owner}/{repo}"),
            ("GitHub::Organization", "{owner}"),
        ],
    ),
    ("/repos/{owner}/{repo}", REPOSITORY),
    ("/networks/{owner}/{repo}", REPOSITORY),
    ("/agents/repos/{owner}/{repo}", REPOSITORY),
    ("/user/starred/{owner}/{repo}", REPOSITORY),
    (
        "/repos/{template_owner}/{template_repo}",
        &[("GitHub::Repository", "{template_owner}/{template_repo}"), ("GitHub::Organization", "{template_owner}")],
    ),
    ("/orgs/{org}/teams/{team_slug}", &[("GitHub::Team", "{org}/{team_slug}"), ("GitHub::Organization", "{org}")]),
    (
        "/orgs/{org}/projectsV2/{project_number}",
        &[("GitHub::Project", "{org}/projects/{project_number}"), ("GitHub::Organization", "{org}")],
    ),
    ("/orgs/{org}", ORGANIZATION),
    ("/organizations/{org}", ORGANIZATION),
    ("/user/memberships/orgs/{org}", ORGANIZATION),
    ("/enterprises/{enterprise}", &[("GitHub::Enterprise", "{enterprise}")]),
    (
        "/users/{username}/projectsV2/{project_number}",
        &[("GitHub::Project", "{username}/projects/{project_number}"), ("GitHub::User", "{username}")],
    ),
    (
        "/users/{user_id}/projectsV2/{project_number}",
        &[("GitHub::Project", "{user_id}/projects/{project_number}"), ("GitHub::User", "{user_id}")],
    ),
    (
        "/user/{user_id}/projectsV2/{project_number}",
        &[("GitHub::Project", "{user_id}/projects/{project_number}"), ("GitHub::User", "{user_id}")],
    ),
    ("/users/{username}", USER),
    ("/user/following/{username}", USER),
    ("/user/blocks/{username}", USER),
    ("/gists/{gist_id}", &[("GitHub::Gist", "{gist_id}")]),
    ("/teams/{team_id}", &[("GitHub::Team", "{team_id}")]),
    ("/app/installations/{installation_id}", INSTALLATION),
    ("/user/installations/{installation_id}", INSTALLATION),
    ("/applications/{client_id}", &[("GitHub::OAuthApp", "{client_id}")]),
    ("/apps/{app_slug}", &[("GitHub::App", "{app_slug}")]),
    ("/user/codespaces/secrets", &[]),
    ("/user/codespaces/{codespace_name}", &[("GitHub::Codespace", "{codespace_name}")]),
];
