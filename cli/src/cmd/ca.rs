//! `aegis ca`: what clients have to trust, how they come to trust it, and its rotation.

use std::{path::PathBuf, process::ExitCode};

use aegis_proxy::{CaStatus, RootStatus, inspect};
use serde_json::{Value, json};

use super::{Context, agent::seconds, items};
use crate::{
    client::As,
    config::Config,
    error::CliError,
    output::{BOLD, DIM, paint, text},
    state,
};

/// The gateway ends the TLS of the forward proxy's tunnels and of its TLS listener with certificates of
/// its own. Clients have to trust their root; nothing that it signs is good for a host without a route.
#[derive(Debug, clap::Subcommand)]
#[command(after_help = "\
Examples:
  aegis ca show > aegis.crt        the certificates to trust, PEM
  aegis ca install                 how to make systems and tools trust them
  aegis ca rotate                  a new root; both are trusted for 30 days, then the new one signs
  aegis ca rotate --finish         now, not in 30 days: when the old root may be in wrong hands")]
pub enum Command {
    /// Print the root certificates that clients have to trust
    Show,
    /// Print how to make this and other systems trust them
    Install,
    /// Make a new root that takes over after an overlap
    Rotate {
        /// How long the present root still signs, e.g. 12h or 30d; 0 for not at all
        #[arg(long, value_parser = overlap, default_value = "30d", conflicts_with = "finish")]
        overlap: i64,
        /// End the overlap of a rotation that is under way
        #[arg(long)]
        finish: bool,
    },
}

/// Runs the command.
pub async fn run(command: Command, context: &Context) -> Result<ExitCode, CliError> {
    match command {
        Command::Show => show(context).await?,
        Command::Install => install(context).await?,
        Command::Rotate { finish: true, .. } => {
            let answer = context.call(&As::Admin, "POST", "/v1/ca/finish", None).await?;
            context
                .out
                .show(&answer, || format!("{}The new root signs; the old one is trusted no more.", roots(&answer)))?;
        }
        Command::Rotate { overlap, finish: false } => {
            let body = json!({"overlap_seconds": overlap});
            let answer = context.call(&As::Admin, "POST", "/v1/ca/rotate", Some(&body)).await?;
            context.out.show(&answer, || rotated(&answer))?;
        }
    }
    Ok(ExitCode::SUCCESS)
}

/// What is published. Public, so no token is needed; only where nothing is published yet, the gateway's
/// state has to be made.
async fn bundle(context: &Context) -> Result<(PathBuf, String, Vec<RootStatus>), CliError> {
    let path = file(&context.config()?);
    let pem = match std::fs::read_to_string(&path) {
        Ok(pem) => pem,
        Err(_) => text(&context.call(&As::Admin, "GET", "/v1/ca/status", None).await?, "bundle"),
    };
    let found = inspect(pem.as_bytes()).map_err(|why| CliError::failed(format!("`{}`: {why}", path.display())))?;
    Ok((path, pem, found))
}

/// `<state>/ca/root.crt`.
pub fn file(config: &Config) -> PathBuf {
    config.in_state(state::CA).join(CaStatus::BUNDLE)
}

async fn show(context: &Context) -> Result<(), CliError> {
    let (path, pem, found) = bundle(context).await?;
    let listed: Vec<Value> = found.iter().map(|r| json!({"sha256": r.fingerprint, "subject": r.subject})).collect();
    // What people read goes to stderr: stdout is the file that a client takes.
    if !context.out.json {
        for root in &found {
            anstream::eprintln!("{}  sha256 {}", root.subject, paint(DIM, &root.fingerprint));
        }
    }
    context.out.show(&json!({"file": path, "roots": listed, "bundle": pem}), || pem.clone())
}

async fn install(context: &Context) -> Result<(), CliError> {
    let (path, _, _) = bundle(context).await?;
    let path = std::path::absolute(&path).unwrap_or(path);
    let shown = path.display().to_string();
    let steps = STEPS.map(|(title, how)| (title, how.replace("{ca}", &shown)));
    let document: Vec<Value> = steps.iter().map(|(title, how)| json!({"for": title, "how": how})).collect();
    context.out.show(&json!({"file": path, "steps": document}), || {
        let mut out = format!("Trust {shown}, in one of these ways.\n");
        for (title, how) in &steps {
            out.push_str(&format!("\n{}\n", paint(BOLD, title)));
            how.lines().for_each(|line| out.push_str(&format!("  {line}\n")));
        }
        out
    })
}

fn rotated(answer: &Value) -> String {
    let when = text(answer, "rotates_at");
    let next = if when.is_empty() {
        "The new root signs already.".to_owned()
    } else {
        format!(
            "Both are published. Install them at clients by {when}; then the second one signs, or at once with\n\
                 `aegis ca rotate --finish`."
        )
    };
    format!("{}{next}", roots(answer))
}

fn roots(answer: &Value) -> String {
    let line = |root: &Value| {
        format!("{}  sha256 {}  until {}\n", text(root, "subject"), text(root, "sha256"), text(root, "expires_at"))
    };
    items(answer, "roots").iter().map(line).collect()
}

fn overlap(text: &str) -> Result<i64, String> {
    if text == "0" { Ok(0) } else { seconds(text) }
}

/// What to do where, with `{ca}` for the file.
const STEPS: [(&str, &str); 9] = [
    (
        "One process (curl, Python requests and httpx, git, Node, AWS, Deno, Go on Linux)",
        "export CURL_CA_BUNDLE={ca} REQUESTS_CA_BUNDLE={ca} GIT_SSL_CAINFO={ca}\n\
         export NODE_EXTRA_CA_CERTS={ca} AWS_CA_BUNDLE={ca} DENO_CERT={ca} SSL_CERT_FILE={ca}\n\
         These replace the system's roots (NODE_EXTRA_CA_CERTS adds to them): use them for programs\n\
         that reach everything through the gateway.",
    ),
    ("Debian, Ubuntu, Alpine", "cp {ca} /usr/local/share/ca-certificates/aegis.crt && update-ca-certificates"),
    ("Fedora, RHEL, Amazon Linux", "cp {ca} /etc/pki/ca-trust/source/anchors/aegis.crt && update-ca-trust"),
    ("Arch", "trust anchor --store {ca}"),
    ("macOS", "security add-trusted-cert -d -r trustRoot -k /Library/Keychains/System.keychain {ca}"),
    ("Windows", "certutil -addstore -f ROOT {ca}"),
    ("Java", "keytool -importcert -noprompt -cacerts -storepass changeit -alias aegis -file {ca}"),
    ("Firefox", "Settings, Privacy & Security, Certificates, View Certificates, Authorities, Import: {ca}"),
    (
        "A container image",
        "COPY root.crt /usr/local/share/ca-certificates/aegis.crt\nRUN update-ca-certificates\n\
         The file is also at http://GATEWAY/v1/ca, for anyone.",
    ),
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_overlap_may_be_nothing() {
        assert_eq!(overlap("0"), Ok(0));
        assert_eq!(overlap("30d"), Ok(2_592_000));
        assert!(overlap("-1").is_err());
    }
}
