//! What the process asks of its kernel: no core files, no debugger, no death by file-size limit.

use rustix::process::{DumpableBehavior, Resource, Rlimit, Signal, set_dumpable_behavior, setrlimit};
use tokio::signal::unix::{Signal as Signals, SignalKind, signal};

use crate::error::CliError;

/// Keeps memory out of core files and away from other processes of the same user.
pub fn harden() -> Result<(), CliError> {
    setrlimit(Resource::Core, Rlimit { current: Some(0), maximum: Some(0) })
        .map_err(|e| CliError::failed(format!("core files cannot be switched off: {e}")))?;
    set_dumpable_behavior(DumpableBehavior::NotDumpable)
        .map_err(|e| CliError::failed(format!("the process cannot be made undumpable: {e}")))
}

/// With a handler for `SIGXFSZ`, a write beyond the file-size limit is an error like a full disk,
/// which the log and the store recover from. Without one it would kill the process.
pub fn survive_file_size_limit() -> Result<(), CliError> {
    let mut signals = signal(SignalKind::from_raw(Signal::XFSZ.as_raw()))
        .map_err(|e| CliError::failed(format!("SIGXFSZ cannot be caught: {e}")))?;
    tokio::spawn(async move { while signals.recv().await.is_some() {} });
    Ok(())
}

/// SIGTERM and SIGINT. Caught from the moment this is made, so make it before anybody is told that
/// the process listens: who is told may stop it at once.
pub struct StopSignals {
    term: Signals,
    int: Signals,
}

impl StopSignals {
    /// Catches both from now on.
    pub fn catch() -> Result<Self, CliError> {
        let caught = |kind| signal(kind).map_err(|e| CliError::failed(format!("signals cannot be caught: {e}")));
        Ok(Self { term: caught(SignalKind::terminate())?, int: caught(SignalKind::interrupt())? })
    }

    /// Waits for either.
    pub async fn wait(mut self) {
        tokio::select! {
            _ = self.term.recv() => {}
            _ = self.int.recv() => {}
        }
    }
}
