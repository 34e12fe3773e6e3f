//! A child process as if it stood in our place: signals go to it, its exit code is ours.
//!
//! The child stays in our process group, so that pipelines and a shell's job control see one job.
//! What the terminal sends reaches the whole group; only what was sent to us alone is passed on.

use std::{
    io,
    process::{Child, Command},
};

use rustix::process::{Pid, Signal, WaitOptions, getpid, kill_process, wait};
use signal_hook::{
    consts::signal::{SIGCHLD, SIGCONT, SIGHUP, SIGINT, SIGQUIT, SIGTERM, SIGTSTP, SIGUSR1, SIGUSR2, SIGWINCH},
    iterator::{SignalsInfo, exfiltrator::WithOrigin},
    low_level::siginfo::{Cause, Origin},
};

use crate::{error::CliError, output};

/// Signals that were sent to us, kept until there is a child to pass them to.
pub struct Supervisor {
    signals: SignalsInfo<WithOrigin>,
}

impl Supervisor {
    /// Catches signals from now on, but for those that are ignored here: the child has to find them ignored too.
    pub fn new() -> Result<Self, CliError> {
        let ignored = ignored_signals();
        let caught = PASSED_ON.into_iter().filter(|n| ignored & (1 << (n - 1)) == 0).chain([SIGCHLD]);
        let signals =
            SignalsInfo::new(caught).map_err(|e| CliError::failed(format!("signals cannot be caught: {e}")))?;
        Ok(Self { signals })
    }

    /// Runs the command to its end; its exit code, or 128 and the number of the signal that ended it.
    /// Runs nothing if we were told to stop before.
    ///
    /// The thread that calls this must last as long as the child: the kernel ends an isolated
    /// child together with the thread that started it.
    pub fn run(mut self, mut command: Command) -> Result<u8, CliError> {
        let early = self.signals.pending().map(|o| o.signal).find(|n| ENDING.contains(n));
        if let Some(signal) = early {
            return Ok(killed_by(signal));
        }
        let program = command.get_program().to_owned();
        let child = match command.spawn() {
            Ok(child) => child,
            Err(error) => {
                let failed = CliError::failed(format!("cannot run `{}`: {}", program.display(), reason(&error)));
                output::error(&failed);
                return Ok(exit_code_of(&error));
            }
        };
        // Files that only the child is to hold are closed here, or their other ends would wait for us.
        drop(command);
        self.watch(&child)
    }

    fn watch(&mut self, child: &Child) -> Result<u8, CliError> {
        let child = i32::try_from(child.id()).ok().and_then(Pid::from_raw);
        let child = child.ok_or_else(|| CliError::failed("the child's process id cannot be used"))?;
        loop {
            let signals: Vec<Origin> = self.signals.wait().collect();
            for origin in signals.iter().filter(|o| o.signal != SIGCHLD) {
                pass_on(child, origin);
            }
            if let Some(code) = reap(child)? {
                return Ok(code);
            }
        }
    }
}

fn pass_on(child: Pid, origin: &Origin) {
    if for_us_alone(child, origin)
        && let Some(signal) = Signal::from_named_raw(origin.signal)
    {
        // A child that is gone is reaped in a moment.
        let _ = kill_process(child, signal);
    }
    if origin.signal == SIGTSTP {
        stop_with(child);
    }
}

/// Whether the child has not got this signal already: as a member of our process group it gets what the
/// terminal sends, and what it sends itself. Somebody else who signals the whole group reaches it twice,
/// which is better than not at all.
fn for_us_alone(child: Pid, origin: &Origin) -> bool {
    let sender = origin.process.and_then(|p| Pid::from_raw(p.pid));
    origin.cause != Cause::Kernel && sender != Some(child)
}

/// Stops as the child does, so that a shell takes the terminal back; goes on when we go on.
fn stop_with(child: Pid) {
    let _ = kill_process(getpid(), Signal::STOP);
    let _ = kill_process(child, Signal::CONT);
}

/// The child's exit code once it is over. Collects orphans, too, where we are a namespace's first process.
fn reap(child: Pid) -> Result<Option<u8>, CliError> {
    loop {
        match wait(WaitOptions::NOHANG | WaitOptions::UNTRACED) {
            Ok(Some((pid, status))) if pid == child => {
                if let Some(code) = status.exit_status() {
                    return Ok(Some(u8::try_from(code).unwrap_or(u8::MAX)));
                }
                if let Some(signal) = status.terminating_signal() {
                    return Ok(Some(killed_by(signal)));
                }
                if status.stopped() {
                    stop_with(child);
                }
            }
            Ok(Some(_)) => {}
            Ok(None) => return Ok(None),
            Err(rustix::io::Errno::INTR) => {}
            Err(e) => return Err(CliError::failed(format!("the command's end cannot be waited for: {e}"))),
        }
    }
}

fn killed_by(signal: i32) -> u8 {
    u8::try_from(128 + signal).unwrap_or(u8::MAX)
}

fn reason(error: &io::Error) -> String {
    match error.kind() {
        io::ErrorKind::NotFound => "no such command".to_owned(),
        _ => error.to_string(),
    }
}

/// 127 where there is no such command, 126 where it cannot be run; as shells say it.
fn exit_code_of(error: &io::Error) -> u8 {
    if error.kind() == io::ErrorKind::NotFound { NOT_FOUND } else { NOT_RUNNABLE }
}

/// Bit n−1 is set where signal n is ignored. Nothing is, where the kernel does not say.
fn ignored_signals() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let mask = status.lines().find_map(|line| line.strip_prefix("SigIgn:"));
    mask.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok()).unwrap_or(0)
}

/// SIGTTIN and SIGTTOU stay with the kernel: they stop the whole group by themselves.
const PASSED_ON: [i32; 9] = [SIGHUP, SIGINT, SIGQUIT, SIGTERM, SIGUSR1, SIGUSR2, SIGWINCH, SIGTSTP, SIGCONT];
const ENDING: [i32; 4] = [SIGHUP, SIGINT, SIGQUIT, SIGTERM];
const NOT_FOUND: u8 = 127;
const NOT_RUNNABLE: u8 = 126;
