//! `aegis receipts`: the record, for people, for auditors, and for other machines.

use std::{
    io::{IsTerminal as _, Write as _},
    path::{Path, PathBuf},
    process::ExitCode,
    time::Duration,
};

use aegis_action::Digest;
use aegis_receipts::{BUNDLE_FORMAT, Bundle, BundleLeaf, parse_receipt_id, verify::verify_path};
use serde_json::Value;

use super::{Context, items, segment};
use crate::{
    client::{As, Client},
    error::CliError,
    gateway::RECEIPTS,
    output::{DIM, paint, printable, style_of, text},
};

/// Every decision is a leaf of a hash-chained log, written before anything is sent.
#[derive(Debug, clap::Subcommand)]
#[command(after_help = "\
Examples:
  aegis receipts tail -f
  aegis receipts verify
  aegis receipts export rcp_n1_42 > receipt.json
  aegis receipts export 0..100 --output first.json
  aegis receipts verify receipt.json")]
pub enum Command {
    /// Show the newest leaves
    Tail {
        /// Go on as new ones come
        #[arg(short, long)]
        follow: bool,
        /// How many to begin with
        #[arg(short = 'n', long, default_value_t = 20)]
        lines: u32,
    },
    /// Check a log folder or an exported bundle, without a gateway
    Verify {
        /// Folder or bundle [default: the log of this installation]
        path: Option<PathBuf>,
    },
    /// Write a bundle that others can verify
    Export {
        /// A receipt (`rcp_…`), with its outcome and what opens its commitments; or a range `FROM..TO` of
        /// sequence numbers, `TO` not included
        what: String,
        /// File to write [default: standard output]
        #[arg(short, long, value_name = "FILE")]
        output: Option<PathBuf>,
    },
}

/// Runs the command.
pub async fn run(command: Command, context: &Context) -> Result<ExitCode, CliError> {
    match command {
        Command::Tail { follow, lines } => {
            context.with_client(&As::Admin, async |client| tail(client, follow, lines, context).await).await?;
            Ok(ExitCode::SUCCESS)
        }
        Command::Verify { path } => verify(path, context),
        Command::Export { what, output } => export(&what, output.as_deref(), context).await,
    }
}

async fn tail(client: &Client, follow: bool, lines: u32, context: &Context) -> Result<(), CliError> {
    let mut page = client.call("GET", &format!("/v1/receipts?limit={}", lines.clamp(1, PAGE)), None).await?;
    loop {
        for leaf in items(&page, "receipts") {
            context.out.show(leaf, || line(leaf))?;
        }
        let (next, head) = (number(&page, "next"), number(&page, "head"));
        if next >= head {
            if !follow {
                return Ok(());
            }
            tokio::select! {
                _ = tokio::signal::ctrl_c() => return Ok(()),
                () = tokio::time::sleep(POLL) => {}
            }
        }
        page = client.call("GET", &format!("/v1/receipts?from_seq={next}&limit={PAGE}"), None).await?;
    }
}

fn verify(path: Option<PathBuf>, context: &Context) -> Result<ExitCode, CliError> {
    let path = match path {
        Some(path) => path,
        None => context.config()?.in_state(RECEIPTS),
    };
    let shows = std::io::stderr().is_terminal() && !context.out.json;
    let mut drawn = false;
    let report = verify_path(&path, &mut |progress| {
        if shows && progress.total_bytes > LARGE {
            let percent = progress.bytes * 100 / progress.total_bytes.max(1);
            eprint!("\r{} leaves, {percent} %", progress.leaves);
            drawn = true;
        }
    });
    if drawn {
        eprint!("\r\u{1b}[K");
    }
    context.out.show(&report, || printable(&report.to_string()))?;
    Ok(ExitCode::from(report.verdict.exit_code()))
}

async fn export(what: &str, output: Option<&Path>, context: &Context) -> Result<ExitCode, CliError> {
    let bundle = match (parse_receipt_id(what), range(what)) {
        (Some(_), _) => {
            context.call(&As::Admin, "GET", &format!("/v1/receipts/{}/bundle", segment(what)), None).await?
        }
        (None, Some((from, to))) => {
            let bundle = context.with_client(&As::Admin, async |client| leaves(client, from, to).await).await?;
            serde_json::to_value(bundle).map_err(|e| CliError::failed(e.to_string()))?
        }
        (None, None) => {
            return Err(CliError::usage(format!(
                "`{what}` is neither a receipt such as `rcp_n1_42` nor a range such as `0..100`"
            )));
        }
    };
    let mut text = bundle.to_string();
    text.push('\n');
    let written = match output {
        Some(path) => std::fs::write(path, text),
        None => std::io::stdout().write_all(text.as_bytes()),
    };
    written.map_err(|e| CliError::failed(format!("the bundle cannot be written: {e}")))?;
    if let Some(path) = output {
        anstream::eprintln!("wrote {}; `aegis receipts verify {0}` checks it", path.display());
    }
    Ok(ExitCode::SUCCESS)
}

/// Leaves `from` up to but without `to`, or to the end of the log.
async fn leaves(client: &Client, from: u64, to: u64) -> Result<Bundle, CliError> {
    let mut bundle = Bundle { format: BUNDLE_FORMAT.into(), node: String::new(), leaves: Vec::new() };
    let mut next = from;
    while next < to {
        let page = client.call("GET", &format!("/v1/receipts?from_seq={next}&limit={PAGE}"), None).await?;
        bundle.node = text(&page, "node");
        let read = items(&page, "receipts");
        for leaf in read.iter().filter(|leaf| number(leaf, "seq") < to) {
            let receipt_hash = Digest::from_hex(&text(leaf, "receipt_hash"))
                .ok_or_else(|| CliError::failed("the gateway's answer has no receipt hash"))?;
            let seq = number(leaf, "seq");
            bundle.leaves.push(BundleLeaf { seq, receipt_hash, leaf: text(leaf, "leaf_text"), opening: None });
        }
        next = number(&page, "next");
        if read.is_empty() || next >= number(&page, "head") {
            break;
        }
    }
    if bundle.leaves.is_empty() {
        return Err(CliError::failed(format!("there are no leaves in {from}..{to}")));
    }
    Ok(bundle)
}

/// `FROM..TO`, `FROM..` or `..TO`.
fn range(text: &str) -> Option<(u64, u64)> {
    let (from, to) = text.split_once("..")?;
    let bound = |text: &str, default| if text.is_empty() { Some(default) } else { text.parse().ok() };
    bound(from, 0).zip(bound(to, u64::MAX)).filter(|(from, to)| from < to)
}

/// One leaf on one line.
fn line(receipt: &Value) -> String {
    let none = Value::Null;
    let leaf = receipt.get("leaf").unwrap_or(&none);
    let text = |value: &Value, key: &str| printable(&text(value, key));
    let time = leaf.get("ts").and_then(Value::as_i64).and_then(|ms| jiff::Timestamp::from_millisecond(ms).ok());
    let time = time.map(|t| t.strftime("%Y-%m-%d %H:%M:%S").to_string()).unwrap_or_default();
    let kind = text(leaf, "type");
    let kind = kind.split('.').next().unwrap_or_default();
    let what = match kind {
        "intent" => {
            let action = format!("{}.{}", text(leaf, "tool"), text(leaf, "action"));
            format!("{action} {} {}", text(leaf, "resource"), paint(DIM, &text(leaf, "agent_id")))
        }
        "refused" => format!("{} {}", text(leaf, "reason"), text(leaf, "route")),
        "event" => text(leaf, "kind"),
        "outcome" => format!("of leaf {}, upstream {}", text(leaf, "intent_seq"), text(leaf, "upstream_status")),
        _ => String::new(),
    };
    let word = match kind {
        "intent" => text(leaf, "decision"),
        "outcome" => text(leaf, "state"),
        other => other.to_owned(),
    };
    let padded = format!("{word:<16}");
    format!("{}  {}  {}  {what}", paint(DIM, &time), text(receipt, "receipt_id"), paint(style_of(&word), &padded))
}

fn number(value: &Value, key: &str) -> u64 {
    value.get(key).and_then(Value::as_u64).unwrap_or_default()
}

const PAGE: u32 = 500;
const POLL: Duration = Duration::from_millis(300);
/// Logs above this many bytes take long enough to show progress.
const LARGE: u64 = 64 << 20;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_are_half_open_and_may_be_open_ended() {
        assert_eq!(range("3..5"), Some((3, 5)));
        assert_eq!(range("3.."), Some((3, u64::MAX)));
        assert_eq!(range("..5"), Some((0, 5)));
        for bad in ["5..3", "3..3", "a..b", "3", "3...5"] {
            assert_eq!(range(bad), None, "{bad}");
        }
    }
}
