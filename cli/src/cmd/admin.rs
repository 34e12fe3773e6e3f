//! `aegis admin reset`: a way back in when the admin token is lost.

use std::process::ExitCode;

use serde_json::json;

use super::{Context, serve};
use crate::{
    error::CliError,
    gateway::{Gateway, Parts},
    logging,
    reload::Files,
    state::{self, Held},
};

/// Works on the state folder itself, so it needs the gateway stopped and the folder's owner.
#[derive(Debug, clap::Subcommand)]
pub enum Command {
    /// Revoke all admin tokens and write a new one to `<state>/admin.token`
    Reset,
}

/// Runs the command.
pub async fn run(command: Command, context: &Context) -> Result<ExitCode, CliError> {
    let Command::Reset = command;
    let config = context.config()?;
    let held = Held::alone(&config.state)?;
    let sources = Files::of(&config).read().map_err(CliError::Problems)?;
    let gateway = Gateway::open(&config, held, Parts { sources, decisions: logging::decisions(serve::QUIET) }).await?;
    let done = gateway.reset_admin(&config).await;
    gateway.close().await;
    done?;
    let path = config.in_state(state::ADMIN_TOKEN);
    context.out.show(&json!({"admin_token_file": path}), || format!("a new admin token is in {}", path.display()))?;
    Ok(ExitCode::SUCCESS)
}
