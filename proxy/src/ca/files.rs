//! Keys and certificates on disk: written in one step, durably, for their owner only unless public.

use std::{
    fs::{self, File, OpenOptions},
    io::{self, Write as _},
    os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _, PermissionsExt as _},
    path::{Path, PathBuf},
};

use base64::{Engine as _, engine::general_purpose::STANDARD};
use rustls::pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject as _};
use zeroize::Zeroizing;

use super::CaError;

/// The folder `ca` of an installation.
#[derive(Debug, Clone)]
pub(super) struct Folder(PathBuf);

impl Folder {
    pub(super) fn new(path: &Path) -> Self {
        Self(path.to_owned())
    }

    pub(super) fn path(&self, name: &str) -> PathBuf {
        self.0.join(name)
    }

    /// `None` where there is no such file.
    pub(super) fn read(&self, name: &str) -> Result<Option<Zeroizing<Vec<u8>>>, CaError> {
        match fs::read(self.path(name)) {
            Ok(bytes) => Ok(Some(Zeroizing::new(bytes))),
            Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(e) => Err(CaError::file("read", self.path(name), &e)),
        }
    }

    /// Writes a file for its owner only.
    pub(super) fn write(&self, name: &str, bytes: &[u8]) -> Result<(), CaError> {
        self.write_as(name, bytes, 0o600)
    }

    /// What clients trust; anybody may read it.
    pub(super) fn publish(&self, bundle: &str) -> Result<(), CaError> {
        self.write_as(BUNDLE, bundle.as_bytes(), 0o644)
    }

    pub(super) fn remove(&self, name: &str) -> Result<(), CaError> {
        match fs::remove_file(self.path(name)) {
            Err(e) if e.kind() != io::ErrorKind::NotFound => Err(CaError::file("remove", self.path(name), &e)),
            _ => self.sync().map_err(|e| CaError::file("sync", &self.0, &e)),
        }
    }

    /// Whether nobody but the owner can read the file.
    pub(super) fn is_private(&self, name: &str) -> bool {
        is_private(&self.path(name))
    }

    fn write_as(&self, name: &str, bytes: &[u8], mode: u32) -> Result<(), CaError> {
        let (path, fresh) = (self.path(name), self.path(&format!("{name}.tmp")));
        let write = || -> io::Result<()> {
            fs::DirBuilder::new().recursive(true).mode(0o700).create(&self.0)?;
            match fs::remove_file(&fresh) {
                Err(e) if e.kind() != io::ErrorKind::NotFound => return Err(e),
                _ => {}
            }
            let mut file = OpenOptions::new().create_new(true).write(true).mode(mode).open(&fresh)?;
            // The process's mask may have taken a public file's rights away.
            file.set_permissions(fs::Permissions::from_mode(mode))?;
            file.write_all(bytes)?;
            file.sync_all()?;
            fs::rename(&fresh, &path)?;
            self.sync()
        };
        write().map_err(|e| CaError::file("write", path.clone(), &e))
    }

    fn sync(&self) -> io::Result<()> {
        File::open(&self.0)?.sync_all()
    }
}

pub(super) fn is_private(path: &Path) -> bool {
    fs::metadata(path).is_ok_and(|m| m.permissions().mode() & 0o077 == 0)
}

/// Certificates as PEM.
pub(super) fn pem(certificates: &[CertificateDer<'_>]) -> String {
    certificates.iter().map(|der| block("CERTIFICATE", der)).collect()
}

/// A private key as PEM.
pub(super) fn key_pem(pkcs8: &[u8]) -> Zeroizing<String> {
    Zeroizing::new(block("PRIVATE KEY", pkcs8))
}

/// The certificates of an operator's file.
pub(crate) fn read_certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, CaError> {
    let pem = fs::read(path).map_err(|e| CaError::file("read", path, &e))?;
    certificates(&pem).map_err(|why| CaError::Provided { path: path.to_owned(), why })
}

/// The key of an operator's file, which nobody else may be able to read.
pub(crate) fn read_key(path: &Path) -> Result<PrivateKeyDer<'static>, CaError> {
    let pem = fs::read(path).map(Zeroizing::new).map_err(|e| CaError::file("read", path, &e))?;
    let bad = |why: String| CaError::Provided { path: path.to_owned(), why };
    if !is_private(path) {
        return Err(bad(format!("others can read it; run `chmod 600 {}`", path.display())));
    }
    private_key(&pem).map_err(bad)
}

/// All certificates of a PEM text.
pub(super) fn certificates(pem: &[u8]) -> Result<Vec<CertificateDer<'static>>, String> {
    let all: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(pem).collect();
    match all {
        Ok(all) if !all.is_empty() => Ok(all),
        Ok(_) => Err("there is no certificate in it".into()),
        Err(e) => Err(e.to_string()),
    }
}

/// The private key of a PEM text.
pub(super) fn private_key(pem: &[u8]) -> Result<PrivateKeyDer<'static>, String> {
    PrivateKeyDer::from_pem_slice(pem).map_err(|e| e.to_string())
}

fn block(label: &str, der: &[u8]) -> String {
    let text = Zeroizing::new(STANDARD.encode(der));
    let mut out = format!("-----BEGIN {label}-----\n");
    let mut rest = text.as_str();
    while !rest.is_empty() {
        let (line, after) = rest.split_at(rest.len().min(64));
        out.push_str(line);
        out.push('\n');
        rest = after;
    }
    out.push_str(&format!("-----END {label}-----\n"));
    out
}

/// What clients trust.
pub(super) const BUNDLE: &str = "root.crt";
/// The root that signs, sealed.
pub(super) const ROOT: &str = "root.key.sealed";
/// The root that takes over, sealed.
pub(super) const NEXT: &str = "next.key.sealed";
/// The intermediate.
pub(super) const INTERMEDIATE: &str = "intermediate.crt";
/// Its key.
pub(super) const INTERMEDIATE_KEY: &str = "intermediate.key";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pem_reads_back_and_keys_are_for_their_owner() {
        let der = CertificateDer::from(vec![7; 100]);
        assert_eq!(certificates(pem(&[der.clone(), der.clone()]).as_bytes()).unwrap(), [der.clone(), der]);
        let home = tempfile::tempdir().unwrap();
        let folder = Folder::new(&home.path().join("ca"));
        folder.write("k", b"x").unwrap();
        folder.publish("y").unwrap();
        assert!(folder.is_private("k") && !folder.is_private(BUNDLE));
        assert_eq!(fs::metadata(home.path().join("ca")).unwrap().permissions().mode() & 0o777, 0o700);
        assert_eq!(folder.read("nothing").unwrap(), None);
    }
}
