//! `aegis completions`: scripts for shells.

use std::{io, process::ExitCode};

use clap::CommandFactory as _;
use clap_complete::{Shell, generate};

use super::Cli;
use crate::error::CliError;

/// Prints the script on stdout.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  aegis completions bash > ~/.local/share/bash-completion/completions/aegis
  aegis completions zsh > \"${fpath[1]}/_aegis\"")]
pub struct Args {
    /// The shell
    shell: Shell,
}

/// Runs the command.
pub fn run(args: Args) -> Result<ExitCode, CliError> {
    generate(args.shell, &mut Cli::command(), "aegis", &mut io::stdout());
    Ok(ExitCode::SUCCESS)
}
