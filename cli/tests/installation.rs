//! The binary on an installation of its own: commands with and without a gateway, and its life.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test may fail loudly, its helpers too"
)]

use std::{
    io::{BufRead as _, BufReader, Write as _},
    os::unix::fs::PermissionsExt as _,
    path::Path,
    process::{Child, Command, Output, Stdio},
    time::{Duration, Instant},
};

use serde_json::Value;

const ROUTES: &str = "[[route]]\nname = \"github\"\nconnector = \"github\"\nupstream = \"https://api.github.com\"\n\
                      credential = \"github\"\n[[credential]]\nname = \"github\"\n";

/// A folder with configuration, routes and the shipped policies.
struct Installation(tempfile::TempDir);

impl Installation {
    fn new() -> Self {
        let installation = Self(tempfile::tempdir().unwrap());
        let at = installation.0.path();
        let server = "[server]\nlisten = \"127.0.0.1:0\"\nadmin_listen = \"127.0.0.1:0\"\n[log]\nformat = \"json\"\n";
        std::fs::write(at.join("aegis.toml"), server).unwrap();
        std::fs::write(at.join("routes.toml"), ROUTES).unwrap();
        std::fs::create_dir(at.join("policies")).unwrap();
        let shipped = Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/../policies/default.cedar"));
        std::fs::copy(shipped, at.join("policies/default.cedar")).unwrap();
        installation
    }

    fn command(&self, words: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_aegis"));
        for (name, _) in std::env::vars().filter(|(name, _)| name.starts_with("AEGIS_")) {
            command.env_remove(name);
        }
        command.current_dir(self.0.path()).env("NO_COLOR", "1").args(words);
        command
    }

    fn run(&self, words: &[&str], stdin: &str) -> Output {
        let mut command = self.command(words);
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().unwrap();
        // A command that refuses before it reads closes the pipe.
        let _ = child.stdin.take().unwrap().write_all(stdin.as_bytes());
        child.wait_with_output().unwrap()
    }

    fn ok(&self, words: &[&str]) -> Value {
        let words: Vec<&str> = words.iter().copied().chain(["--json"]).collect();
        let done = self.run(&words, "");
        assert_eq!(done.status.code(), Some(0), "{words:?}: {}", String::from_utf8_lossy(&done.stderr));
        serde_json::from_slice(&done.stdout).unwrap()
    }

    fn serve(&self) -> Serving {
        let mut command = self.command(&["serve", "--json"]);
        let log = std::fs::File::create(self.0.path().join("stderr")).unwrap();
        let mut child = command.stdout(Stdio::piped()).stderr(log).spawn().unwrap();
        let mut line = String::new();
        BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
        let said: Value = serde_json::from_str(&line).unwrap_or_else(|_| panic!("{line}{}", self.stderr()));
        assert_eq!(said["event"], "listening");
        Serving(child)
    }

    fn stderr(&self) -> String {
        std::fs::read_to_string(self.0.path().join("stderr")).unwrap_or_default()
    }

    /// Until the log says so.
    fn wait_for(&self, words: &str) {
        let started = Instant::now();
        while !self.stderr().contains(words) {
            assert!(started.elapsed() < Duration::from_secs(20), "`{words}` is not in\n{}", self.stderr());
            std::thread::sleep(Duration::from_millis(20));
        }
    }
}

/// A gateway that is stopped with the test.
struct Serving(Child);

impl Serving {
    fn signal(&self, name: &str) {
        assert!(Command::new("kill").args([name, &self.0.id().to_string()]).status().unwrap().success());
    }

    fn stop(mut self) -> i32 {
        self.signal("-TERM");
        self.0.wait().unwrap().code().unwrap()
    }
}

impl Drop for Serving {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Everything an operator does to agents, the same with a gateway and without.
fn one_agents_life(installation: &Installation, key: &str) {
    let added = installation.ok(&["agent", "add", key, "--team", "payments"]);
    assert!(added["agent_token"].as_str().unwrap().starts_with("aegis_agt_"));
    for (verb, state) in
        [("freeze", "frozen"), ("unfreeze", "active"), ("quarantine", "quarantined"), ("revoke", "revoked")]
    {
        assert_eq!(installation.ok(&["agent", verb, key])["state"], state);
    }
    let again = installation.run(&["agent", "unfreeze", key], "");
    assert_eq!(again.status.code(), Some(1), "revocation is final");
    let listed = installation.ok(&["agent", "list"]);
    let found = listed["agents"].as_array().unwrap().iter().find(|a| a["agent_key"] == key).unwrap();
    assert_eq!((found["state"].as_str(), found["owner_team"].as_str()), (Some("revoked"), Some("payments")));
}

#[test]
fn commands_work_alike_with_a_gateway_and_without() {
    let installation = Installation::new();
    one_agents_life(&installation, "before");
    let serving = installation.serve();
    one_agents_life(&installation, "during");
    assert_eq!(serving.stop(), 0);
    one_agents_life(&installation, "after");
    assert_eq!(installation.ok(&["agent", "list"])["agents"].as_array().unwrap().len(), 3);
    let verified = installation.ok(&["receipts", "verify"]);
    assert_eq!(verified["verdict"], "verified");
}

#[test]
fn a_credential_goes_in_by_stdin_and_never_comes_out() {
    let installation = Installation::new();
    let secret = "ghp_installationtest0123456789";
    let run = |words: &[&str], stdin: &str| installation.run(words, stdin);
    let list = || installation.ok(&["credential", "list"]);
    assert_eq!(run(&["credential", "rotate", "github"], secret).status.code(), Some(1), "nothing to rotate yet");
    assert_eq!(run(&["credential", "add", "github"], &format!("{secret}\n")).status.code(), Some(0));
    let first = list();
    assert_eq!(first["credentials"][0]["stored"], true);
    assert!(!first.to_string().contains(secret));
    assert_eq!(run(&["credential", "add", "github"], secret).status.code(), Some(1), "there is one");
    assert_eq!(run(&["credential", "rotate", "github"], "ghp_other").status.code(), Some(0));
    assert_ne!(list()["credentials"][0]["version"], first["credentials"][0]["version"]);
    assert_eq!(run(&["credential", "remove", "github"], "").status.code(), Some(0));
    assert_eq!(list()["credentials"][0]["stored"], false);
    let bad = run(&["credential", "add", "github"], "ghp_with\ncontrol");
    assert_eq!(bad.status.code(), Some(1));
    assert!(!String::from_utf8_lossy(&bad.stderr).contains("ghp_with"));
    assert_eq!(run(&["credential", "add", "github"], "").status.code(), Some(2), "an empty value is a mistake");
}

#[test]
fn the_state_folder_is_the_owners_alone() {
    let installation = Installation::new();
    installation.ok(&["agent", "list"]);
    let mode = |name: &str| {
        let path = installation.0.path().join("state").join(name);
        std::fs::metadata(&path).unwrap_or_else(|e| panic!("{name}: {e}")).permissions().mode() & 0o777
    };
    assert_eq!(mode(""), 0o700);
    for name in ["master.key", "admin.token", "vault", "aegis.db"] {
        assert_eq!(mode(name), 0o600, "{name}");
    }
}

#[test]
fn one_gateway_to_a_folder() {
    let installation = Installation::new();
    let serving = installation.serve();
    let second = installation.run(&["serve"], "");
    assert_eq!(second.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&second.stderr).contains("another gateway"));
    assert_eq!(serving.stop(), 0);
}

#[test]
fn a_killed_gateway_leaves_nothing_that_confuses_the_next_command() {
    let installation = Installation::new();
    drop(installation.serve());
    assert!(installation.0.path().join("state/admin.addr").exists(), "SIGKILL gave no chance to remove it");
    installation.ok(&["agent", "list"]);
    assert!(!installation.0.path().join("state/admin.addr").exists());
    assert_eq!(installation.serve().stop(), 0);
}

#[test]
fn a_bad_file_changes_nothing_and_is_named_with_its_lines() {
    let installation = Installation::new();
    let serving = installation.serve();
    let routes = installation.0.path().join("routes.toml");
    std::fs::write(&routes, format!("{ROUTES}colour = \"red\"\nsize = 3\n")).unwrap();
    installation.wait_for("reload_refused");
    let said = installation.stderr();
    assert!(said.contains("routes.toml:8: ") && said.contains("routes.toml:9: "), "{said}");
    assert_eq!(said.matches("reload_refused").count(), 1, "one bad file is one line");
    std::fs::write(&routes, ROUTES.replace("name = \"github\"\nconnector", "name = \"code\"\nconnector")).unwrap();
    installation.wait_for("configuration reloaded");
    std::fs::write(&routes, ROUTES).unwrap();
    serving.signal("-HUP");
    let leaves = |of: &Installation| {
        of.ok(&["receipts", "export", "0..100"])["leaves"].to_string().matches("snapshot_loaded").count()
    };
    let started = Instant::now();
    while leaves(&installation) < 3 {
        assert!(started.elapsed() < Duration::from_secs(20), "{}", installation.stderr());
        std::thread::sleep(Duration::from_millis(20));
    }
    assert_eq!(serving.stop(), 0);
}

#[test]
fn a_lost_admin_token_is_replaced_and_the_old_one_ends() {
    let installation = Installation::new();
    installation.ok(&["agent", "list"]);
    let token = installation.0.path().join("state/admin.token");
    let old = std::fs::read_to_string(&token).unwrap();
    installation.ok(&["admin", "reset"]);
    assert_ne!(std::fs::read_to_string(&token).unwrap(), old);
    installation.ok(&["agent", "list"]);
    std::fs::write(&token, old).unwrap();
    assert_eq!(installation.run(&["agent", "list"], "").status.code(), Some(1));
}

#[test]
fn doctor_says_what_is_wrong_and_how_to_fix_it() {
    let installation = Installation::new();
    installation.ok(&["agent", "list"]);
    let doctor = |installation: &Installation| {
        let done = installation.run(&["doctor", "--offline", "--json"], "");
        (done.status.code().unwrap(), serde_json::from_slice::<Value>(&done.stdout).unwrap().to_string())
    };
    let (code, said) = doctor(&installation);
    assert!(code == 1 && said.contains("aegis credential add github"), "{said}");
    assert_eq!(installation.run(&["credential", "add", "github"], "ghp_x").status.code(), Some(0));
    let (code, said) = doctor(&installation);
    assert_eq!(code, 0, "{said}");
    let key = installation.0.path().join("state/admin.token");
    std::fs::set_permissions(&key, std::fs::Permissions::from_mode(0o644)).unwrap();
    let (code, said) = doctor(&installation);
    assert!(code == 1 && said.contains("chmod 600") && said.contains("admin.token"), "{said}");
}

#[test]
fn an_exported_bundle_verifies_and_a_changed_one_does_not() {
    let installation = Installation::new();
    one_agents_life(&installation, "a");
    let bundle = installation.0.path().join("bundle.json");
    assert_eq!(installation.run(&["receipts", "export", "0..4", "--output", "bundle.json"], "").status.code(), Some(0));
    assert_eq!(installation.run(&["receipts", "verify", "bundle.json"], "").status.code(), Some(0));
    let text = std::fs::read_to_string(&bundle).unwrap();
    std::fs::write(&bundle, text.replacen("agent_registered", "agent_unfrozen__", 1)).unwrap();
    assert_eq!(installation.run(&["receipts", "verify", "bundle.json"], "").status.code(), Some(1));
}
