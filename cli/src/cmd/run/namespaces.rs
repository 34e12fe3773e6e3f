//! Namespaces of the command's own: user, network, processes, mounts, System V IPC.

use std::{fs, io};

use nix::sched::{CloneFlags, unshare};
use rustix::process::{getegid, geteuid};

use crate::error::CliError;

/// Puts this process into new namespaces; its next child is the first process of the new process namespace.
///
/// In the new user namespace we are who we were, and nobody else exists. Where there is none to be
/// had, a privileged caller does without: then only the others are new, and the capabilities that
/// lead out of them are given up before the command runs.
pub fn enter() -> Result<(), CliError> {
    let (user, group) = (geteuid(), getegid());
    match unshare(CloneFlags::CLONE_NEWUSER | OTHERS) {
        Ok(()) => {
            let map = |name: &str, id: u32| fs::write(format!("/proc/self/{name}"), format!("{id} {id} 1\n"));
            fs::write("/proc/self/setgroups", "deny")
                .and_then(|()| map("gid_map", group.as_raw()))
                .and_then(|()| map("uid_map", user.as_raw()))
                .map_err(|e| refused("the user namespace cannot be set up", &e))
        }
        Err(_) if user.is_root() => unshare(OTHERS).map_err(|e| refused("namespaces are refused", &e.into())),
        Err(e) => Err(refused("namespaces are refused", &e.into())),
    }
}

/// What does not work, why, and what to enable.
pub fn refused(what: &str, error: &io::Error) -> CliError {
    let mut text = format!("{what} ({error}), so the command is not isolated and was not run");
    for hint in hints() {
        text.push_str("; ");
        text.push_str(&hint);
    }
    CliError::failed(text)
}

/// What this kernel says it refuses.
fn hints() -> Vec<String> {
    let setting = |path: &str| fs::read_to_string(format!("/proc/sys/{path}")).map(|t| t.trim().to_owned());
    let mut hints = Vec::new();
    for (path, refusing, remedy) in SETTINGS {
        if setting(path).is_ok_and(|value| value == refusing) {
            hints.push(format!("`{}` is {refusing}: {remedy}", path.replace('/', ".")));
        }
    }
    if hints.is_empty() {
        hints.push(
            "in a container, allow user namespaces (`unshare` in its seccomp profile, `/proc` unmasked); \
             a chroot cannot have them"
                .to_owned(),
        );
    }
    hints
}

const OTHERS: CloneFlags = CloneFlags::CLONE_NEWNET
    .union(CloneFlags::CLONE_NEWPID)
    .union(CloneFlags::CLONE_NEWNS)
    .union(CloneFlags::CLONE_NEWIPC);

/// Settings that refuse namespaces, the value that does, and what to do.
const SETTINGS: [(&str, &str, &str); 4] = [
    ("kernel/unprivileged_userns_clone", "0", "set it to 1"),
    (
        "kernel/apparmor_restrict_unprivileged_userns",
        "1",
        "give aegis an AppArmor profile with `userns,`, or set it to 0",
    ),
    ("user/max_user_namespaces", "0", "set it to 1000 or more"),
    ("user/max_net_namespaces", "0", "set it to 1000 or more"),
];
