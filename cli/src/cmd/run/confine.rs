//! What the command may ask of the kernel: no privilege, and no socket that leads out of its network namespace.
//!
//! A network namespace holds IP and what is built on it. Other families have ends outside: a Unix
//! socket of a service on this machine, which is reached by path from everywhere, or a virtual
//! machine's host (vsock). So those are refused, and so is what would go round the refusal.

use std::collections::BTreeMap;

use nix::libc;
use rustix::{
    io::Errno,
    thread::{
        CapabilitySet, CapabilitySets, clear_ambient_capability_set, remove_capability_from_bounding_set,
        set_capabilities, set_no_new_privs,
    },
};
use seccompiler::{
    BpfProgram, SeccompAction, SeccompCmpArgLen::Dword, SeccompCmpOp, SeccompCondition, SeccompFilter, SeccompRule,
    TargetArch, apply_filter,
};

use crate::error::CliError;

/// Gives up every capability for good, here and in what this process starts.
pub fn drop_privileges() -> Result<(), CliError> {
    for bit in 0..u64::BITS {
        match remove_capability_from_bounding_set(CapabilitySet::from_bits_retain(1 << bit)) {
            Ok(()) => {}
            // The kernel knows no more of them.
            Err(Errno::INVAL) => break,
            Err(e) => return Err(failed(&e)),
        }
    }
    clear_ambient_capability_set().map_err(|e| failed(&e))?;
    set_no_new_privs(true).map_err(|e| failed(&e))?;
    let none = CapabilitySet::empty();
    set_capabilities(None, CapabilitySets { effective: none, permitted: none, inheritable: none })
        .map_err(|e| failed(&e))
}

/// Refuses sockets that lead out, here and in what this process starts.
pub fn filter_sockets(unix: bool) -> Result<(), CliError> {
    let program = program(unix).map_err(|e| failed(&e))?;
    apply_filter(&program).map_err(|e| failed(&e))
}

fn program(unix: bool) -> Result<BpfProgram, seccompiler::BackendError> {
    let arch = TargetArch::try_from(std::env::consts::ARCH)?;
    let is = |index: u8, value: u32| SeccompCondition::new(index, Dword, SeccompCmpOp::Eq, value.into());
    let is_not =
        |index: u8, value: i32| SeccompCondition::new(index, Dword, SeccompCmpOp::Ne, value.unsigned_abs().into());
    let mut families = vec![libc::AF_INET, libc::AF_INET6, libc::AF_NETLINK];
    families.extend(unix.then_some(libc::AF_UNIX));
    let foreign = families.into_iter().map(|family| is_not(0, family)).collect::<Result<_, _>>()?;
    let mut rules: BTreeMap<i64, Vec<SeccompRule>> = BTreeMap::from([
        (libc::SYS_socket, vec![SeccompRule::new(foreign)?]),
        // It opens sockets without `socket`.
        (libc::SYS_io_uring_setup, Vec::new()),
        // Puts words into the terminal that the shell outside would read (CVE-2017-5226).
        (libc::SYS_ioctl, vec![SeccompRule::new(vec![is(1, TIOCSTI)?])?, SeccompRule::new(vec![is(1, TIOCLINUX)?])?]),
    ]);
    if !unix {
        // A datagram socket of a pair can still be pointed at any path; the other kinds cannot.
        let kind = |value: i32| {
            let op = SeccompCmpOp::MaskedEq(SOCK_TYPE_MASK);
            SeccompRule::new(vec![SeccompCondition::new(1, Dword, op, value.unsigned_abs().into())?])
        };
        rules.insert(libc::SYS_socketpair, vec![kind(libc::SOCK_DGRAM)?, kind(libc::SOCK_RAW)?]);
    }
    // The same calls by their x32 numbers, which pass for this architecture's.
    if arch == TargetArch::x86_64 {
        let twins: Vec<_> = rules.iter().map(|(number, rules)| (number | X32, rules.clone())).collect();
        rules.extend(twins);
    }
    let refuse = SeccompAction::Errno(libc::EPERM.unsigned_abs());
    SeccompFilter::new(rules, SeccompAction::Allow, refuse, arch)?.try_into()
}

fn failed(error: &dyn std::fmt::Display) -> CliError {
    CliError::failed(format!("privileges cannot be given up ({error}), so the command was not run"))
}

const TIOCSTI: u32 = 0x5412;
const TIOCLINUX: u32 = 0x541c;
/// `SOCK_CLOEXEC` and `SOCK_NONBLOCK` stand above it.
const SOCK_TYPE_MASK: u64 = 0xf;
const X32: i64 = 0x4000_0000;
