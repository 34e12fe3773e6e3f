//! `aegis why`: a decision explained to the one who wonders.

use std::process::ExitCode;

use serde_json::Value;

use super::{Context, items, segment};
use crate::{
    client::As,
    error::CliError,
    output::{BOLD, DIM, fields, paint, plain, printable, style_of, text},
};

/// Shows the action as mapped, the policies that decided, what would have to be true, and whom to ask.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  aegis why rcp_n1_42           the id is in the `Aegis-Receipt` header of every answer")]
pub struct Args {
    /// Receipt id (`rcp_…`)
    receipt: String,
}

/// Runs the command.
pub async fn run(args: Args, context: &Context) -> Result<ExitCode, CliError> {
    let path = format!("/v1/why/{}", segment(&args.receipt));
    let why = context.call(&As::Admin, "GET", &path, None).await?;
    context.out.show(&why, || explained(&why))?;
    Ok(ExitCode::SUCCESS)
}

fn explained(why: &Value) -> String {
    let none = Value::Null;
    let leaf = why.get("leaf").unwrap_or(&none);
    let decision = match text(leaf, "decision") {
        empty if empty.is_empty() => text(leaf, "type"),
        decision => decision,
    };
    let action = [text(leaf, "tool"), text(leaf, "action")].join(".");
    let mut out = format!("{}  {}\n", paint(BOLD, &text(why, "receipt_id")), paint(style_of(&decision), &decision));
    out.push_str(&fields([
        ("action", if action == "." { String::new() } else { action }),
        ("resource", text(leaf, "resource")),
        ("agent", text(leaf, "agent_id")),
        ("reason", text(leaf, "reason")),
        ("detail", text(leaf, "detail")),
        ("policies", text(leaf, "policies")),
        ("source trust", text(leaf, "source_trust")),
        ("class and risk", [text(leaf, "class"), text(leaf, "risk")].join(" ").trim().to_owned()),
        ("outcome", why.get("outcome").map(outcome).unwrap_or_default()),
    ]));
    if let Some(parameters) = why.get("action").and_then(|a| a.get("parameters")) {
        out.push_str(&section("Parameters", [printable(&format!("{parameters:#}"))]));
    }
    if let Some(explanation) = why.get("explanation").filter(|e| !e.is_null()) {
        let policies = items(explanation, "policies").iter().map(|p| {
            let place = paint(DIM, &format!("{}:{}", text(p, "file"), text(p, "line")));
            format!("{} {}: {}  {place}", text(p, "effect"), text(p, "id"), text(p, "description"))
        });
        out.push_str(&section("Policies", policies));
        out.push_str(&section(
            "What would have to be true",
            items(explanation, "would_have_to_be_true").iter().map(plain),
        ));
    }
    if why.get("same_snapshot") == Some(&Value::Bool(false)) {
        out.push_str("\nThe policies have changed since; the explanation is by those in force now.\n");
    }
    out.push_str(&section("Next", items(why, "next").iter().map(plain)));
    out
}

/// One line of an outcome leaf.
fn outcome(leaf: &Value) -> String {
    let status = text(leaf, "upstream_status");
    let state = text(leaf, "state");
    if status.is_empty() { state } else { format!("{state}, upstream said {status}") }
}

fn section(title: &str, lines: impl IntoIterator<Item = String>) -> String {
    let lines: Vec<String> = lines.into_iter().collect();
    if lines.is_empty() {
        return String::new();
    }
    let body: String = lines.iter().flat_map(|l| l.lines()).map(|l| format!("  {l}\n")).collect();
    format!("\n{}\n{body}", paint(BOLD, title))
}
