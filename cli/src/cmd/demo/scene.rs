//! Everything the tour needs, in a folder that is removed with it.

use std::path::PathBuf;

use aegis_broker::{decision_log::LogFormat, secret::Secret};
use serde_json::{Value, json};
use tempfile::TempDir;

use super::{
    agent::{self, Answer},
    origin::Origin,
};
use crate::{
    client::Client,
    config::Config,
    error::CliError,
    gateway::{self, Gateway, Parts, RECEIPTS, Running},
    logging,
    output::text,
    reload::Files,
    shipped,
    state::{self, Held},
};

/// A gateway and an origin that run.
pub struct Scene {
    /// Plays GitHub.
    pub origin: Origin,
    gateway: Running,
    admin: Client,
    approver: Option<Client>,
    credential: Secret,
    agent_token: Secret,
    /// Every byte the agent was answered.
    transcript: Vec<u8>,
    folder: TempDir,
    config: Config,
}

/// What is left when both have stopped.
pub struct Stage {
    /// What it saw.
    pub origin: Origin,
    /// The real credential.
    pub credential: Secret,
    /// What the agent had instead.
    pub agent_token: Secret,
    /// Every byte the agent was answered.
    pub transcript: Vec<u8>,
    /// The gateway's files.
    pub folder: TempDir,
    /// The receipt log among them.
    pub receipts: PathBuf,
}

impl Scene {
    /// Starts origin and gateway, with the shipped policies.
    pub async fn set() -> Result<Self, CliError> {
        let credential = Secret::from(format!("ghp_{}", random_hex(18)?));
        let origin = Origin::start(&credential).await?;
        let folder = tempfile::Builder::new().prefix("aegis-demo-").tempdir().map_err(failed)?;
        let config = install(&folder, &origin)?;
        let held = Held::take(&config.state)?.ok_or_else(|| CliError::failed("the demo's folder is in use"))?;
        let sources = Files::of(&config).read().map_err(CliError::Problems)?;
        let parts = Parts { sources, decisions: logging::decisions(LogFormat::Off) };
        let gateway = Gateway::open(&config, held, parts).await?;
        gateway.ensure_admin(&config).await?;
        let gateway = gateway::serve(gateway, &config).await?;
        let admin = Client::at(gateway.admin, state::read_token(&config.in_state(state::ADMIN_TOKEN))?);
        let (agent_token, transcript) = (Secret::from(String::new()), Vec::new());
        Ok(Self { origin, gateway, admin, approver: None, credential, agent_token, transcript, folder, config })
    }

    /// Stores the real credential; whether the gateway took it.
    pub async fn store_credential(&self) -> Result<bool, CliError> {
        let value = String::from_utf8_lossy(self.credential.expose()).into_owned();
        let answer = self.admin.call("PUT", "/v1/credentials/github", Some(&json!({"value": value}))).await?;
        Ok(!text(&answer, "version").is_empty())
    }

    /// Enrols the agent and a person who approves; the agent's id.
    pub async fn enrol(&mut self) -> Result<String, CliError> {
        let body = json!({
            "agent_key": "demo-agent", "name": "Demo agent", "owner_team": "platform",
            "owner_email": "you@example.com", "environment": "demo", "risk_tier": "medium",
        });
        let enrolled = self.admin.call("POST", "/v1/agents/register", Some(&body)).await?;
        self.agent_token = Secret::from(text(&enrolled, "agent_token"));
        let body = json!({"name": "You", "groups": ["platform-leads"]});
        let person = self.admin.call("POST", "/v1/approvers", Some(&body)).await?;
        self.approver = Some(Client::at(self.gateway.admin, Secret::from(text(&person, "approver_token"))));
        Ok(text(&enrolled, "agent_id"))
    }

    /// One call of the agent's, through the gateway.
    pub async fn call(&mut self, method: &str, path: &str, body: Option<Value>) -> Result<Answer, CliError> {
        let token = String::from_utf8_lossy(self.agent_token.expose()).into_owned();
        let answer = agent::call(self.gateway.listen, &token, method, &format!("/github{path}"), body).await?;
        self.transcript.extend_from_slice(&answer.raw);
        Ok(answer)
    }

    /// The same with another token.
    pub async fn call_as(&mut self, token: &str, method: &str, path: &str) -> Result<Answer, CliError> {
        let answer = agent::call(self.gateway.listen, token, method, &format!("/github{path}"), None).await?;
        self.transcript.extend_from_slice(&answer.raw);
        Ok(answer)
    }

    /// The agent's try to approve by itself; the status it gets.
    pub async fn own_approval(&mut self, approval: &str) -> Result<u16, CliError> {
        let token = String::from_utf8_lossy(self.agent_token.expose()).into_owned();
        let path = format!("/v1/approvals/{approval}/approve");
        let answer = agent::call(self.gateway.admin, &token, "POST", &path, Some(json!({}))).await?;
        self.transcript.extend_from_slice(&answer.raw);
        Ok(answer.status)
    }

    /// The person's yes.
    pub async fn approve(&self, approval: &str) -> Result<Value, CliError> {
        let person = self.approver.as_ref().ok_or_else(|| CliError::failed("nobody is enrolled as an approver"))?;
        person.call("POST", &format!("/v1/approvals/{approval}/approve"), None).await
    }

    /// One call of the admin's.
    pub async fn admin(&self, method: &str, path: &str, body: Option<&Value>) -> Result<Value, CliError> {
        self.admin.call(method, path, body).await
    }

    /// What the origin insists on.
    pub fn expected_authorization(&self) -> String {
        format!("Bearer {}", String::from_utf8_lossy(self.credential.expose()))
    }

    /// Stops everything and leaves the evidence.
    pub async fn strike(self) -> Stage {
        let Self { origin, gateway, credential, agent_token, transcript, folder, config, .. } = self;
        gateway.stop().await;
        origin.stop();
        Stage { origin, credential, agent_token, transcript, folder, receipts: config.in_state(RECEIPTS) }
    }
}

/// An installation as an operator would write it, in front of the origin.
fn install(folder: &TempDir, origin: &Origin) -> Result<Config, CliError> {
    let at = folder.path();
    let policies = at.join("policies");
    std::fs::create_dir(&policies).and_then(|()| shipped::write_policies(&policies)).map_err(failed)?;
    let routes = format!(
        "[[route]]\nname = \"github\"\nconnector = \"github\"\nupstream = \"http://{}\"\n\
         danger_plaintext_upstream = true\nallow_internal = [\"127.0.0.1/32\"]\ncredential = \"github\"\n\
         default_trust = \"semi_trusted_customer\"\n\n[[credential]]\nname = \"github\"\n",
        origin.address
    );
    std::fs::write(at.join("routes.toml"), routes).map_err(failed)?;
    let text = "[server]\nlisten = \"127.0.0.1:0\"\nadmin_listen = \"127.0.0.1:0\"\n[log]\nformat = \"off\"\n";
    Config::parse(&at.join("aegis.toml"), text).map_err(CliError::Problems)
}

fn random_hex(bytes: usize) -> Result<String, CliError> {
    let mut buffer = vec![0; bytes];
    getrandom::fill(&mut buffer).map_err(failed)?;
    Ok(hex::encode(buffer))
}

fn failed(error: impl std::fmt::Display) -> CliError {
    CliError::failed(error.to_string())
}
