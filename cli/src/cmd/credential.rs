//! `aegis credential`: what the gateway uses and agents never see.

use std::{
    io::{self, IsTerminal as _, Read as _},
    process::ExitCode,
};

use serde_json::{Value, json};
use zeroize::Zeroizing;

use super::{Context, items, segment};
use crate::{
    client::As,
    error::CliError,
    output::{Table, text},
};

/// Values come from standard input or a hidden prompt, never from the command line, where other
/// users and the shell's history would see them.
#[derive(Debug, clap::Subcommand)]
#[command(after_help = "\
Examples:
  aegis credential add github               asks for the value
  gh auth token | aegis credential add github
  aegis credential rotate github < new-token
  aegis credential list")]
pub enum Command {
    /// Store the value of a credential that routes.toml declares
    Add {
        /// Its name in routes.toml
        name: String,
    },
    /// List credentials: where they are, how they are sent, whether there is a value
    List,
    /// Replace a value; requests from now on use the new one
    Rotate {
        /// Its name in routes.toml
        name: String,
    },
    /// Remove a value; routes that use it answer 503 until there is a new one
    Remove {
        /// Its name in routes.toml
        name: String,
    },
}

/// Runs the command.
pub async fn run(command: Command, context: &Context) -> Result<ExitCode, CliError> {
    match command {
        Command::Add { name } => store(context, &name, Expected::Absent).await?,
        Command::Rotate { name } => store(context, &name, Expected::Present).await?,
        Command::List => {
            let answer = context.call(&As::Admin, "GET", "/v1/credentials", None).await?;
            context.out.show(&answer, || table(&answer))?;
        }
        Command::Remove { name } => {
            let path = format!("/v1/credentials/{}", segment(&name));
            context.call(&As::Admin, "DELETE", &path, None).await?;
            context.out.show(&json!({"name": name, "removed": true}), || format!("credential `{name}` is removed"))?;
        }
    }
    Ok(ExitCode::SUCCESS)
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Expected {
    Absent,
    Present,
}

async fn store(context: &Context, name: &str, expected: Expected) -> Result<(), CliError> {
    // Read first: a running gateway should not be kept waiting for somebody to type.
    let value = value(name)?;
    let answer = context
        .with_client(&As::Admin, async |client| {
            let known = client.call("GET", "/v1/credentials", None).await?;
            let found = items(&known, "credentials").iter().find(|c| text(c, "name") == name);
            let there = found.is_some_and(|c| text(c, "stored") == "true");
            match expected {
                Expected::Absent if there => {
                    return Err(CliError::failed(format!(
                        "credential `{name}` has a value; replace it with `aegis credential rotate {name}`"
                    )));
                }
                Expected::Present if !there => {
                    return Err(CliError::failed(format!(
                        "credential `{name}` has no value yet; store one with `aegis credential add {name}`"
                    )));
                }
                Expected::Absent | Expected::Present => {}
            }
            let body = json!({"value": value.as_str()});
            client.call("PUT", &format!("/v1/credentials/{}", segment(name)), Some(&body)).await
        })
        .await?;
    context.out.show(&answer, || format!("credential `{name}` is stored, version {}", text(&answer, "version")))
}

/// From a pipe or a hidden prompt, without the line break at its end.
fn value(name: &str) -> Result<Zeroizing<String>, CliError> {
    let unreadable = |e: io::Error| CliError::usage(format!("the value cannot be read: {e}"));
    let mut value = if io::stdin().is_terminal() {
        Zeroizing::new(rpassword::prompt_password(format!("Value of `{name}` (not shown): ")).map_err(unreadable)?)
    } else {
        let mut value = Zeroizing::new(String::with_capacity(MAX_VALUE + 1));
        io::stdin().take(MAX_VALUE as u64 + 1).read_to_string(&mut value).map_err(unreadable)?;
        value
    };
    let kept = value.trim_end_matches(['\r', '\n']).len();
    value.truncate(kept);
    if value.is_empty() {
        return Err(CliError::usage("the value is empty; give it on standard input"));
    }
    Ok(value)
}

fn table(answer: &Value) -> String {
    let mut table = Table::new(&["name", "vault", "kind", "value", "routes", "version"]).coloured("value");
    for credential in items(answer, "credentials") {
        let there = if text(credential, "stored") == "true" { "yes" } else { "no" };
        let [name, vault, kind, routes, version] =
            ["name", "vault", "kind", "routes", "version"].map(|key| text(credential, key));
        table.row([name, vault, kind, there.into(), routes, version]);
    }
    table.render("routes.toml declares no credentials")
}

const MAX_VALUE: usize = 64 * 1024;
