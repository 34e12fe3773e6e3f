//! The command line: one file per subcommand.

mod actions;
mod admin;
mod agent;
mod approvals;
mod approver;
mod ca;
mod completions;
mod credential;
mod demo;
mod dev;
mod doctor;
mod grants;
mod policy;
mod receipts;
mod routes;
mod run;
mod serve;
mod why;

use std::{path::PathBuf, process::ExitCode};

use clap::{Parser, Subcommand};
use parking_lot::Mutex;
use serde_json::{Value, json};

use crate::{
    client::{As, Client},
    config::Config,
    error::CliError,
    output::Output,
    process::Given,
};

/// Lets AI agents use GitHub and other APIs without holding a credential.
#[derive(Debug, Parser)]
#[command(name = "aegis", version, max_term_width = 100, propagate_version = true, arg_required_else_help = true)]
#[command(after_help = AFTER)]
pub struct Cli {
    /// Configuration file [default: ./aegis.toml, then ./.aegis/aegis.toml]
    #[arg(short, long, global = true, env = "AEGIS_CONFIG", value_name = "FILE")]
    config: Option<PathBuf>,
    /// Print JSON for machines instead of text
    #[arg(long, global = true)]
    json: bool,
    #[command(subcommand)]
    command: Command,
}

const AFTER: &str = "\
Start here:
  aegis demo                       a tour on this machine, nothing to set up
  aegis dev                        a gateway with a state folder of its own
  aegis run -- COMMAND             a command of yours through it, unchanged
  aegis actions search merge pull  what is the name of the thing I want to allow?

Exit codes:
  0  it worked
  1  it failed, was denied, or does not verify
  2  the command line or a file could not be understood or read";

#[derive(Debug, Subcommand)]
enum Command {
    /// Tour the gateway on loopback; leaves nothing behind
    Demo(demo::Args),
    /// Run a gateway for development; makes its own state folder
    Dev(dev::Args),
    /// Run the gateway
    Serve(serve::Args),
    /// Run a command through the gateway, with a token of its own
    Run(run::Args),
    /// Find actions in the embedded catalogs
    #[command(subcommand)]
    Actions(actions::Command),
    /// Store the credentials that the gateway uses
    #[command(subcommand)]
    Credential(credential::Command),
    /// Enrol, contain and list agents
    #[command(subcommand)]
    Agent(agent::Command),
    /// Add and revoke the people who approve
    #[command(subcommand)]
    Approver(approver::Command),
    /// See and settle what waits for a person
    #[command(subcommand)]
    Approvals(approvals::Command),
    /// Say yes in advance, to one action on one resource, for some time
    #[command(subcommand)]
    Grants(grants::Command),
    /// Check routes.toml
    #[command(subcommand)]
    Routes(routes::Command),
    /// Check and test policies
    #[command(subcommand)]
    Policy(policy::Command),
    /// Explain a decision
    Why(why::Args),
    /// Follow, verify and export the record
    #[command(subcommand)]
    Receipts(receipts::Command),
    /// Show, install and rotate the root certificate that clients trust
    #[command(subcommand)]
    Ca(ca::Command),
    /// Replace a lost admin token
    #[command(subcommand)]
    Admin(admin::Command),
    /// Say what is misconfigured and how to fix it
    Doctor(doctor::Args),
    /// Print a completion script for a shell
    Completions(completions::Args),
    #[command(name = "__inside", hide = true)]
    Inside(run::inside::Args),
}

/// What every subcommand gets.
pub struct Context {
    /// How to print.
    pub out: Output,
    config: Option<PathBuf>,
    given: Mutex<Given>,
}

impl Context {
    /// The configuration file, read.
    pub fn config(&self) -> Result<Config, CliError> {
        Config::load(self.config.as_deref())
    }

    /// Listening sockets that a supervisor opened; once.
    pub fn given(&self) -> Given {
        std::mem::take(&mut self.given.lock())
    }

    /// The same where nothing was named and there may be none.
    pub fn config_if_any(&self) -> Result<Option<Config>, CliError> {
        if self.config.is_none() && Config::find().is_none() { Ok(None) } else { self.config().map(Some) }
    }

    /// One call of the admin API.
    pub async fn call(&self, who: &As, method: &str, path: &str, body: Option<&Value>) -> Result<Value, CliError> {
        self.with_client(who, async |client| client.call(method, path, body).await).await
    }

    /// Several calls over one connection, which is closed whatever comes of them.
    pub async fn with_client<T>(
        &self,
        who: &As,
        work: impl AsyncFnOnce(&Client) -> Result<T, CliError>,
    ) -> Result<T, CliError> {
        let client = Client::open(&self.config()?, who).await?;
        let result = work(&client).await;
        client.close().await;
        result
    }
}

/// Runs the subcommand that has to be alone in its process, if this is it.
pub fn run_alone(cli: &Cli) -> Option<ExitCode> {
    match &cli.command {
        Command::Inside(args) => Some(run::inside::run(args)),
        _ => None,
    }
}

/// Runs the subcommand.
pub async fn run(cli: Cli, given: Given) -> Result<ExitCode, CliError> {
    let context = Context { out: Output { json: cli.json }, config: cli.config, given: Mutex::new(given) };
    match cli.command {
        Command::Demo(args) => demo::run(args, &context).await,
        Command::Dev(args) => dev::run(args, &context).await,
        Command::Serve(args) => serve::run(args, &context).await,
        Command::Actions(command) => actions::run(command, &context),
        Command::Credential(command) => credential::run(command, &context).await,
        Command::Agent(command) => agent::run(command, &context).await,
        Command::Approver(command) => approver::run(command, &context).await,
        Command::Approvals(command) => approvals::run(command, &context).await,
        Command::Grants(command) => grants::run(command, &context).await,
        Command::Routes(command) => routes::run(command, &context),
        Command::Policy(command) => policy::run(command, &context),
        Command::Why(args) => why::run(args, &context).await,
        Command::Receipts(command) => receipts::run(command, &context).await,
        Command::Ca(command) => ca::run(command, &context).await,
        Command::Admin(command) => admin::run(command, &context).await,
        Command::Doctor(args) => doctor::run(args, &context).await,
        Command::Completions(args) => completions::run(args),
        Command::Run(args) => run::run(args, &context).await,
        Command::Inside(_) => Err(CliError::usage("this is started by `aegis run --isolate` only")),
    }
}

/// A name in a URL path.
pub fn segment(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.' | b'~') {
            out.push(char::from(byte));
        } else {
            out.push_str(&format!("%{byte:02X}"));
        }
    }
    out
}

/// The list under `key` in an answer.
pub fn items<'a>(answer: &'a Value, key: &str) -> &'a [Value] {
    answer.get(key).and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default()
}

/// All pages of a list, as one answer.
pub async fn all(client: &Client, path: &str, key: &str) -> Result<Value, CliError> {
    let mut list = Vec::new();
    let mut after = String::new();
    loop {
        let mut page = client.call("GET", &format!("{path}?limit=500{after}"), None).await?;
        if let Some(Value::Array(items)) = page.get_mut(key).map(Value::take) {
            list.extend(items);
        }
        match page.get("next").and_then(Value::as_str) {
            Some(next) => after = format!("&after={}", segment(next)),
            None => return Ok(json!({key: list})),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory as _;

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn a_name_cannot_leave_its_place_in_a_path() {
        assert_eq!(segment("a/../b?c#d%"), "a%2F..%2Fb%3Fc%23d%25");
        assert_eq!(segment("agt_01-x.y~"), "agt_01-x.y~");
    }
}
