//! `aegis approver`: the people who say yes or no.

use std::process::ExitCode;

use serde_json::{Value, json};

use super::{Context, agent::seconds, all, items, segment};
use crate::{
    client::As,
    error::CliError,
    output::{BOLD, Table, fields, paint, text},
};

/// An approver settles approvals and nothing else; an admin can make approvers but not approve.
#[derive(Debug, clap::Subcommand)]
#[command(after_help = "\
Examples:
  aegis approver add \"Ana\" --group platform-leads --email ana@example.com
  aegis approver list
  aegis approver revoke per_01h…")]
pub enum Command {
    /// Add an approver; the token is printed once
    Add {
        /// For people
        name: String,
        /// Group that policies name in `@require_approval`; may be given several times
        #[arg(long = "group", required = true)]
        groups: Vec<String>,
        /// E-mail address; needed to approve critical actions
        #[arg(long)]
        email: Option<String>,
        /// Slack user id; their clicks on the buttons of a Slack message count
        #[arg(long, value_name = "USER")]
        slack: Option<String>,
        /// Life of the token, e.g. 30d [default: until revoked]
        #[arg(long, value_parser = seconds)]
        ttl: Option<i64>,
    },
    /// List approvers
    List,
    /// End an approver's access
    Revoke {
        /// Id (`per_…`)
        person: String,
    },
}

/// Runs the command.
pub async fn run(command: Command, context: &Context) -> Result<ExitCode, CliError> {
    match command {
        Command::Add { name, groups, email, slack, ttl } => {
            let mut body = json!({"name": name, "groups": groups, "email": email, "slack_user": slack});
            if let (Some(ttl), Value::Object(map)) = (ttl, &mut body) {
                map.insert("ttl_seconds".into(), json!(ttl));
            }
            let answer = context.call(&As::Admin, "POST", "/v1/approvers", Some(&body)).await?;
            context.out.show(&answer, || issued(&answer))?;
        }
        Command::List => {
            let answer =
                context.with_client(&As::Admin, async |client| all(client, "/v1/approvers", "approvers").await).await?;
            context.out.show(&answer, || table(&answer))?;
        }
        Command::Revoke { person } => {
            let path = format!("/v1/approvers/{}/revoke", segment(&person));
            context.call(&As::Admin, "POST", &path, None).await?;
            context
                .out
                .show(&json!({"person_id": person, "revoked": true}), || format!("approver `{person}` is revoked"))?;
        }
    }
    Ok(ExitCode::SUCCESS)
}

fn issued(answer: &Value) -> String {
    let mut shown = fields([("approver", text(answer, "person_id")), ("token", text(answer, "approver_token"))]);
    shown.push_str(&format!("{}\n", paint(BOLD, "The token is not shown again.")));
    shown
}

fn table(answer: &Value) -> String {
    let mut table = Table::new(&["id", "name", "groups", "state"]).coloured("state");
    for person in items(answer, "approvers") {
        let revoked = person.get("revoked").and_then(Value::as_bool).unwrap_or_default();
        let state = if revoked { "revoked" } else { "active" };
        table.row([text(person, "person_id"), text(person, "name"), text(person, "groups"), state.into()]);
    }
    table.render("no approvers yet; `aegis approver add NAME --group GROUP` adds one")
}
