//! `aegis grants`: a yes in advance, for some time.

use std::process::ExitCode;

use serde_json::{Value, json};

use super::{Context, agent::seconds, approvals::Token, items, segment};
use crate::{
    error::CliError,
    output::{Table, fields, text},
};

/// "This agent may do this action on this resource until 18:00": lifts gates that want one person of a group.
#[derive(Debug, clap::Subcommand)]
#[command(after_help = "\
Examples:
  aegis grants add agt_01h… github.merge_pull_request octo/payments#482 --for 2h --reason \"release 4.2\"
  aegis grants list
  aegis grants revoke grt_01h…")]
pub enum Command {
    /// Grant an action on a resource to an agent
    Add {
        /// Id of the agent
        agent: String,
        /// `tool.action`; `aegis actions search` finds names
        action: String,
        /// Resource, exactly; left out for actions without one
        resource: Option<String>,
        /// How long it holds, e.g. 2h; at most 30d
        #[arg(long = "for", value_name = "TIME", value_parser = seconds)]
        ttl: i64,
        /// Group to speak for, instead of all of your own; may be given several times
        #[arg(long = "group")]
        groups: Vec<String>,
        /// Why, for those who read the record
        #[arg(long)]
        reason: Option<String>,
        #[command(flatten)]
        token: Token,
    },
    /// List grants, newest first
    List {
        /// Only this agent's
        #[arg(long)]
        agent: Option<String>,
        #[command(flatten)]
        token: Token,
    },
    /// End a grant before its time
    Revoke {
        /// Id (`grt_…`)
        grant: String,
        #[command(flatten)]
        token: Token,
    },
}

/// Runs the command.
pub async fn run(command: Command, context: &Context) -> Result<ExitCode, CliError> {
    match command {
        Command::Add { agent, action, resource, ttl, groups, reason, token } => {
            let groups = (!groups.is_empty()).then_some(groups);
            let body = json!({"agent_id": agent, "action": action, "resource": resource, "groups": groups,
                "ttl_seconds": ttl, "reason": reason});
            let answer = context.call(&token.who(), "POST", "/v1/grants", Some(&body)).await?;
            context.out.show(&answer, || shown(&answer))?;
        }
        Command::List { agent, token } => {
            let query = agent.map(|a| format!("&agent_id={}", segment(&a))).unwrap_or_default();
            let answer = context.call(&token.who(), "GET", &format!("/v1/grants?limit=500{query}"), None).await?;
            context.out.show(&answer, || table(&answer))?;
        }
        Command::Revoke { grant, token } => {
            let path = format!("/v1/grants/{}/revoke", segment(&grant));
            context.call(&token.who(), "POST", &path, None).await?;
            context.out.show(&json!({"grant_id": grant, "revoked": true}), || format!("grant `{grant}` is revoked"))?;
        }
    }
    Ok(ExitCode::SUCCESS)
}

fn shown(answer: &Value) -> String {
    let keys = ["grant_id", "agent_id", "action", "resource", "groups", "person_id", "reason", "expires_at"];
    fields(keys.map(|key| (key, text(answer, key))))
}

fn table(answer: &Value) -> String {
    let mut table = Table::new(&["id", "state", "action", "resource", "agent", "groups", "expires"]).coloured("state");
    for grant in items(answer, "grants") {
        let holds = grant.get("holds").and_then(Value::as_bool).unwrap_or_default();
        let state = match (holds, grant.get("revoked_at").is_some()) {
            (true, _) => "active",
            (false, true) => "revoked",
            (false, false) => "expired",
        };
        let mut cells = vec![text(grant, "grant_id"), state.to_owned()];
        cells.extend(["action", "resource", "agent_id", "groups", "expires_at"].map(|k| text(grant, k)));
        table.row(cells);
    }
    table.render("no grants")
}
