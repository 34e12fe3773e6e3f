//! `cargo xtask bench`: what the gateway costs beside nginx and a bare Pingora proxy, in one run.
//!
//! Not a test: figures are medians of interleaved rounds, and what counts is their ratio
//! within the run. The proxy has one core, load and upstream have another.

mod fixture;
mod gateway;
mod load;
mod machine;
mod process;
mod report;
mod rounds;
mod targets;

use std::{
    path::{Path, PathBuf},
    process::Command,
    time::{Duration, Instant},
};

use crate::test;
use fixture::Fixture;
use machine::Machine;
use report::Report;

/// Builds, starts everything on loopback, measures, prints the table.
pub fn run(args: &[&str]) -> Result<(), String> {
    if let ["connections", more @ ..] = args {
        return connections(more);
    }
    let options = Options::read(args)?;
    let machine = Machine::prepare()?;
    if options.build {
        build(&options)?;
    }
    let started = Instant::now();
    let fixture = Fixture::start(&options, &machine)?;
    let rows = rounds::measure(&options, &machine, &fixture, started + LIMIT)?;
    let policies = rounds::policy_cost(&options);
    let report = Report::new(&options, &machine, rows, policies, started.elapsed());
    if options.json {
        println!("{}", report.json());
    } else {
        print!("{}", report.text());
    }
    if options.write {
        report.write(&options.root.join("docs").join("performance.md"))?;
        progress("docs/performance.md is written");
    }
    Ok(())
}

/// Connections that do nothing, or too little, beside those who behave: `tests/bench/connections.py`
/// on the release build.
fn connections(more: &[&str]) -> Result<(), String> {
    let options = Options::read(&[])?;
    build(&options)?;
    let interpreter = test::install(&options.root)?.value;
    let script = options.root.join("tests").join("bench").join("connections.py");
    let mut command = Command::new(interpreter);
    command.arg(script).args(more).env("AEGIS_BIN", options.binaries().join("aegis"));
    let status = command.status().map_err(|e| format!("connections.py: {e}"))?;
    if status.success() { Ok(()) } else { Err("the limits do not hold".to_owned()) }
}

/// What was asked for.
pub struct Options {
    /// The workspace.
    pub root: PathBuf,
    /// Print JSON.
    pub json: bool,
    /// One short round: shows that everything works, not what it costs.
    pub quick: bool,
    /// Put the table into docs/performance.md.
    pub write: bool,
    /// Compile first.
    pub build: bool,
    /// The development build, for working on the benchmark itself.
    pub dev: bool,
    /// Rounds that count; one shorter one before them does not.
    pub rounds: usize,
    /// Concurrent connections of the loaded rows.
    pub connections: usize,
    /// Time under load of each row in each round.
    pub each: Duration,
}

impl Options {
    fn read(args: &[&str]) -> Result<Self, String> {
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().map_or_else(|| PathBuf::from("."), Path::to_path_buf);
        let mut options = Self {
            root,
            json: false,
            quick: false,
            write: false,
            build: true,
            dev: false,
            rounds: 3,
            connections: 32,
            each: Duration::from_secs(3),
        };
        let mut args = args.iter();
        while let Some(arg) = args.next() {
            match *arg {
                "--json" => options.json = true,
                "--quick" => (options.quick, options.rounds, options.each) = (true, 1, Duration::from_secs(1)),
                "--write" => options.write = true,
                "--no-build" => options.build = false,
                "--dev" => options.dev = true,
                "--rounds" => options.rounds = number(args.next(), 1, 9)?,
                "--connections" => options.connections = number(args.next(), 2, 512)?,
                _ => return Err(USAGE.to_owned()),
            }
        }
        if options.write && (options.dev || options.quick) {
            return Err("`--write` is for full rounds of the release build".to_owned());
        }
        Ok(options)
    }

    /// Where the binaries are.
    pub fn binaries(&self) -> PathBuf {
        let target = std::env::var_os("CARGO_TARGET_DIR").map_or_else(|| self.root.join("target"), PathBuf::from);
        target.join(if self.dev { "debug" } else { "release" })
    }
}

fn number(arg: Option<&&str>, least: usize, most: usize) -> Result<usize, String> {
    arg.and_then(|a| a.parse().ok()).filter(|n| (least..=most).contains(n)).ok_or_else(|| USAGE.to_owned())
}

fn build(options: &Options) -> Result<(), String> {
    progress("building (the first release build takes minutes)");
    let mut command = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    // The whole workspace: `-p` would change feature unification and compile everything again.
    command.current_dir(&options.root).args(["build", "--workspace", "--bins", "--examples"]);
    if !options.dev {
        command.arg("--release");
    }
    let status = command.status().map_err(|e| format!("cargo: {e}"))?;
    if status.success() { Ok(()) } else { Err("does not compile".to_owned()) }
}

/// A line for whoever waits.
pub fn progress(line: &str) {
    eprintln!("bench: {line}");
}

/// Time for all rounds.
const LIMIT: Duration = Duration::from_secs(450);
const USAGE: &str =
    "usage: cargo xtask bench [--quick] [--json] [--write] [--rounds N] [--connections N] [--no-build] [--dev]";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quick_or_dev_figures_cannot_be_written_down() {
        assert!(Options::read(&["--write"]).is_ok());
        assert!(Options::read(&["--write", "--quick"]).is_err());
        assert!(Options::read(&["--dev", "--write"]).is_err());
    }

    #[test]
    fn numbers_are_bounded() {
        assert_eq!(
            Options::read(&["--rounds", "5", "--connections", "64"]).map(|o| (o.rounds, o.connections)),
            Ok((5, 64))
        );
        for bad in
            [&["--rounds"][..], &["--rounds", "0"], &["--connections", "1"], &["--connections", "513"], &["--fast"]]
        {
            assert!(Options::read(bad).is_err(), "{bad:?}");
        }
    }
}
