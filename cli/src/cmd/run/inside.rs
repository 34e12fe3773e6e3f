//! `aegis __inside`: what `aegis run --isolate` starts, in two stages, to become the command.
//!
//! The first enters new namespaces, brings up loopback there and hands the listener on it to the
//! process outside, which answers it: nothing in the namespace has to be trusted to relay. The
//! second is the first process of the process namespace; it arranges mounts, gives up every
//! privilege, starts the command, and takes everything with it when that ends.

use std::{
    ffi::OsString,
    io,
    net::{Ipv4Addr, TcpListener},
    os::fd::AsFd as _,
    process::{Command, ExitCode},
};

use rustix::{
    process::{Signal, set_parent_process_death_signal},
    thread::{CapabilitySet, CapabilitySets, capabilities, configure_capability_in_ambient_set, set_capabilities},
};

use super::{
    OWN_FAILURE, confine, descriptors, loopback,
    mounts::{self, Guarded},
    namespaces::{self, refused},
    supervise::Supervisor,
};
use crate::{error::CliError, output};

/// Internal.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// The second stage
    #[arg(long)]
    first_process: bool,
    /// Where the listener is
    #[arg(long)]
    port: u16,
    #[command(flatten)]
    guarded: Guarded,
    /// Let Unix sockets be
    #[arg(long)]
    danger_unix_sockets: bool,
    /// The command and its arguments
    #[arg(required = true, last = true)]
    command: Vec<OsString>,
}

/// Runs one of the stages. Has to be called before there is a second thread.
pub fn run(args: Args) -> ExitCode {
    let code = if args.first_process { first_process(args) } else { enter(args) };
    ExitCode::from(code.unwrap_or_else(|error| {
        output::error(&error);
        OWN_FAILURE
    }))
}

/// The first stage's command line.
pub fn command(port: u16, guarded: &Guarded, unix: bool, words: &[OsString]) -> Command {
    stage(&Args {
        first_process: false,
        port,
        guarded: guarded.clone(),
        danger_unix_sockets: unix,
        command: words.to_vec(),
    })
}

fn enter(args: Args) -> Result<u8, CliError> {
    let failed = |what: &'static str| move |e: io::Error| refused(what, &e);
    descriptors::close_inherited().map_err(failed("open files cannot be closed"))?;
    // Standard input is the socket to the process outside, which sends the real one.
    let outside = rustix::stdio::stdin();
    let stdin = descriptors::receive(outside).map_err(failed("standard input cannot be taken over"))?;
    let stdin = stdin.ok_or_else(|| CliError::usage("this is started by `aegis run --isolate` only"))?;
    namespaces::enter()?;
    end_with_parent()?;
    loopback::up().map_err(failed("the loopback interface cannot be brought up"))?;
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, args.port)).map_err(failed("no listener can be opened"))?;
    descriptors::send(outside, listener.as_fd()).map_err(failed("the listener cannot be handed over"))?;
    drop(listener);
    keep_capabilities().map_err(failed("capabilities cannot be kept for the mounts"))?;
    let mut second = stage(&Args { first_process: true, ..args });
    second.stdin(stdin);
    Supervisor::new()?.run(second)
}

fn first_process(args: Args) -> Result<u8, CliError> {
    end_with_parent()?;
    let here = std::env::current_dir().map_err(|e| refused("the current folder cannot be found", &e))?;
    mounts::arrange(&args.guarded).map_err(|e| refused("the file system cannot be arranged", &e))?;
    // The folder that we were started in is still the one below the new mounts.
    std::env::set_current_dir(&here).map_err(|e| refused("the current folder cannot be entered", &e))?;
    confine::drop_privileges()?;
    confine::filter_sockets(args.danger_unix_sockets)?;
    let (program, rest) = args.command.split_first().ok_or_else(|| CliError::usage("there is no command to run"))?;
    let mut command = Command::new(program);
    command.args(rest);
    Supervisor::new()?.run(command)
}

fn stage(args: &Args) -> Command {
    // Whatever is at our path by now, this is the same program.
    let mut command = Command::new("/proc/self/exe");
    command.args(["__inside", "--port", &args.port.to_string()]);
    for (flag, on) in [("--first-process", args.first_process), ("--danger-unix-sockets", args.danger_unix_sockets)] {
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

/// If the process that watches over us is killed, nothing is left behind that runs without it.
fn end_with_parent() -> Result<(), CliError> {
    set_parent_process_death_signal(Some(Signal::KILL))
        .map_err(|e| refused("the end cannot be tied to the parent's", &e.into()))
}

/// A program that is started by anybody but root loses its capabilities; the second stage needs two.
fn keep_capabilities() -> io::Result<()> {
    let needed = [CapabilitySet::SYS_ADMIN, CapabilitySet::SETPCAP];
    let mut sets: CapabilitySets = capabilities(None)?;
    for capability in needed {
        sets.inheritable |= capability;
    }
    set_capabilities(None, sets)?;
    for capability in needed {
        configure_capability_in_ambient_set(capability, true)?;
    }
    Ok(())
}
