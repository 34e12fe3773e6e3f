//! `aegis __inside`: the process that `aegis run` starts, to be the command's parent.
//!
//! With `--isolated` it first enters new namespaces, brings up loopback there and hands the listener
//! on it to the process outside, which answers it: nothing in the namespace has to be trusted to
//! relay. A second process, the first of the process namespace, arranges mounts; it collects
//! orphans, and takes everything with it when the command ends. Then every privilege is given up.

use std::{
    ffi::OsString,
    io::{self, Read as _, Write as _},
    net::{Ipv4Addr, TcpListener},
    os::fd::{AsFd as _, OwnedFd},
    path::Path,
    process::{Child, Command, ExitCode, Stdio},
};

use rustix::{
    process::{Signal, set_parent_process_death_signal},
    thread::{CapabilitySet, capabilities, configure_capability_in_ambient_set, set_capabilities},
};

use super::{
    OWN_FAILURE, confine, descriptors, loopback,
    mounts::{self, Guarded},
    namespaces::{self, refused},
    supervise::{Place, Supervisor, reap_orphans},
};
use crate::{error::CliError, output};

/// Internal.
#[derive(Debug, Default, clap::Args)]
pub struct Args {
    /// In namespaces of its own
    #[arg(long)]
    pub isolated: bool,
    /// The first process there
    #[arg(long)]
    pub first_process: bool,
    /// Where the listener is
    #[arg(long, default_value_t)]
    pub port: u16,
    /// What the command must not touch
    #[command(flatten)]
    pub guarded: Guarded,
    /// Let Unix sockets be
    #[arg(long)]
    pub danger_unix_sockets: bool,
    /// The command and its arguments
    #[arg(last = true)]
    pub command: Vec<OsString>,
}

/// Runs it. Has to be called before there is a second thread.
pub fn run(args: &Args) -> ExitCode {
    let code = match args {
        Args { first_process: true, .. } => first_process(args),
        Args { isolated: true, .. } => isolated(args),
        Args { .. } => the_command(args, Stdio::inherit()),
    };
    ExitCode::from(code.unwrap_or_else(|error| {
        output::error(&error);
        OWN_FAILURE
    }))
}

/// Its command line.
pub fn command(args: &Args) -> Command {
    // Whatever is at our path by now, this is the same program.
    let mut command = Command::new("/proc/self/exe");
    command.args(["__inside", "--port", &args.port.to_string()]);
    for (flag, on) in [
        ("--isolated", args.isolated),
        ("--first-process", args.first_process),
        ("--danger-unix-sockets", args.danger_unix_sockets),
    ] {
        command.args(on.then_some(flag));
    }
    for (flag, paths) in [("--hide", &args.guarded.hide), ("--read-only", &args.guarded.read_only)] {
        for path in paths {
            command.arg(flag).arg(path);
        }
    }
    command.arg("--").args(&args.command);
    command
}

fn the_command(args: &Args, stdin: Stdio) -> Result<u8, CliError> {
    let (program, rest) = args.command.split_first().ok_or_else(|| CliError::usage("there is no command to run"))?;
    let mut command = Command::new(program);
    command.args(rest).stdin(stdin);
    Supervisor::new(Place::Back)?.run(command)
}

fn isolated(args: &Args) -> Result<u8, CliError> {
    let here = std::env::current_dir().map_err(failed("the current folder cannot be found"))?;
    let stdin = enter(args.port)?;
    let mut first = begin(args)?;
    // The folder that we were started in is still the one below the new mounts.
    std::env::set_current_dir(&here).map_err(failed("the current folder cannot be entered"))?;
    confine::drop_privileges()?;
    confine::filter_sockets(args.danger_unix_sockets)?;
    let code = the_command(args, stdin.into());
    // Takes along whatever the command left running, and is over when that is.
    let _ = (first.kill(), first.wait());
    code
}

/// Enters the namespaces and hands out the listener on their loopback; standard input for the command.
fn enter(port: u16) -> Result<OwnedFd, CliError> {
    descriptors::close_inherited().map_err(failed("open files cannot be closed"))?;
    // Our standard input is the socket to the process outside, which sends the real one.
    let outside = rustix::stdio::stdin();
    let stdin = descriptors::receive(outside).map_err(failed("standard input cannot be taken over"))?;
    let stdin = stdin.ok_or_else(|| CliError::usage("this is started by `aegis run --isolate` only"))?;
    namespaces::enter()?;
    end_with_parent()?;
    loopback::up().map_err(failed("the loopback interface cannot be brought up"))?;
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, port)).map_err(failed("no listener can be opened"))?;
    descriptors::send(outside, listener.as_fd()).map_err(failed("the listener cannot be handed over"))?;
    Ok(stdin)
}

/// Starts the first process and waits until it is ready.
fn begin(args: &Args) -> Result<Child, CliError> {
    keep_capabilities().map_err(failed("capabilities cannot be kept for the mounts"))?;
    let guarded = args.guarded.clone();
    let mut first = command(&Args { first_process: true, guarded, ..Args::default() });
    first.stdin(Stdio::null()).stdout(Stdio::piped());
    let mut first = first.spawn().map_err(failed("the first process cannot be started"))?;
    let mut ready = [0];
    match first.stdout.take().map(|mut out| out.read(&mut ready)) {
        Some(Ok(1)) => Ok(first),
        // It has said why.
        _ => Err(CliError::failed("the command is not isolated and was not run")),
    }
}

fn first_process(args: &Args) -> Result<u8, CliError> {
    end_with_parent()?;
    std::env::set_current_dir(Path::new("/")).map_err(failed("the root folder cannot be entered"))?;
    mounts::arrange(&args.guarded).map_err(failed("the file system cannot be arranged"))?;
    confine::drop_privileges()?;
    confine::filter_sockets(false)?;
    let mut out = io::stdout();
    out.write_all(b"r").and_then(|()| out.flush()).map_err(failed("the parent cannot be told"))?;
    reap_orphans()
}

/// If the process that watches over us is killed, nothing is left behind that runs without it.
fn end_with_parent() -> Result<(), CliError> {
    set_parent_process_death_signal(Some(Signal::KILL))
        .map_err(|e| refused("the end cannot be tied to the parent's", &e.into()))
}

/// A program that is started by anybody but root loses its capabilities; the first process needs two.
fn keep_capabilities() -> io::Result<()> {
    let needed = [CapabilitySet::SYS_ADMIN, CapabilitySet::SETPCAP];
    let mut sets = capabilities(None)?;
    for capability in needed {
        sets.inheritable |= capability;
    }
    set_capabilities(None, sets)?;
    for capability in needed {
        configure_capability_in_ambient_set(capability, true)?;
    }
    Ok(())
}

fn failed(what: &'static str) -> impl FnOnce(io::Error) -> CliError {
    move |error| refused(what, &error)
}
