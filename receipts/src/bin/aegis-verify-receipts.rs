//! Verifies a receipt log or an exported bundle, offline: no network, no database, no gateway.

use std::{
    io::{self, IsTerminal as _, Write as _},
    path::PathBuf,
    process::ExitCode,
};

use aegis_receipts::verify::{Progress, verify_path};
use clap::Parser;

/// Verifies a receipt log directory or an exported bundle.
///
/// Exit status: 0 verified, 1 tampered (says which leaf and why), 2 unreadable.
#[derive(Parser)]
#[command(name = "aegis-verify-receipts", version)]
struct Args {
    /// Directory of a log (with `segments` and `head` in it), or a bundle file.
    path: PathBuf,
    /// Print the report as JSON.
    #[arg(long)]
    json: bool,
}

fn main() -> ExitCode {
    let args = Args::parse();
    let on_terminal = io::stderr().is_terminal();
    let mut shown = false;
    let report = verify_path(&args.path, &mut |progress| {
        if on_terminal && progress.total_bytes > LARGE {
            shown = true;
            show(progress);
        }
    });
    if shown {
        eprintln!();
    }
    let text = if args.json {
        serde_json::to_string_pretty(&report)
            .map(|text| text + "\n")
            .unwrap_or_else(|e| format!("{{\"error\":\"{e}\"}}\n"))
    } else {
        report.to_string()
    };
    // The exit status is the answer, also where nobody reads the text.
    let _ = io::stdout().write_all(text.as_bytes());
    ExitCode::from(report.verdict.exit_code())
}

fn show(progress: Progress) {
    let percent = progress.bytes.saturating_mul(100) / progress.total_bytes.max(1);
    eprint!("\r{percent:3}%  {} leaves", progress.leaves);
}

/// Bytes from which on waiting is worth a progress line.
const LARGE: u64 = 32 * 1024 * 1024;
