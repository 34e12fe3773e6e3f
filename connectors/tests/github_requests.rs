//! What GitHub's grammar accepts, refuses and passes on.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test may fail loudly; clippy sees only `#[test]` functions as tests"
)]

mod support;

use aegis_connectors::{BodyNeed, Connector, Head, UpstreamBody, github::GithubConnector};
use http::{HeaderMap, Method};
use proptest::prelude::*;
use serde_json::{Value, json};
use support::{Request, five, header, sdk, sent};

fn github() -> GithubConnector {
    GithubConnector::new()
}

#[test]
fn a_merge_is_the_same_action_through_every_door() {
    let want = json!({"tool":"github","action":"merge_pull_request","resource":"octo/payments#482","mutates_state":true,
        "parameters":{"merge_method":"squash"}});
    for line in ["PUT /repos/octo/payments/pulls/482/merge", "PUT /api/v3/repos/octo/payments/pulls/482/merge"] {
        let mapped = Request::new(line).json(&json!({"merge_method":"squash"})).send(&github()).unwrap();
        assert_eq!(five(&mapped), want);
        assert_eq!(mapped.calls[0].action.hash(), sdk(&github(), &want).unwrap().action.hash());
        assert_eq!(mapped.upstream.path_and_query, "/repos/octo/payments/pulls/482/merge");
        assert_eq!(sent(&mapped), r#"{"merge_method":"squash"}"#);
        let ids: Vec<_> = mapped.calls[0].resource.iter().map(|r| format!("{}::{}", r.ty, r.id)).collect();
        assert_eq!(
            ids,
            [
                "GitHub::PullRequest::octo/payments#482",
                "GitHub::Repository::octo/payments",
                "GitHub::Organization::octo"
            ]
        );
    }
}

#[test]
fn names_are_lower_case_in_the_action_and_as_sent_upstream() {
    let mapped = Request::new("GET /repos/Octo/Payments/branches/Main").send(&github()).unwrap();
    assert_eq!(five(&mapped)["resource"], "octo/payments");
    assert_eq!(five(&mapped)["parameters"]["branch"], "Main", "branches differ by case");
    assert_eq!(mapped.calls[0].resource[1].id, "octo");
    assert_eq!(mapped.upstream.path_and_query, "/repos/Octo/Payments/branches/Main");
    let mapped = Request::new("PUT /repos/o/r/collaborators/Mallory").json(&json!({})).send(&github()).unwrap();
    assert_eq!(five(&mapped)["parameters"]["username"], "mallory");
    let refused = sdk(
        &github(),
        &json!({"tool":"github","action":"get_repository","resource":"Octo/payments","mutates_state":false,"parameters":{}}),
    );
    let refused = refused.unwrap_err();
    assert_eq!(refused.reason, "bad_resource");
    assert!(refused.detail.contains("`octo`") && refused.detail.contains("`{owner}/{repo}`"), "{}", refused.detail);
}

#[test]
fn hostile_paths_are_refused() {
    for path in [
        "/repos/o/r/%2e%2e/x",
        "/repos/o/r/../x",
        "/repos/o/./r",
        "/repos/o//r",
        "/repos/o/r/",
        "/repos//r",
        "/repos/o/r;a=b",
        "/repos/o/r%252e",
        "/repos/o/%c0%ae",
        "/repos/o/r\\x",
        "/repos/o/r%5Cx",
        "/repos/o%2Fr",
        "/repos/o/r%2F..%2Fx",
        "/%72epos/o/r",
        "/repos/o/%72",
        "/repos/o/r%00",
        "/repos/o/r%0d%0aX:%20y",
        "/repos/o/r%7f",
        "/repos/o/r%ff",
        "/repos/o/r%",
        "/repos/o/r.git",
        "/repos/o/r.GIT",
        "/repos/o/r.wiki",
        "/repos/-o/r",
        "/repos/o/r%20x",
        "/repos/o/r\u{e9}",
        "/repos/o/r/contents/../../../../user",
        "/repos/o/r/contents/a/%2e%2e/b",
        "/repos/o/r/contents/a%2F..%2Fb",
        "/repos/o/r/contents/a//b",
        "/repos/o/r/contents/a%2F%2Fb",
        "/repos/o/r/contents/a/",
        "/repos/o/r/contents/%2Fetc",
        "/repos/o/r/issues/01",
        "/repos/o/r/pulls/%31",
        "/users/..%2Fadmin",
        "/repos/o/r/branches/x%2Fprotection",
        "/repos/o/r/environments/a%2Fsecrets",
        "/orgs/o/teams/a%2Fb",
        "/gitignore/templates/a%2Fb",
        "/repos/o/r/actions/secrets/A%2FB",
    ] {
        let line = format!("GET {path}");
        let reason = Request::new(&line).refusal(&github());
        // A number in another spelling is no number, so there is no operation.
        let number = path.contains("/issues/");
        assert_eq!(reason, if number { "unknown_operation" } else { "bad_path" }, "{path}");
    }
    let long = format!("GET /repos/o/r/contents/{}", "a".repeat(9000));
    assert_eq!(Request::new(&long).refusal(&github()), "bad_path");
}

#[test]
fn what_is_not_in_the_catalog_is_unknown() {
    for line in [
        "GET /Repos/o/r",
        "GET /REPOS/o/r",
        "GET /repos/o/r/Issues",
        "GET /repos/o",
        "POST /repos/o/r",
        "OPTIONS /repos/o/r",
        "GET /repositories/1296269/issues",
        "POST /graphql",
        "POST /api/graphql",
        "GET /api/v3/api/v3/user",
        "GET /api/v4/user",
        "POST /orgs/o/teams/x",
        "POST /orgs/o/secret_scanning/enable_everything",
        "GET /repos/o/r/issues/x",
        "GET /repos/o/r/pulls/0x1",
        "DELETE /repos/o/r/branches/a/protection/nothing",
        "GET /internal",
        "PROPFIND /repos/o/r",
        "GET /user/keys/abc",
    ] {
        assert_eq!(Request::new(line).refusal(&github()), "unknown_operation", "{line}");
    }
    assert!(Request::new("POST /graphql").send(&github()).unwrap_err().detail.contains("GraphQL"));
}

#[test]
fn slashes_are_data_only_where_the_api_has_them() {
    for (line, name, value) in [
        ("GET /repos/o/r/contents/src%2Fmain.rs", "path", "src/main.rs"),
        ("GET /repos/o/r/contents/src/main.rs", "path", "src/main.rs"),
        ("GET /repos/o/r/git/ref/heads/feature/x", "ref", "heads/feature/x"),
        ("GET /repos/o/r/branches/feature%2Fx", "branch", "feature/x"),
        ("GET /repos/o/r/branches/feature/x/protection", "branch", "feature/x"),
        ("GET /repos/o/r/environments/blue%2Fgreen", "environment_name", "blue/green"),
        ("GET /repos/o/r/labels/area%2Fapi", "name", "area/api"),
        ("GET /orgs/o/packages/container/team%2Fimage", "package_name", "team/image"),
        ("GET /repos/o/r/compare/main...feature/x", "basehead", "main...feature/x"),
        ("GET /repos/o/r/labels/100%25%20sure", "name", "100% sure"),
        ("GET /users/dependabot%5Bbot%5D/repos?type=all", "type", "all"),
    ] {
        let mapped = Request::new(line).send(&github()).unwrap();
        assert_eq!(five(&mapped)["parameters"][name], value, "{line}");
        assert_eq!(mapped.upstream.path_and_query, line.trim_start_matches("GET "), "{line}");
    }
    for line in ["GET /repos/o/r/contents", "GET /repos/o/r/contents/"] {
        let mapped = Request::new(line).send(&github()).unwrap();
        assert_eq!(
            (five(&mapped)["parameters"]["path"].as_str(), mapped.calls[0].entry.name.as_str()),
            (Some(""), "get_file_contents")
        );
        assert_eq!(mapped.upstream.path_and_query, "/repos/o/r/contents");
    }
}

#[test]
fn literals_go_before_variables() {
    for (line, name) in [
        ("GET /", "github_api_root"),
        ("GET /api/v3/", "github_api_root"),
        ("GET /user/repos", "list_repositories_for_authenticated_user"),
        ("GET /user/583231", "get_user_using_their_id"),
        ("GET /repos/o/r/issues/comments", "list_issue_comments_for_repository"),
        ("GET /repos/o/r/releases/latest", "get_latest_release"),
        ("GET /repos/o/r/branches/main/protection/restrictions/users", "get_users_with_access_to_protected_branch"),
        ("GET /gists/public", "list_public_gists"),
        ("HEAD /repos/o/r", "get_repository"),
        ("POST /orgs/o/secret_scanning/enable_all", "enable_or_disable_security_feature_for_organization"),
    ] {
        let mapped = Request::new(line).send(&github()).unwrap();
        assert_eq!(mapped.calls[0].entry.name, name, "{line}");
    }
    assert_eq!(Request::new("HEAD /repos/o/r").send(&github()).unwrap().upstream.method, Method::HEAD);
}

#[test]
fn queries_are_typed_and_known() {
    let mapped =
        Request::new("GET /repos/o/r/issues?state=open&per_page=50&page=2&labels=a,b").send(&github()).unwrap();
    assert_eq!(five(&mapped)["parameters"], json!({"state":"open","per_page":50,"page":2,"labels":"a,b"}));
    assert_eq!(mapped.upstream.path_and_query, "/repos/o/r/issues?state=open&per_page=50&page=2&labels=a,b");
    let mapped = Request::new("GET /repos/o/r/branches?protected=true").send(&github()).unwrap();
    assert_eq!(five(&mapped)["parameters"], json!({"protected":true}));
    let mapped = Request::new("GET /search/issues?q=repo:o/r+is%3Aopen+%22a%26b%22").send(&github()).unwrap();
    assert_eq!(five(&mapped)["parameters"]["q"], "repo:o/r is:open \"a&b\"");
    assert_eq!(mapped.upstream.path_and_query, "/search/issues?q=repo:o/r%20is:open%20%22a%26b%22");
    let mapped = Request::new("GET /orgs/o/personal-access-tokens?owner[]=a&owner%5B%5D=b").send(&github()).unwrap();
    assert_eq!(five(&mapped)["parameters"]["owner"], json!(["a", "b"]));
    let mapped = Request::new("GET /advisories?cwes=79").send(&github()).unwrap();
    assert_eq!(five(&mapped)["parameters"]["cwes"], "79");
    let mapped = Request::new("GET /advisories?cwes[]=79").send(&github()).unwrap();
    assert_eq!(five(&mapped)["parameters"]["cwes"], json!(["79"]));

    for (line, reason) in [
        ("GET /repos/o/r/issues?state=open&state=closed", "bad_query"),
        ("GET /repos/o/r/issues?state[]=open", "bad_query"),
        ("GET /orgs/o/personal-access-tokens?owner[]=a&owner=b", "bad_query"),
        ("GET /repos/o/r/issues?per_page=x", "bad_query"),
        ("GET /repos/o/r/issues?per_page=", "bad_query"),
        ("GET /repos/o/r/issues?page=01", "bad_query"),
        ("GET /repos/o/r/branches?protected=True", "bad_query"),
        ("GET /repos/o/r/issues?evil=1", "unknown_parameter"),
        ("GET /repos/o/r/issues?access_token=x", "credential_in_query"),
        ("GET /repos/o/r/issues?client_secret=x", "credential_in_query"),
        ("POST /repos/o/r/issues?_method=DELETE", "method_override"),
        ("POST /repos/o/r/issues?title=x", "unknown_parameter"),
        ("DELETE /repos/o/r?page=1", "unknown_parameter"),
        ("GET /search/issues?q=%ff", "bad_query"),
        ("GET /search/issues", "missing_parameter"),
    ] {
        assert_eq!(Request::new(line).refusal(&github()), reason, "{line}");
    }
}

#[test]
fn only_listed_headers_go_upstream() {
    let mapped = Request::new("GET /repos/o/r")
        .header("accept", "application/vnd.github.raw")
        .header("user-agent", "PyGithub/Python")
        .header("x-github-api-version", "2022-11-28")
        .header("if-none-match", "\"abc\"")
        .header("traceparent", "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01")
        .header("accept-encoding", "gzip, br")
        .header("content-type", "application/json")
        .header("cookie", "user_session=1")
        .header("authorization", "token x")
        .header("x-github-otp", "123456")
        .header("x-forwarded-host", "evil")
        .header("time-zone", "Europe/Berlin")
        .send(&github())
        .unwrap();
    let mut names: Vec<_> = mapped.upstream.headers.iter().map(|(n, _)| n.as_str()).collect();
    names.sort_unstable();
    assert_eq!(
        names,
        [
            "accept",
            "accept-encoding",
            "if-none-match",
            "time-zone",
            "traceparent",
            "user-agent",
            "x-github-api-version"
        ]
    );
    assert_eq!(header(&mapped, "accept-encoding"), Some("identity"));
    assert_eq!(five(&mapped)["parameters"], json!({}), "a read is the same in any zone");

    let write = Request::new("PUT /repos/o/r/contents/a").header("time-zone", "Europe/Berlin");
    let mapped = write.json(&json!({"message":"m","content":"YQ=="})).send(&github()).unwrap();
    assert_eq!(five(&mapped)["parameters"]["header.time-zone"], "Europe/Berlin");

    for (name, value, reason) in [
        ("x-http-method-override", "DELETE", "method_override"),
        ("x-method-override", "DELETE", "method_override"),
        ("user-agent", "a\u{e9}", "bad_header"),
        ("if-match", "\"a\"\u{80}", "bad_header"),
    ] {
        assert_eq!(Request::new("GET /repos/o/r").header(name, value).refusal(&github()), reason, "{name}");
    }
    let twice = Request::new("GET /repos/o/r").header("user-agent", "a").header("user-agent", "b");
    assert_eq!(twice.refusal(&github()), "bad_header");
}

#[test]
fn bodies_are_one_json_object_of_the_right_types() {
    let create = || Request::new("POST /repos/o/r/issues");
    // Clients that leave the type out, or name GitHub's own.
    for media in [
        None,
        Some("application/json"),
        Some("application/json; charset=UTF-8"),
        Some("application/vnd.github+json"),
        Some("application/vnd.github.v3+json"),
    ] {
        let mut request = create().body(r#"{ "title" : "t", "body":null, "extra":{"b":1,"a":[2.0]} }"#);
        request.headers.extend(media.map(|m| ("content-type", m)));
        let mapped = request.send(&github()).unwrap();
        assert_eq!(five(&mapped)["parameters"], json!({"title":"t","body":null,"extra":{"a":[2.0],"b":1}}));
        assert_eq!(sent(&mapped), r#"{"body":null,"extra":{"a":[2],"b":1},"title":"t"}"#);
        assert_eq!(header(&mapped, "content-type"), Some("application/json"));
    }
    for (body, reason) in [
        (r#"{"title":"a","title":"b"}"#, "bad_body"),
        (r#"{"title":"a"} x"#, "bad_body"),
        (r#"["title"]"#, "bad_body"),
        (r#""title""#, "bad_body"),
        ("title=a", "bad_body"),
        ("\u{feff}{}", "bad_body"),
        (r#"{"title":"a","n":9007199254740993}"#, "bad_body"),
        (r#"{"title":"\ud800"}"#, "bad_body"),
        (r#"{"title":"a","_method":"DELETE"}"#, "method_override"),
        (r#"{"title":"a","body":7}"#, "bad_parameter"),
        (r#"{"title":"a","assignees":"me"}"#, "bad_parameter"),
        (r#"{"title":"a","assignees":["me",1]}"#, "bad_parameter"),
        (r#"{"body":"no title"}"#, "missing_parameter"),
        (r#"{"title":null}"#, "missing_parameter"),
        (r#"{"title":{"$bulk":{"sha256":"x","bytes":1}}}"#, "bad_action"),
        ("", "missing_parameter"),
    ] {
        let request = create().header("content-type", "application/json").body(body);
        assert_eq!(request.refusal(&github()), reason, "{body}");
    }
    let named = create().json(&json!({"title":"a","assignees":["me",1]})).send(&github()).unwrap_err();
    assert!(named.detail.contains("`assignees[1]`"), "{}", named.detail);
    for (name, value) in [
        ("content-type", "application/x-www-form-urlencoded"),
        ("content-type", "text/plain"),
        ("content-type", "multipart/form-data; boundary=x"),
        ("content-type", "application/json; charset=utf-7"),
        ("content-type", "application/json; charset=utf-16"),
    ] {
        assert_eq!(create().header(name, value).body("{}").refusal(&github()), "bad_media_type", "{value}");
    }
    assert_eq!(create().header("content-encoding", "gzip").body("{}").refusal(&github()), "bad_content_encoding");
    assert_eq!(Request::new("GET /repos/o/r").body("{}").refusal(&github()), "unexpected_body");
    assert_eq!(Request::new("HEAD /repos/o/r").body("{}").refusal(&github()), "unexpected_body");
    assert_eq!(Request::new("DELETE /repos/o/r").body("{}").refusal(&github()), "unexpected_body");
}

#[test]
fn a_bare_array_is_read_as_the_member_it_stands_for() {
    let array = Request::new("POST /repos/o/r/issues/5/labels").json(&json!(["bug"])).send(&github()).unwrap();
    let object =
        Request::new("POST /repos/o/r/issues/5/labels").json(&json!({"labels":["bug"]})).send(&github()).unwrap();
    assert_eq!(array.calls[0].action.hash(), object.calls[0].action.hash());
    assert_eq!(sent(&array), r#"{"labels":["bug"]}"#);
}

#[test]
fn a_body_member_with_the_name_of_a_path_variable_is_told_apart() {
    let line = "PATCH /repos/o/r/actions/variables/OLD";
    let mapped = Request::new(line).json(&json!({"name":"NEW","value":"v"})).send(&github()).unwrap();
    assert_eq!(five(&mapped)["parameters"], json!({"name":"OLD","body.name":"NEW","value":"v"}));
    assert_eq!(sent(&mapped), r#"{"name":"NEW","value":"v"}"#);
    let both = Request::new(line).json(&json!({"name":"NEW","body.name":"X"}));
    assert_eq!(both.refusal(&github()), "bad_body");
    // Not in the catalog, but Rails would merge it: it cannot pose as the path's.
    let mapped =
        Request::new("POST /repos/o/r/issues").json(&json!({"title":"t","owner":"evil"})).send(&github()).unwrap();
    assert_eq!(five(&mapped)["parameters"]["body.owner"], "evil");
    assert_eq!(five(&mapped)["resource"], "o/r");
}

#[test]
fn big_content_is_folded_in_the_action_and_whole_upstream() {
    let content = "QUJD".repeat(600_000);
    let request = Request::new("PUT /repos/o/r/contents/big.bin").json(&json!({"message":"m","content":content}));
    let mapped = request.send(&github()).unwrap();
    assert_eq!(five(&mapped)["parameters"]["content"]["$bulk"]["bytes"], content.len());
    let upstream: Value = serde_json::from_str(&sent(&mapped)).unwrap();
    assert_eq!(upstream["content"], content);
    let long: Vec<String> = (0..2000).map(|i| format!("{i:0>600}")).collect();
    let request = Request::new("POST /repos/o/r/issues").json(&json!({"title":"t","extra":long}));
    assert_eq!(request.refusal(&github()), "too_large");
}

#[test]
fn bounds_are_larger_where_files_are_written() {
    let need = |line: &str| {
        let (method, path) = line.split_once(' ').unwrap();
        let (method, headers) = (Method::from_bytes(method.as_bytes()).unwrap(), HeaderMap::new());
        let head = Head {
            method: &method,
            path,
            query: None,
            headers: &headers,
            content_length: None,
            has_body: true,
            websocket: false,
        };
        github().plan(&head).unwrap().body
    };
    assert_eq!(need("PUT /repos/o/r/contents/a"), BodyNeed::Buffer { max: 60 << 20 });
    assert_eq!(need("POST /repos/o/r/issues"), BodyNeed::Buffer { max: 10 << 20 });
    assert_eq!(need("POST /repos/o/r/releases/1/assets"), BodyNeed::Stream);
}

#[test]
fn an_asset_is_streamed_and_its_type_counts() {
    let mapped = Request::new("POST /repos/o/r/releases/1/assets?name=a.zip")
        .header("content-type", "application/zip")
        .body("PK")
        .send(&github())
        .unwrap();
    assert!(matches!(mapped.upstream.body, UpstreamBody::Stream));
    assert_eq!(
        five(&mapped)["parameters"],
        json!({"release_id":1,"name":"a.zip","content_type":"application/zip","body":{"$stream":{"bytes":2}}})
    );
}

#[test]
fn workflow_files_are_planted_not_written() {
    let write = |path: &str| {
        let line = format!("PUT /repos/o/r/contents/{path}");
        Request::new(&line).json(&json!({"message":"m","content":"YQ=="})).send(&github()).unwrap().calls[0]
            .class
            .as_str()
    };
    assert_eq!(write(".github/workflows/ci.yml"), "persist");
    assert_eq!(write(".GitHub%2FWorkflows%2Fci.yml"), "persist");
    assert_eq!(write("src/.github/workflows"), "write");
    let call = json!({"tool":"github","action":"delete_file","resource":"o/r","mutates_state":true,
        "parameters":{"path":".github/workflows/ci.yml","message":"m","sha":"x"}});
    assert_eq!(sdk(&github(), &call).unwrap().class.as_str(), "persist");
}

#[test]
fn an_sdk_call_must_match_the_catalog() {
    let good = json!({"tool":"github","action":"add_repository_collaborator","resource":"o/r","mutates_state":true,
        "parameters":{"username":"eve","permission":"push","my_own_argument":1}});
    let call = sdk(&github(), &good).unwrap();
    assert_eq!(call.action.parameters()["my_own_argument"], 1);
    let change = |pointer: &str, value: Value| {
        let mut call = good.clone();
        *call.pointer_mut(pointer).unwrap() = value;
        sdk(&github(), &call).map(|_| ()).map_err(|r| r.reason)
    };
    for (pointer, value, reason) in [
        ("/tool", json!("gitlab"), "unknown_action"),
        ("/action", json!("add_collaborator"), "unknown_action"),
        ("/action", json!("compare_commits"), "unknown_action"),
        ("/mutates_state", json!(false), "bad_mutates_state"),
        ("/resource", Value::Null, "bad_resource"),
        ("/resource", json!("o"), "bad_resource"),
        ("/resource", json!("o/r#1"), "bad_resource"),
        ("/resource", json!("o/r/x"), "bad_resource"),
        ("/resource", json!("O/r"), "bad_resource"),
        ("/resource", json!("o/r.git"), "bad_resource"),
        ("/parameters", json!({}), "missing_parameter"),
        ("/parameters", json!({"username":7}), "bad_parameter"),
        ("/parameters", json!({"username":"Eve"}), "bad_parameter"),
        ("/parameters", json!({"username":"../admin"}), "bad_parameter"),
        ("/parameters", json!({"username":"eve","owner":"evil"}), "bad_parameter"),
        ("/parameters", json!({"username":"eve","permission":["push"]}), "bad_parameter"),
        ("/parameters", json!({"username":"eve","x":{"$stream":{}}}), "bad_action"),
    ] {
        assert_eq!(change(pointer, value.clone()), Err(reason), "{pointer} = {value}");
    }
    let none = json!({"tool":"github","action":"get_me","resource":"o/r","mutates_state":false,"parameters":{}});
    assert_eq!(sdk(&github(), &none).map_err(|r| r.reason).unwrap_err(), "bad_resource");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(512))]

    #[test]
    fn no_path_query_or_body_panics(path in "\\PC{0,60}", query in proptest::option::of("\\PC{0,40}"), body in proptest::option::of(proptest::collection::vec(any::<u8>(), 0..60))) {
        let github = github();
        let target = match &query { Some(q) => format!("{}?{q}", path.replace('?', "")), None => path.replace('?', "") };
        for method in ["GET", "POST", "PUT", "PATCH", "DELETE"] {
            let request = Request { method, target: &target, body: body.clone(), ..Request::default() };
            let _ = request.send(&github);
        }
    }

    /// What is sent upstream reads as the action that was judged.
    #[test]
    fn the_upstream_request_is_the_action(owner in "[a-zA-Z0-9][a-zA-Z0-9-]{0,8}", repo in "[a-zA-Z0-9._-]{1,8}", tail in "[a-zA-Z0-9%/.;\\\\ _~+&=@:!-]{0,24}", encode in any::<bool>()) {
        let github = github();
        let tail = if encode { tail.replace('/', "%2F") } else { tail };
        for middle in ["contents", "branches", "git/ref", "labels", "commits", "environments", "compare"] {
            let target = format!("/repos/{owner}/{repo}/{middle}/{tail}");
            let Ok(mapped) = (Request { method: "GET", target: &target, ..Request::default() }).send(&github) else { continue };
            let again = Request { method: "GET", target: &mapped.upstream.path_and_query, ..Request::default() }.send(&github).unwrap();
            prop_assert_eq!(mapped.calls[0].action.hash(), again.calls[0].action.hash());
            prop_assert_eq!(&mapped.upstream.path_and_query, &again.upstream.path_and_query);
            prop_assert!(!mapped.upstream.path_and_query.contains("/../") && !mapped.upstream.path_and_query.contains("//"));
        }
    }
}
