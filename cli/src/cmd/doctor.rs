//! `aegis doctor`: what is misconfigured, and how to fix it.

mod ca;
mod checks;

use std::process::ExitCode;

use serde::Serialize;
use serde_json::json;

use super::Context;
use crate::{
    error::CliError,
    output::{BAD, DIM, GOOD, WARN, paint},
};

/// Looks at files, permissions, names, ports and the record of an installation, running or not.
/// Changes nothing but what starting a gateway would.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  aegis doctor
  aegis doctor --config /etc/aegis/aegis.toml --json")]
pub struct Args {
    /// Do not resolve the upstreams' names
    #[arg(long)]
    offline: bool,
}

/// What one check found.
#[derive(Debug, Serialize)]
pub struct Finding {
    check: &'static str,
    status: Status,
    detail: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    fix: Option<String>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
enum Status {
    Ok,
    Warn,
    Fail,
}

impl Finding {
    /// Nothing to do.
    fn ok(check: &'static str, detail: impl Into<String>) -> Self {
        Self { check, status: Status::Ok, detail: detail.into(), fix: None }
    }

    /// Works, but perhaps not as somebody thinks.
    fn warn(check: &'static str, detail: impl Into<String>, fix: impl Into<String>) -> Self {
        Self { check, status: Status::Warn, detail: detail.into(), fix: Some(fix.into()) }
    }

    /// Does not work.
    fn fail(check: &'static str, detail: impl Into<String>, fix: impl Into<String>) -> Self {
        Self { check, status: Status::Fail, detail: detail.into(), fix: Some(fix.into()) }
    }
}

/// Runs all checks. 1 if any fails.
pub async fn run(args: Args, context: &Context) -> Result<ExitCode, CliError> {
    let findings = checks::all(context, args.offline).await;
    let failed = findings.iter().filter(|f| f.status == Status::Fail).count();
    context.out.show(&json!({"ok": failed == 0, "checks": findings}), || shown(&findings, failed))?;
    Ok(if failed == 0 { ExitCode::SUCCESS } else { ExitCode::from(1) })
}

fn shown(findings: &[Finding], failed: usize) -> String {
    let width = findings.iter().map(|f| f.check.len()).max().unwrap_or(0);
    let mut text = String::new();
    for finding in findings {
        let (style, mark) = match finding.status {
            Status::Ok => (GOOD, "ok  "),
            Status::Warn => (WARN, "warn"),
            Status::Fail => (BAD, "fail"),
        };
        text.push_str(&format!("{}  {:<width$}  {}\n", paint(style, mark), finding.check, finding.detail));
        if let Some(fix) = &finding.fix {
            text.push_str(&format!("      {:<width$}  {}\n", "", paint(DIM, &format!("-> {fix}"))));
        }
    }
    let warned = findings.iter().filter(|f| f.status == Status::Warn).count();
    let passed = findings.len() - failed - warned;
    text.push_str(&format!("{passed} ok, {warned} to look at, {failed} to fix\n"));
    text
}
