//! What the process asks of its kernel: no core files, no debugger, no death by file-size limit, many
//! open files, signals, sockets that are open already, and a successor.

use std::{collections::BTreeMap, ffi::OsString, net::TcpListener, path::PathBuf, process::Stdio};

use rustix::process::{DumpableBehavior, Resource, Rlimit, getrlimit, set_dumpable_behavior, setrlimit};
use tokio::signal::unix::{Signal, SignalKind, signal};

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
    let mut signals = signal(SignalKind::from_raw(rustix::process::Signal::XFSZ.as_raw()))
        .map_err(|e| CliError::failed(format!("SIGXFSZ cannot be caught: {e}")))?;
    tokio::spawn(async move { while signals.recv().await.is_some() {} });
    Ok(())
}

/// Each connection is an open file: as many as the system allows, not as few as a shell does.
pub fn raise_open_files() {
    let now = getrlimit(Resource::Nofile);
    if now.current != now.maximum
        && let Err(error) = setrlimit(Resource::Nofile, Rlimit { current: now.maximum, maximum: now.maximum })
    {
        tracing::warn!(%error, "the limit of open files cannot be raised");
    }
}

/// Listening sockets that a supervisor opened (sd_listen_fds(3)), by name.
pub type Given = BTreeMap<String, TcpListener>;

/// Takes them, and takes what says so out of the environment: a child must not think that they are its own.
pub fn given_sockets() -> Given {
    let names = std::env::var("LISTEN_FDNAMES").unwrap_or_default();
    let mut fds = listenfd::ListenFd::from_env();
    let names: Vec<&str> = names.split(':').collect();
    let count = fds.len();
    let found: Vec<_> = (0..count).map(|at| fds.take_tcp_listener(at).ok().flatten()).collect();
    let name = |at: usize| names.get(at).copied().filter(|name| !name.is_empty() && *name != "unknown");
    let default = |at: usize| if at == 0 { "agents" } else { "admin" };
    let named = found.into_iter().enumerate();
    named.filter_map(|(at, socket)| Some((name(at).unwrap_or(default(at)).to_owned(), socket?))).collect()
}

/// SIGTERM, SIGINT and SIGUSR2. Caught from the moment this is made, so make it before anybody is
/// told that the process listens: who is told may signal it at once.
pub struct Signals {
    term: Signal,
    int: Signal,
    usr2: Signal,
}

impl Signals {
    /// Catches them from now on.
    pub fn catch() -> Result<Self, CliError> {
        let caught = |kind| signal(kind).map_err(|e| CliError::failed(format!("signals cannot be caught: {e}")));
        Ok(Self {
            term: caught(SignalKind::terminate())?,
            int: caught(SignalKind::interrupt())?,
            usr2: caught(SignalKind::user_defined2())?,
        })
    }

    /// Waits for SIGTERM or SIGINT.
    pub async fn stop(&mut self) {
        tokio::select! {
            _ = self.term.recv() => {}
            _ = self.int.recv() => {}
        }
    }

    /// Waits for whichever comes; true for SIGUSR2.
    pub async fn any(&mut self) -> bool {
        tokio::select! {
            _ = self.term.recv() => false,
            _ = self.int.recv() => false,
            _ = self.usr2.recv() => true,
        }
    }
}

/// The program that a successor is started from: the file at the path that this process was started
/// from, whatever is in it by then.
pub struct Program {
    path: PathBuf,
    args: Vec<OsString>,
}

impl Program {
    /// Of this process. Ask early: the kernel's word for a file that was replaced since is not its path.
    pub fn own() -> Result<Self, CliError> {
        let path = std::env::current_exe()
            .map_err(|e| CliError::failed(format!("the program's own path is not known: {e}")))?;
        Ok(Self { path, args: std::env::args_os().skip(1).collect() })
    }

    /// Starts it with the same arguments and `more`, and says how it ended, should it end first.
    pub fn start_again(&self, more: &str) {
        let mut command = tokio::process::Command::new(&self.path);
        command.args(&self.args).stdin(Stdio::null());
        if !self.args.iter().any(|arg| arg == more) {
            command.arg(more);
        }
        // It names the process that must report; the successor must, too.
        command.env_remove("WATCHDOG_PID");
        match command.spawn() {
            Ok(mut child) => {
                tracing::info!(event = "upgrade_started", pid = child.id(), "a successor starts");
                tokio::spawn(async move {
                    match child.wait().await {
                        Ok(status) => tracing::error!(event = "upgrade_failed", %status, "the successor ended"),
                        Err(error) => tracing::error!(event = "upgrade_failed", %error, "the successor is lost"),
                    }
                });
            }
            Err(error) => tracing::error!(event = "upgrade_failed", %error, "no successor can be started"),
        }
    }
}
