//! Chores of the workspace: `cargo xtask <command>`.

use std::process::ExitCode;

mod bench;
mod catalog;
mod test;

fn main() -> ExitCode {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let args: Vec<&str> = args.iter().map(String::as_str).collect();
    let outcome = match args.as_slice() {
        ["bench", rest @ ..] => bench::run(rest),
        ["catalog", rest @ ..] => catalog::run(rest),
        ["test", rest @ ..] => test::run(rest),
        _ => Err(USAGE.to_owned()),
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(message) => {
            eprintln!("{message}");
            ExitCode::FAILURE
        }
    }
}

const USAGE: &str = "usage: cargo xtask <command>

  bench [--quick] [--json] [--write]              what the gateway costs beside nginx and bare Pingora
  bench connections [--idle N] [--slow N]         what idle and slow connections cost
  catalog github [--check]                        regenerate the catalog, or only compare
  test [--rust | --e2e] [-- <pytest arguments>]   everything, or one half of it";
