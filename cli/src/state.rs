//! The state folder: one owner at a time, tokens in files that only that owner can read.

use std::{
    fs::{self, File, OpenOptions, Permissions, TryLockError},
    io::{self, Read as _, Write as _},
    net::SocketAddr,
    os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _, PermissionsExt as _},
    path::{Path, PathBuf},
};

use aegis_broker::secret::Secret;

use crate::error::CliError;

/// Token of the admin that the first start makes.
pub const ADMIN_TOKEN: &str = "admin.token";
/// Token of the approver that `aegis dev` makes.
pub const APPROVER_TOKEN: &str = "approver.token";

/// Folder of the certificate authority.
pub const CA: &str = "ca";

/// The folder, held by this process alone until dropped.
///
/// Only the holder writes [`Held::publish`], and it clears what an earlier holder left.
/// So while somebody holds the folder, the addresses in it are that holder's or not there yet,
/// and a token is never sent to whoever has a dead gateway's port now.
pub struct Held {
    folder: PathBuf,
    _lock: File,
}

impl Held {
    /// Makes the folder where there is none, for its owner only. `None` when another process holds it.
    pub fn take(folder: &Path) -> Result<Option<Self>, CliError> {
        make_private_folder(folder).map_err(|e| failed("make", folder, &e))?;
        let path = folder.join(LOCK);
        let lock = OpenOptions::new().create(true).truncate(false).write(true).mode(0o600).open(&path);
        let lock = lock.map_err(|e| failed("open", &path, &e))?;
        match lock.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => return Ok(None),
            Err(TryLockError::Error(e)) => return Err(failed("lock", &path, &e)),
        }
        let held = Self { folder: folder.to_owned(), _lock: lock };
        held.withdraw()?;
        Ok(Some(held))
    }

    /// Tells other commands where agents come in and where the admin API is. Who sees the latter sees both.
    pub fn publish(&self, listen: SocketAddr, admin: SocketAddr) -> Result<(), CliError> {
        write_private(&self.folder.join(LISTEN_ADDRESS), format!("{listen}\n").as_bytes())?;
        write_private(&self.folder.join(ADMIN_ADDRESS), format!("{admin}\n").as_bytes())
    }

    /// The same, where another holder is an error.
    pub fn alone(folder: &Path) -> Result<Self, CliError> {
        Self::take(folder)?.ok_or_else(|| {
            let at = admin_address(folder).map(|a| format!(" (its admin API is at {a})")).unwrap_or_default();
            CliError::failed(format!("another gateway has `{}` open{at}", folder.display()))
        })
    }

    fn withdraw(&self) -> Result<(), CliError> {
        for name in [ADMIN_ADDRESS, LISTEN_ADDRESS] {
            let path = self.folder.join(name);
            match fs::remove_file(&path) {
                Err(e) if e.kind() != io::ErrorKind::NotFound => return Err(failed("remove", &path, &e)),
                _ => {}
            }
        }
        Ok(())
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        // Before the lock goes: the next holder may publish its own right after.
        let _ = self.withdraw();
    }
}

/// Where the holder of the folder serves the admin API, if it does yet.
pub fn admin_address(folder: &Path) -> Option<SocketAddr> {
    published(folder, ADMIN_ADDRESS)
}

/// Where the holder of the folder lets agents in, if it does yet.
pub fn listen_address(folder: &Path) -> Option<SocketAddr> {
    published(folder, LISTEN_ADDRESS)
}

fn published(folder: &Path, name: &str) -> Option<SocketAddr> {
    fs::read_to_string(folder.join(name)).ok()?.trim().parse().ok()
}

/// Reads a token file. Refuses one that others can read: whoever could may have it already.
pub fn read_token(path: &Path) -> Result<Secret, CliError> {
    let found = fs::metadata(path).map_err(|e| unreadable(path, &e))?;
    if found.permissions().mode() & 0o077 != 0 {
        return Err(CliError::usage(format!(
            "`{0}` can be read by others; run `chmod 600 {0}` and issue a new token",
            path.display()
        )));
    }
    read_token_anyway(path)
}

/// Reads a token file, whoever else can.
pub fn read_token_anyway(path: &Path) -> Result<Secret, CliError> {
    let mut text = String::new();
    let read = File::open(path).and_then(|file| file.take(4096).read_to_string(&mut text));
    read.map_err(|e| unreadable(path, &e))?;
    Ok(Secret::from(text.trim().to_owned()))
}

fn unreadable(path: &Path, error: &io::Error) -> CliError {
    CliError::usage(format!("`{}` cannot be read: {error}", path.display()))
}

/// Writes a file for its owner only, in one step and durably.
pub fn write_private(path: &Path, bytes: &[u8]) -> Result<(), CliError> {
    let mut name = path.as_os_str().to_owned();
    name.push(".tmp");
    let fresh = PathBuf::from(name);
    let write = || -> io::Result<()> {
        let _ = fs::remove_file(&fresh);
        let mut file = OpenOptions::new().create_new(true).write(true).mode(0o600).open(&fresh)?;
        file.write_all(bytes)?;
        file.sync_all()?;
        fs::rename(&fresh, path)?;
        let folder = path.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or(Path::new("."));
        File::open(folder)?.sync_all()
    };
    write().map_err(|e| failed("write", path, &e))
}

/// Makes a folder for its owner only, and takes others' rights away where it exists.
pub fn make_private_folder(folder: &Path) -> io::Result<()> {
    fs::DirBuilder::new().recursive(true).mode(0o700).create(folder)?;
    let mode = fs::metadata(folder)?.permissions().mode();
    if mode & 0o077 != 0 {
        tracing::warn!(path = %folder.display(), "state folder was open to other users; its mode is now 0700");
        fs::set_permissions(folder, Permissions::from_mode(0o700))?;
    }
    Ok(())
}

fn failed(doing: &str, path: &Path, error: &io::Error) -> CliError {
    CliError::failed(format!("cannot {doing} `{}`: {error}", path.display()))
}

const LOCK: &str = "lock";
const ADMIN_ADDRESS: &str = "admin.addr";
const LISTEN_ADDRESS: &str = "listen.addr";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_holder_at_a_time_and_its_address_goes_with_it() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("state");
        let held = Held::take(&path).unwrap().unwrap();
        held.publish("127.0.0.1:8".parse().unwrap(), "127.0.0.1:9".parse().unwrap()).unwrap();
        assert!(Held::take(&path).unwrap().is_none());
        assert_eq!(admin_address(&path), Some("127.0.0.1:9".parse().unwrap()));
        assert_eq!(listen_address(&path), Some("127.0.0.1:8".parse().unwrap()));
        drop(held);
        assert_eq!((admin_address(&path), listen_address(&path)), (None, None));
        assert!(Held::take(&path).unwrap().is_some());
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o700);
    }

    #[test]
    fn a_dead_holders_address_is_cleared_by_the_next() {
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join(ADMIN_ADDRESS), "127.0.0.1:9").unwrap();
        let _held = Held::take(folder.path()).unwrap().unwrap();
        assert_eq!(admin_address(folder.path()), None);
    }

    #[test]
    fn a_token_that_others_can_read_is_not_used() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("t");
        write_private(&path, b"aegis_adm_x\n").unwrap();
        assert_eq!(read_token(&path).unwrap().expose(), b"aegis_adm_x");
        fs::set_permissions(&path, Permissions::from_mode(0o640)).unwrap();
        assert!(read_token(&path).unwrap_err().to_string().contains("chmod 600"));
    }
}
