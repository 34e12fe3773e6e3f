//! The gateway with everything on: receipts, decision log, credential with scrubbing, 100 policies.

use std::{
    fmt::Write as _,
    fs,
    io::Write as _,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use serde_json::Value;

use super::{
    Options,
    load::{self, Target, Tls},
    process::{Process, clean},
};

/// A gateway that answers, with its agents.
pub struct Gateway {
    /// The process.
    pub process: Process,
    /// An agent whose decisions are remembered.
    pub remembered: Target,
    /// An agent whose decisions depend on the time, so each is made anew.
    pub anew: Target,
    /// The API, as the first agent.
    pub api: Target,
    /// The forward proxy, as the first agent.
    pub tunnel: Target,
}

impl Gateway {
    /// Sets a new one up in `folder` and starts it on the given cores.
    pub fn start(options: &Options, cores: &str, origin: &str, folder: &Path) -> Result<Self, String> {
        let place = Place { binary: options.binaries().join("aegis"), folder: folder.to_owned() };
        if !place.binary.is_file() {
            return Err(format!("{} is missing; run without `--no-build`", place.binary.display()));
        }
        place.write_files(&options.root, origin)?;
        place.cli(&["credential", "add", "github"], Some(CREDENTIAL))?;
        let remembered = place.enrol("remembered", "platform")?;
        let anew = place.enrol("anew", ANEW_TEAM)?;
        // Beside the folder: inside, every decision line would be a change beside routes.toml.
        let stderr = folder.with_extension("stderr");
        let mut process = Process::start("aegis", cores, &place.command(&["serve", "--json"]), &stderr)?;
        let line = process.first_line().map_err(|e| format!("{e}; see {}", stderr.display()))?;
        let address = text_member(&line, "listen");
        let address = address.ok_or_else(|| format!("aegis printed `{line}` instead of its addresses"))?;
        let target = |base: &str, token: String| Target {
            address: address.clone(),
            base: base.into(),
            token: Some(token),
            tls: None,
        };
        let tls = Tls { ca: folder.join("state").join("ca").join("root.crt"), tunnel: true };
        Ok(Self {
            process,
            tunnel: Target { tls: Some(tls), ..target("", remembered.clone()) },
            api: target("", remembered.clone()),
            remembered: target("/github", remembered),
            anew: target("/github", anew),
        })
    }
}

struct Place {
    binary: PathBuf,
    folder: PathBuf,
}

impl Place {
    fn write_files(&self, root: &Path, origin: &str) -> Result<(), String> {
        let failed = |e: std::io::Error| format!("{}: {e}", self.folder.display());
        let policies = self.folder.join("policies");
        fs::create_dir_all(&policies).map_err(failed)?;
        let mut shipped = 0;
        for entry in fs::read_dir(root.join("policies")).map_err(failed)? {
            let path = entry.map_err(failed)?.path();
            if path.extension().is_some_and(|e| e == "cedar") {
                let text = fs::read_to_string(&path).map_err(failed)?;
                shipped += text.lines().filter(|l| l.starts_with("@id(")).count();
                fs::write(policies.join(path.file_name().unwrap_or_default()), text).map_err(failed)?;
            }
        }
        fs::write(policies.join("filler.cedar"), filler(POLICIES.saturating_sub(shipped))).map_err(failed)?;
        fs::write(self.folder.join("routes.toml"), routes(origin)).map_err(failed)?;
        fs::write(self.folder.join("aegis.toml"), CONFIG).map_err(failed)
    }

    fn command(&self, words: &[&str]) -> Command {
        let mut command = clean(&self.binary);
        command.args(words).arg("--config").arg(self.folder.join("aegis.toml")).current_dir(&self.folder);
        command
    }

    fn cli(&self, words: &[&str], input: Option<&str>) -> Result<String, String> {
        let failed = |e: std::io::Error| format!("aegis {}: {e}", words.join(" "));
        let mut command = self.command(words);
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().map_err(failed)?;
        if let Some(mut stdin) = child.stdin.take() {
            stdin.write_all(input.unwrap_or_default().as_bytes()).map_err(failed)?;
        }
        let output = child.wait_with_output().map_err(failed)?;
        if !output.status.success() {
            return Err(format!("aegis {}: {}", words.join(" "), String::from_utf8_lossy(&output.stderr).trim()));
        }
        Ok(String::from_utf8_lossy(&output.stdout).into_owned())
    }

    /// An agent's token.
    fn enrol(&self, key: &str, team: &str) -> Result<String, String> {
        let printed = self.cli(&["agent", "add", key, "--team", team, "--json"], None)?;
        let token = text_member(&printed, "agent_token");
        token.ok_or_else(|| "aegis agent add printed no token".to_owned())
    }
}

/// A member of a JSON object.
fn text_member(json: &str, name: &str) -> Option<String> {
    let value: Value = serde_json::from_str(json).ok()?;
    value.get(name)?.as_str().map(str::to_owned)
}

fn routes(origin: &str) -> String {
    let hosts: Vec<String> = (0..load::HOSTS).map(|n| format!("\"{}\"", load::host(n))).collect();
    let hosts = hosts.join(", ");
    format!(
        "[[route]]\nname = \"github\"\nconnector = \"github\"\nupstream = \"http://{origin}\"\n\
         danger_plaintext_upstream = true\nallow_internal = [\"127.0.0.1/32\"]\ncredential = \"github\"\n\
         hosts = [{hosts}]\ndefault_trust = \"semi_trusted_customer\"\n\n\
         [[credential]]\nname = \"github\"\nvault = \"embedded\"\nkind = \"bearer\"\n"
    )
}

/// `count` policies of a large house: one that makes a team's decisions depend on the time, and
/// others for agents, teams and repositories that do not take part.
fn filler(count: usize) -> String {
    let mut text = format!(
        "@id(\"bench-anew\")\nforbid (principal in Team::\"{ANEW_TEAM}\", action in Action::\"read\", resource)\n\
         when {{ context.time.hour > 23 }};\n"
    );
    for n in 1..count {
        let head = match n % 4 {
            0 => format!(
                "principal in Team::\"t{n}\", action in Action::\"write\", resource in GitHub::Repository::\"octo/other{n}\""
            ),
            1 => format!("principal == Agent::\"agt_{n}\", action in Action::\"delete\", resource"),
            2 => format!("principal in Team::\"t{n}\", action == Action::\"github.create_issue\", resource"),
            _ => format!(
                "principal in Team::\"t{n}\", action in Action::\"read\", resource in GitHub::Organization::\"octo\""
            ),
        };
        let _ = writeln!(text, "@id(\"bench-{n}\")\npermit ({head})\nwhen {{ context.source_trust != \"unknown\" }};");
    }
    text
}

/// Policies in force.
pub const POLICIES: usize = 100;
const ANEW_TEAM: &str = "anew";
const CREDENTIAL: &str = "ghp_benchmarkbenchmarkbenchmarkbench0000";
const CONFIG: &str = "[server]\nlisten = \"127.0.0.1:0\"\nadmin_listen = \"127.0.0.1:0\"\n[log]\nformat = \"json\"\n";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fillers_make_up_the_number_and_have_ids_of_their_own() {
        let text = filler(40);
        let ids: std::collections::BTreeSet<&str> = text.lines().filter(|l| l.starts_with("@id(")).collect();
        assert_eq!(ids.len(), 40);
    }
}
