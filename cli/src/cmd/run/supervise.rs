//! A child process as if it stood in our place: signals go to it, its exit code is ours.
//!
//! The child stays in our process group, so that pipelines and a shell's job control see one job.
//! What is sent to the group, by the terminal or by a process, reaches every member; only what was
//! sent to us alone has to be passed on, and a process cannot tell the two apart. So there are two
//! of us. What reaches the front is passed to the back; what reaches the back from somebody else
//! than the front was sent to the group, and then the command has it, too.

use std::{
    collections::HashMap,
    io,
    process::Command,
    time::{Duration, Instant},
};

use rustix::process::{Pid, Signal, WaitId, WaitIdOptions, WaitOptions, getppid, kill_process, wait, waitid};
use signal_hook::{
    consts::signal::{SIGCHLD, SIGHUP, SIGINT, SIGQUIT, SIGSTOP, SIGTERM, SIGTSTP, SIGUSR1, SIGUSR2, SIGWINCH},
    iterator::{SignalsInfo, exfiltrator::WithOrigin},
    low_level::{
        raise,
        siginfo::{Cause, Origin},
    },
};

use crate::{error::CliError, output};

/// Which of the two this is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Place {
    /// The process that was started and is signalled; its child is the back.
    Front,
    /// The parent of the command.
    Back,
}

/// Signals that were sent to us, kept until there is a child to pass them to.
pub struct Supervisor {
    place: Place,
    signals: SignalsInfo<WithOrigin>,
    /// When the whole group got a signal, by its number.
    to_all: HashMap<i32, Instant>,
}

impl Supervisor {
    /// Catches signals from now on, but for those that are ignored here: the child has to find them ignored too.
    pub fn new(place: Place) -> Result<Self, CliError> {
        let ignored = ignored_signals();
        let caught = PASSED_ON.into_iter().filter(|n| ignored & (1 << (n - 1)) == 0).chain([SIGCHLD]);
        let signals =
            SignalsInfo::new(caught).map_err(|e| CliError::failed(format!("signals cannot be caught: {e}")))?;
        Ok(Self { place, signals, to_all: HashMap::new() })
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
        let child = match command.spawn() {
            Ok(child) => child.id(),
            Err(error) => {
                let program = command.get_program().display();
                output::error(&CliError::failed(format!("cannot run `{program}`: {}", reason(&error))));
                return Ok(exit_code_of(&error));
            }
        };
        // Files that only the child is to hold are closed here, or their other ends would wait for us.
        drop(command);
        let child = i32::try_from(child).ok().and_then(Pid::from_raw);
        self.watch(child.ok_or_else(|| CliError::failed("the child's process id cannot be used"))?)
    }

    fn watch(&mut self, child: Pid) -> Result<u8, CliError> {
        loop {
            let mut signals: Vec<Origin> = self.signals.wait().filter(|o| o.signal != SIGCHLD).collect();
            // What the whole group got first: the front passes the same on in a moment.
            signals.sort_by_key(|o| self.is_from_front(o));
            for origin in &signals {
                self.take(child, origin);
            }
            if let Some(code) = reap(child)? {
                return Ok(code);
            }
        }
    }

    fn take(&mut self, child: Pid, origin: &Origin) {
        let passes = match self.place {
            // The kernel speaks to the group only.
            Place::Front => origin.cause != Cause::Kernel,
            Place::Back if self.is_from_front(origin) => {
                self.to_all.remove(&origin.signal).is_none_or(|at| at.elapsed() > SAME)
            }
            Place::Back => {
                self.to_all.insert(origin.signal, Instant::now());
                false
            }
        };
        if passes && let Some(signal) = Signal::from_named_raw(origin.signal) {
            // A child that is gone is reaped in a moment.
            let _ = kill_process(child, signal);
        }
        // Nor do we stop at SIGTSTP before the command does: it may have other plans.
    }

    fn is_from_front(&self, origin: &Origin) -> bool {
        let sender = origin.process.and_then(|p| Pid::from_raw(p.pid));
        self.place == Place::Back && origin.cause != Cause::Kernel && sender.is_some() && sender == getppid()
    }
}

/// Stops as the child does, so that a shell takes the terminal back; goes on when we go on.
fn stop_with(child: Pid) {
    // Sent to this very thread, so that it is not past this line before the process has stopped.
    let _ = raise(SIGSTOP);
    // A shell sends the whole group on; a second time, later, would undo a stop that came in between.
    let gone_on = waitid(WaitId::Pid(child), WaitIdOptions::CONTINUED | WaitIdOptions::NOHANG);
    if !matches!(gone_on, Ok(Some(_))) {
        let _ = kill_process(child, Signal::CONT);
    }
}

/// The child's exit code once it is over.
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

/// Waits for every child there will ever be, as the first process of a namespace has to; never returns.
pub fn reap_orphans() -> Result<u8, CliError> {
    let failed = |e: io::Error| CliError::failed(format!("signals cannot be caught: {e}"));
    let mut signals = SignalsInfo::<WithOrigin>::new([SIGCHLD]).map_err(failed)?;
    loop {
        while let Ok(Some(_)) = wait(WaitOptions::NOHANG) {}
        let _ = signals.wait();
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

/// SIGTTIN and SIGTTOU stay with the kernel: they stop the whole group by themselves. SIGCONT takes effect when it
/// is sent; passed on later, it would undo a stop that came in between.
const PASSED_ON: [i32; 8] = [SIGHUP, SIGINT, SIGQUIT, SIGTERM, SIGUSR1, SIGUSR2, SIGWINCH, SIGTSTP];
const ENDING: [i32; 4] = [SIGHUP, SIGINT, SIGQUIT, SIGTERM];
/// A signal to the group and its copy from the front are no further apart, however busy the machine is.
const SAME: Duration = Duration::from_secs(2);
const NOT_FOUND: u8 = 127;
const NOT_RUNNABLE: u8 = 126;
