//! `aegis agent`: enrolment and containment.

use std::process::ExitCode;

use serde_json::{Map, Value, json};

use super::{Context, all, items, segment};
use crate::{
    client::{As, Client},
    error::CliError,
    output::{BOLD, Table, fields, paint, text},
};

/// Agents are named by their key or their id (`agt_…`).
#[derive(Debug, clap::Subcommand)]
#[command(after_help = "\
Examples:
  aegis agent add review-bot --team payments --email ana@example.com
  aegis agent add ci --ttl 8h --cidr 10.1.0.0/16
  aegis agent freeze review-bot      nothing goes through until it is unfrozen
  aegis agent revoke review-bot      for good")]
pub enum Command {
    /// Enrol an agent; its token is printed once
    Add(Box<Add>),
    /// List agents
    List,
    /// Issue a new token; earlier ones end after a short overlap
    Rotate {
        /// Key or id
        agent: String,
        /// Life of the new token, e.g. 8h or 30d
        #[arg(long, value_parser = seconds, default_value = "24h")]
        ttl: i64,
        /// How long earlier tokens still work, at most 1h
        #[arg(long, value_parser = seconds, default_value = "60s")]
        overlap: i64,
    },
    /// Refuse everything the agent does until it is unfrozen
    Freeze {
        /// Key or id
        agent: String,
    },
    /// Lift a freeze or quarantine
    Unfreeze {
        /// Key or id
        agent: String,
    },
    /// Refuse everything and mark the agent as suspicious
    Quarantine {
        /// Key or id
        agent: String,
    },
    /// End the agent's access for good
    Revoke {
        /// Key or id
        agent: String,
    },
}

/// What is known of a new agent.
#[derive(Debug, clap::Args)]
pub struct Add {
    /// Your own name for it, unique
    #[arg(required_unless_present = "named_key")]
    key: Option<String>,
    /// The same, for scripts that name everything
    #[arg(long = "key", id = "named_key", value_name = "KEY", conflicts_with = "key", hide = true)]
    named_key: Option<String>,
    /// For people [default: the key]
    #[arg(long)]
    name: Option<String>,
    /// Team that answers for it
    #[arg(long, default_value = "default")]
    team: String,
    /// Person that answers for it
    #[arg(long, alias = "owner", default_value = "owner@localhost")]
    email: String,
    /// Where it works
    #[arg(long, default_value = "development")]
    environment: String,
    /// low, medium, high or critical
    #[arg(long, default_value = "medium")]
    risk: String,
    /// What it is for
    #[arg(long)]
    purpose: Option<String>,
    /// Agent framework
    #[arg(long)]
    framework: Option<String>,
    /// Life of the token, e.g. 30m, 8h or 30d
    #[arg(long, value_parser = seconds, default_value = "24h")]
    ttl: i64,
    /// Addresses the token may come from; may be given several times
    #[arg(long, value_name = "CIDR")]
    cidr: Vec<String>,
}

/// Runs the command.
pub async fn run(command: Command, context: &Context) -> Result<ExitCode, CliError> {
    match command {
        Command::Add(add) => {
            let answer = context.call(&As::Admin, "POST", "/v1/agents/register", Some(&add.body())).await?;
            context.out.show(&answer, || issued(&answer))?;
        }
        Command::List => {
            let answer = list(context).await?;
            context.out.show(&answer, || table(&answer))?;
        }
        Command::Rotate { agent, ttl, overlap } => {
            let body = json!({"ttl_seconds": ttl, "overlap_seconds": overlap});
            let answer = step(context, &agent, "rotate", Some(&body)).await?;
            context.out.show(&answer, || issued(&answer))?;
        }
        Command::Freeze { agent } => transition(context, &agent, "freeze").await?,
        Command::Unfreeze { agent } => transition(context, &agent, "unfreeze").await?,
        Command::Quarantine { agent } => transition(context, &agent, "quarantine").await?,
        Command::Revoke { agent } => transition(context, &agent, "revoke").await?,
    }
    Ok(ExitCode::SUCCESS)
}

impl Add {
    fn body(&self) -> Value {
        let mut body = Map::new();
        let mut put = |key: &str, value: Value| body.insert(key.to_owned(), value);
        // The command line has exactly one of them.
        let key = self.key.as_ref().or(self.named_key.as_ref());
        put("agent_key", json!(key));
        put("name", json!(self.name.as_ref().or(key)));
        put("owner_team", json!(self.team));
        put("owner_email", json!(self.email));
        put("environment", json!(self.environment));
        put("risk_tier", json!(self.risk));
        put("ttl_seconds", json!(self.ttl));
        if let Some(purpose) = &self.purpose {
            put("purpose", json!(purpose));
        }
        if let Some(framework) = &self.framework {
            put("framework", json!(framework));
        }
        if !self.cidr.is_empty() {
            put("bind", json!({"cidr": self.cidr}));
        }
        Value::Object(body)
    }
}

async fn list(context: &Context) -> Result<Value, CliError> {
    context.with_client(&As::Admin, async |client| all(client, "/v1/agents", "agents").await).await
}

async fn transition(context: &Context, agent: &str, verb: &str) -> Result<(), CliError> {
    let answer = step(context, agent, verb, None).await?;
    context.out.show(&answer, || format!("agent `{agent}` is {}", text(&answer, "state")))
}

async fn step(context: &Context, agent: &str, verb: &str, body: Option<&Value>) -> Result<Value, CliError> {
    context
        .with_client(&As::Admin, async |client| {
            let id = id_of(client, agent).await?;
            client.call("POST", &format!("/v1/agents/{}/{verb}", segment(&id)), body).await
        })
        .await
}

/// An id is taken as it is, a key is looked up.
pub async fn id_of(client: &Client, agent: &str) -> Result<String, CliError> {
    if agent.starts_with("agt_") {
        return Ok(agent.to_owned());
    }
    let agents = all(client, "/v1/agents", "agents").await?;
    let found = items(&agents, "agents").iter().find(|a| text(a, "agent_key") == agent);
    found
        .map(|a| text(a, "agent_id"))
        .ok_or_else(|| CliError::failed(format!("there is no agent `{agent}`; `aegis agent list` shows all of them")))
}

fn issued(answer: &Value) -> String {
    let mut shown = fields([
        ("agent", text(answer, "agent_id")),
        ("token", text(answer, "agent_token")),
        ("expires", text(answer, "expires_at")),
    ]);
    shown.push_str(&format!("{}\n", paint(BOLD, "The token is not shown again.")));
    shown
}

fn table(answer: &Value) -> String {
    let mut table = Table::new(&["key", "id", "state", "team", "environment", "risk", "created"]).coloured("state");
    for agent in items(answer, "agents") {
        table.row(
            ["agent_key", "agent_id", "state", "owner_team", "environment", "risk_tier", "created_at"]
                .map(|k| text(agent, k)),
        );
    }
    table.render("no agents yet; `aegis agent add NAME` enrols one")
}

/// `90`, `90s`, `30m`, `8h` or `30d` in seconds.
pub fn seconds(text: &str) -> Result<i64, String> {
    let (number, unit) = match text.strip_suffix(['s', 'm', 'h', 'd']) {
        Some(number) => (number, text.chars().last()),
        None => (text, None),
    };
    let factor = match unit {
        Some('m') => 60,
        Some('h') => 3600,
        Some('d') => 86_400,
        _ => 1,
    };
    let number: i64 = number.parse().map_err(|_| format!("`{text}` is not a time such as `30m`, `8h` or `30d`"))?;
    number.checked_mul(factor).filter(|s| *s > 0).ok_or_else(|| format!("`{text}` is out of bounds"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_read_with_their_unit() {
        for (text, expected) in [("90", 90), ("90s", 90), ("30m", 1800), ("8h", 28_800), ("30d", 2_592_000)] {
            assert_eq!(seconds(text), Ok(expected));
        }
        for bad in ["", "h", "-1h", "0", "1w", "9223372036854775807d"] {
            assert!(seconds(bad).is_err(), "{bad}");
        }
    }
}
