//! The binary as people and scripts use it, where no gateway is needed.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test may fail loudly, its helpers too"
)]

use std::{
    path::Path,
    process::{Command, Output},
};

use serde_json::Value;

/// Runs `aegis` in a folder, with nothing of ours in the environment.
fn aegis(folder: &Path, words: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_aegis"));
    for (name, _) in std::env::vars().filter(|(name, _)| name.starts_with("AEGIS_")) {
        command.env_remove(name);
    }
    command.current_dir(folder).env("NO_COLOR", "1").env("TMPDIR", folder).args(words).output().unwrap()
}

fn code(done: &Output) -> i32 {
    done.status.code().unwrap()
}

fn out(done: &Output) -> String {
    String::from_utf8(done.stdout.clone()).unwrap()
}

fn err(done: &Output) -> String {
    String::from_utf8(done.stderr.clone()).unwrap()
}

fn json(done: &Output) -> Value {
    serde_json::from_slice(&done.stdout).unwrap_or_else(|e| panic!("{e}\n{}\n{}", out(done), err(done)))
}

fn folder() -> tempfile::TempDir {
    tempfile::tempdir().unwrap()
}

#[test]
fn the_demo_holds_and_leaves_nothing_behind() {
    let folder = folder();
    let done = aegis(folder.path(), &["demo", "--json"]);
    assert_eq!(code(&done), 0, "{}{}", out(&done), err(&done));
    let told = json(&done);
    assert_eq!(told["ok"], true);
    let steps = told["steps"].as_array().unwrap();
    assert!(steps.len() >= 20 && steps.iter().all(|s| s["ok"] == true), "{told:#}");
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0);
}

#[test]
fn the_demo_fails_where_it_cannot_be_set_up() {
    let folder = folder();
    let missing = folder.path().join("missing");
    let done = Command::new(env!("CARGO_BIN_EXE_aegis")).env("TMPDIR", &missing).arg("demo").output().unwrap();
    assert_eq!(code(&done), 1);
    assert!(err(&done).starts_with("error: "), "{}", err(&done));
}

#[test]
fn every_shell_gets_a_script_with_every_command() {
    for shell in ["bash", "zsh", "fish", "powershell", "elvish"] {
        let done = aegis(folder().path(), &["completions", shell]);
        assert_eq!(code(&done), 0);
        for command in ["approvals", "credential", "quarantine", "doctor"] {
            assert!(out(&done).contains(command), "{shell} {command}");
        }
    }
}

#[test]
fn what_cannot_be_understood_is_exit_code_2() {
    let folder = folder();
    for words in [&["nonsense"][..], &["serve"], &["agent", "add"], &["serve", "--config", "missing.toml"]] {
        let done = aegis(folder.path(), words);
        assert_eq!(code(&done), 2, "{words:?}: {}", err(&done));
    }
    assert!(err(&aegis(folder.path(), &["agent", "list"])).contains("aegis dev"), "what to do is said");
}

#[test]
fn actions_are_found_shown_and_counted() {
    let folder = folder();
    let found = json(&aegis(folder.path(), &["actions", "search", "merge", "pull", "--json"]));
    assert_eq!(found["actions"][0]["name"], "github.merge_pull_request");
    let shown = json(&aegis(folder.path(), &["actions", "show", "github.merge_pull_request", "--json"]));
    assert_eq!(
        (shown["class"].as_str(), shown["resource"].as_str()),
        (Some("write"), Some("{owner}/{repo}#{pull_number}"))
    );
    let count = json(&aegis(folder.path(), &["actions", "count", "--json"]));
    assert_eq!(count["systems"]["github"]["total"], 1223);
    let missing = aegis(folder.path(), &["actions", "show", "github.merge_pull_reqest"]);
    assert_eq!(code(&missing), 1);
    assert!(err(&missing).contains("`github.merge_pull_request`"), "{}", err(&missing));
}

#[test]
fn routes_are_checked_with_every_error_at_once() {
    let folder = folder();
    let file = folder.path().join("routes.toml");
    std::fs::write(&file, "[[route]]\nname = \"a\"\nupstream = \"http://a.example\"\ncolour = \"red\"\n").unwrap();
    let done = aegis(folder.path(), &["routes", "check"]);
    assert_eq!(code(&done), 1);
    for place in ["routes.toml:3: ", "routes.toml:4: "] {
        assert!(out(&done).contains(place), "{}", out(&done));
    }
    std::fs::write(&file, "[[route]]\nname = \"a\"\nupstream = \"https://a.example\"\n").unwrap();
    let done = aegis(folder.path(), &["routes", "check", "--json"]);
    assert_eq!((code(&done), json(&done)["routes"][0]["upstream"].as_str()), (0, Some("https://a.example")));
    assert_eq!(code(&aegis(folder.path(), &["routes", "check", "nowhere.toml"])), 2);
}

#[test]
fn the_shipped_routes_and_policies_are_fine_without_any_setup() {
    let folder = folder();
    for words in [&["policy", "check"][..], &["policy", "test"]] {
        let done = aegis(folder.path(), words);
        assert_eq!(code(&done), 0, "{words:?}: {}{}", out(&done), err(&done));
    }
    let shipped = concat!(env!("CARGO_MANIFEST_DIR"), "/../routes.toml");
    let done = aegis(folder.path(), &["routes", "check", shipped, "--json"]);
    assert_eq!((code(&done), json(&done)["problems"].as_array().map(Vec::len)), (0, Some(0)), "{}", out(&done));
}

#[test]
fn a_misspelt_policy_and_a_wrong_case_are_found() {
    let folder = folder();
    let policies = folder.path().join("policies");
    std::fs::create_dir(&policies).unwrap();
    let policy =
        |action: &str| format!("@id(\"a\")\npermit (principal, action == Action::\"github.{action}\", resource);\n");
    std::fs::write(policies.join("a.cedar"), policy("get_repositry")).unwrap();
    let done = aegis(folder.path(), &["policy", "check"]);
    assert_eq!(code(&done), 1);
    assert!(out(&done).contains("policies/a.cedar:2: ") && out(&done).contains("get_repository"), "{}", out(&done));

    std::fs::write(policies.join("a.cedar"), policy("get_repository")).unwrap();
    let case = |expected: &str| {
        format!(
            r#"[{{"name": "it reads", "trust": "unknown", "expect": {{"decision": "{expected}"}},
                "call": {{"tool": "github", "action": "get_repository", "resource": "octo/hello",
                          "mutates_state": false, "parameters": {{}}}}}}]"#
        )
    };
    for (expected, exit) in [("allow", 0), ("deny", 1)] {
        std::fs::write(folder.path().join("case.json"), case(expected)).unwrap();
        let done = aegis(folder.path(), &["policy", "test", "case.json"]);
        assert_eq!(code(&done), exit, "{}{}", out(&done), err(&done));
    }
    std::fs::write(folder.path().join("case.json"), "[{]").unwrap();
    let done = aegis(folder.path(), &["policy", "test", "case.json"]);
    assert_eq!(code(&done), 2);
    assert!(err(&done).contains("case.json:1: "), "{}", err(&done));
}

#[test]
fn a_record_that_is_not_there_cannot_be_read() {
    let folder = folder();
    assert_eq!(code(&aegis(folder.path(), &["receipts", "verify", "nowhere"])), 2);
}
