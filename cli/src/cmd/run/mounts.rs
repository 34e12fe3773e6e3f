//! What the command sees of the file system: everything it saw before, but for what guards the gateway.

use std::{
    collections::BTreeSet,
    io,
    path::{Path, PathBuf},
};

use rustix::{
    fs::{StatVfsMountFlags, statvfs},
    mount::{MountFlags, MountPropagationFlags, mount, mount_bind, mount_bind_recursive, mount_change, mount_remount},
};

use crate::{
    config::{Config, MasterSource},
    error::CliError,
};

/// Files and folders of the gateway on this machine, as absolute paths without links.
#[derive(Debug, Default, Clone, PartialEq, Eq, clap::Args)]
pub struct Guarded {
    /// Not to be seen: tokens, keys, vault, record
    #[arg(long, value_name = "PATH")]
    pub hide: Vec<PathBuf>,
    /// Not to be changed: configuration, routes, policies
    #[arg(long, value_name = "PATH")]
    pub read_only: Vec<PathBuf>,
}

impl Guarded {
    /// What the configuration names and this user can reach; the rest is out of the command's reach as well.
    pub fn of(config: &Config) -> Result<Self, CliError> {
        let mut hide = vec![config.state.clone()];
        if let MasterSource::File(path) = &config.master {
            hide.push(path.clone());
        }
        let own = config.tls.iter().flat_map(|tls| &tls.own);
        hide.extend(own.chain(&config.intermediate).map(|files| files.key.clone()));
        let read_only = [&config.file, &config.routes.path, &config.policies.path];
        let guarded = Self {
            hide: hide.iter().filter_map(|p| reachable(p).transpose()).collect::<Result<_, _>>()?,
            read_only: read_only.into_iter().filter_map(|p| reachable(p).transpose()).collect::<Result<_, _>>()?,
        };
        let here = std::env::current_dir().and_then(std::fs::canonicalize);
        let here = here.map_err(|e| CliError::failed(format!("the current folder cannot be found: {e}")))?;
        match guarded.hide.iter().find(|hidden| here.starts_with(hidden)) {
            Some(hidden) => Err(CliError::usage(format!(
                "an isolated command does not see `{}`; run it from another folder",
                hidden.display()
            ))),
            None => Ok(guarded),
        }
    }

    /// The folders above, outermost first: renaming one of them would bring a guarded path back.
    fn above(&self) -> Vec<PathBuf> {
        let all = self.hide.iter().chain(&self.read_only);
        let above: BTreeSet<&Path> = all.flat_map(|p| p.ancestors().skip(1)).filter(|p| p.parent().is_some()).collect();
        above.into_iter().map(Path::to_owned).collect()
    }
}

/// Mounts what the command is to see, in a mount namespace of our own. The caller's current folder must be
/// entered anew afterwards: it is still the one below.
pub fn arrange(guarded: &Guarded) -> io::Result<()> {
    mount_change("/", MountPropagationFlags::PRIVATE | MountPropagationFlags::REC)?;
    mount("proc", "/proc", "proc", MountFlags::NOSUID | MountFlags::NODEV | MountFlags::NOEXEC, None)?;
    // Settings of the machine that only root may write, which is who we may be.
    read_only(Path::new("/proc/sys"))?;
    for folder in guarded.above() {
        // A place where something is mounted cannot be renamed or removed.
        mount_bind_recursive(&folder, &folder)?;
    }
    for path in &guarded.read_only {
        // A state folder may hold its own configuration.
        if !guarded.hide.iter().any(|hidden| path.starts_with(hidden)) {
            read_only(path)?;
        }
    }
    for path in &guarded.hide {
        hide(path)?;
    }
    Ok(())
}

fn read_only(path: &Path) -> io::Result<()> {
    mount_bind_recursive(path, path)?;
    // What the file system below does not allow must not be allowed by a mount above it.
    let kept = statvfs(path)?.f_flag;
    let mut flags = MountFlags::BIND | MountFlags::RDONLY;
    for (have, flag) in [
        (StatVfsMountFlags::NOSUID, MountFlags::NOSUID),
        (StatVfsMountFlags::NODEV, MountFlags::NODEV),
        (StatVfsMountFlags::NOEXEC, MountFlags::NOEXEC),
    ] {
        if kept.contains(have) {
            flags |= flag;
        }
    }
    mount_remount(path, flags, "")?;
    Ok(())
}

fn hide(path: &Path) -> io::Result<()> {
    match path.symlink_metadata() {
        Ok(found) if found.is_dir() => {
            let flags = MountFlags::RDONLY | MountFlags::NOSUID | MountFlags::NODEV | MountFlags::NOEXEC;
            mount("aegis", path, "tmpfs", flags, Some(c"mode=0500,size=4k"))?;
        }
        Ok(_) => mount_bind("/dev/null", path)?,
        // Below a folder that is hidden already.
        Err(e) if e.kind() == io::ErrorKind::NotFound => {}
        Err(e) => return Err(e),
    }
    Ok(())
}

/// The path without links; `None` where it is not there, or not for us.
fn reachable(path: &Path) -> Result<Option<PathBuf>, CliError> {
    match std::fs::canonicalize(path) {
        Ok(path) => Ok(Some(path)),
        Err(e) if matches!(e.kind(), io::ErrorKind::NotFound | io::ErrorKind::PermissionDenied) => Ok(None),
        Err(e) => Err(CliError::failed(format!("`{}` cannot be looked at: {e}", path.display()))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_folder_above_a_guarded_path_is_pinned_once_outermost_first() {
        let guarded = Guarded {
            hide: vec!["/srv/a/state".into(), "/srv/keys/k".into()],
            read_only: vec!["/srv/a/routes.toml".into(), "/x".into()],
        };
        let expected: Vec<PathBuf> = ["/srv", "/srv/a", "/srv/keys"].map(PathBuf::from).to_vec();
        assert_eq!(guarded.above(), expected);
    }
}
