//! The `aegis` binary: reads its arguments, wires the crates together, runs and drains.

mod client;
mod cmd;
mod config;
mod error;
mod gateway;
mod handover;
mod logging;
mod output;
mod process;
mod reload;
mod shipped;
mod state;
mod supervisor;
mod webhooks;

use std::{process::ExitCode, time::Duration};

use clap::Parser as _;

use crate::{cmd::Cli, error::CliError};

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    // Namespaces are entered by a process without threads, and by one that is not hardened.
    let cli = Cli::parse();
    if let Some(code) = cmd::run_alone(&cli) {
        return code;
    }
    match run(cli) {
        Ok(code) => code,
        Err(error) => {
            output::error(&error);
            error.exit_code()
        }
    }
}

fn run(cli: Cli) -> Result<ExitCode, CliError> {
    // Before there are threads: what a supervisor says about open sockets is taken out of the environment.
    let given = process::given_sockets();
    // Before any secret is read: no core file and no debugger of the same user gets to see one.
    process::harden()?;
    // One TLS implementation for the process; only a second call could fail, which there is not.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .map_err(|e| CliError::failed(format!("the runtime does not start: {e}")))?;
    let result = runtime.block_on(cmd::run(cli, given));
    runtime.shutdown_timeout(Duration::from_secs(1));
    result
}
