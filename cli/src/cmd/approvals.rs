//! `aegis approvals`: what waits for a person.

use std::{path::PathBuf, process::ExitCode};

use serde_json::Value;

use super::{Context, items, segment};
use crate::{
    client::As,
    error::CliError,
    output::{Table, fields, text},
};

/// Approvers use their own token: `--token-file`, else `AEGIS_APPROVER_TOKEN`, else `<state>/approver.token`.
#[derive(Debug, clap::Args)]
pub struct Token {
    /// File with an approver's token
    #[arg(long, value_name = "FILE")]
    token_file: Option<PathBuf>,
}

impl Token {
    pub(super) fn who(self) -> As {
        As::Approver(self.token_file)
    }
}

/// A yes is for exactly one action, works once, and ends when the thing it was shown for changes.
#[derive(Debug, clap::Subcommand)]
#[command(after_help = "\
Examples:
  aegis approvals list --status pending
  aegis approvals show apv_01h…
  aegis approvals approve apv_01h…")]
pub enum Command {
    /// List approvals, newest first
    List {
        /// Only pending, approved, rejected, expired, consumed or cancelled ones
        #[arg(long)]
        status: Option<String>,
        #[command(flatten)]
        token: Token,
    },
    /// Show what exactly would be done
    Show {
        /// Id
        approval: String,
        #[command(flatten)]
        token: Token,
    },
    /// Say yes
    Approve {
        /// Id
        approval: String,
        #[command(flatten)]
        token: Token,
    },
    /// Say no
    Reject {
        /// Id
        approval: String,
        #[command(flatten)]
        token: Token,
    },
}

/// Runs the command.
pub async fn run(command: Command, context: &Context) -> Result<ExitCode, CliError> {
    match command {
        Command::List { status, token } => {
            let query = status.map(|s| format!("&status={}", segment(&s))).unwrap_or_default();
            let answer = context.call(&token.who(), "GET", &format!("/v1/approvals?limit=500{query}"), None).await?;
            context.out.show(&answer, || table(&answer))?;
        }
        Command::Show { approval, token } => {
            let path = format!("/v1/approvals/{}", segment(&approval));
            let answer = context.call(&token.who(), "GET", &path, None).await?;
            context.out.show(&answer, || shown(&answer))?;
        }
        Command::Approve { approval, token } => settle(context, &token.who(), &approval, "approve").await?,
        Command::Reject { approval, token } => settle(context, &token.who(), &approval, "reject").await?,
    }
    Ok(ExitCode::SUCCESS)
}

async fn settle(context: &Context, who: &As, approval: &str, verb: &str) -> Result<(), CliError> {
    let path = format!("/v1/approvals/{}/{verb}", segment(approval));
    let answer = context.call(who, "POST", &path, None).await?;
    context.out.show(&answer, || format!("approval `{approval}` is {}", text(&answer, "status")))
}

fn table(answer: &Value) -> String {
    let mut table =
        Table::new(&["id", "status", "action", "resource", "agent", "groups", "expires"]).coloured("status");
    for approval in items(answer, "approvals") {
        table.row(
            ["approval_id", "status", "action", "resource", "agent_id", "groups", "expires_at"]
                .map(|k| text(approval, k)),
        );
    }
    table.render("nothing waits for approval")
}

fn shown(answer: &Value) -> String {
    let keys = [
        "approval_id",
        "status",
        "action",
        "resource",
        "risk",
        "agent_id",
        "route",
        "source_trust",
        "groups",
        "quorum",
        "policies",
        "version",
        "created_at",
        "expires_at",
        "settled_by",
        "action_hash",
    ];
    let mut out = fields(keys.map(|key| (key, text(answer, key))));
    if let Some(payload) = answer.get("payload").filter(|p| !p.is_null()) {
        out.push_str(&format!("\n{}\n", crate::output::printable(&format!("{payload:#}"))));
    }
    out
}
