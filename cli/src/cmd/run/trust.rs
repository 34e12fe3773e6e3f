//! Certificates for the command, in files of a temporary folder that goes with the run.
//!
//! Some clients add what they are given to the roots they know, others replace theirs. For the
//! latter the system's roots come along: an opaque tunnel that a policy permits ends at a host with
//! a certificate from one of them.

use std::{
    fs::{self, Permissions},
    io::{self, Write as _},
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
};

use rustls::pki_types::{CertificateDer, pem::PemObject as _};
use sha1::{Digest as _, Sha1};
use tempfile::TempDir;

use crate::error::CliError;

/// Files with certificates.
#[derive(Debug)]
pub struct Trust {
    /// The system's roots and the gateway's, PEM.
    pub bundle: PathBuf,
    /// The gateway's only, PEM.
    pub ours: PathBuf,
    /// The same as `bundle`, for Java.
    pub java: PathBuf,
}

impl Trust {
    /// Writes them. `gateway` is what `GET /v1/ca` answered.
    pub fn write(folder: &Path, gateway: &[u8]) -> Result<Self, CliError> {
        let ours = certificates(gateway);
        if ours.is_empty() {
            return Err(CliError::failed("the gateway names no certificate to trust"));
        }
        let system = system_roots();
        let all: Vec<&CertificateDer<'_>> = system.iter().flat_map(|(_, roots)| roots).chain(&ours).collect();
        let mut bundle = system.as_ref().map(|(text, _)| text.clone()).unwrap_or_default();
        bundle.push(b'\n');
        bundle.extend_from_slice(gateway);
        Ok(Self {
            bundle: write(folder, "bundle.pem", &bundle)?,
            ours: write(folder, "ca.pem", gateway)?,
            java: write(folder, "java.jks", &key_store(&all))?,
        })
    }
}

/// A folder for its owner only, removed when dropped.
pub fn folder() -> Result<TempDir, CliError> {
    let made = tempfile::Builder::new().prefix("aegis-run-").permissions(Permissions::from_mode(0o700)).tempdir();
    made.map_err(|e| CliError::failed(format!("a temporary folder cannot be made: {e}")))
}

fn write(folder: &Path, name: &str, bytes: &[u8]) -> Result<PathBuf, CliError> {
    let path = folder.join(name);
    let written = fs::File::create_new(&path).and_then(|mut file| file.write_all(bytes));
    written.map_err(|e: io::Error| CliError::failed(format!("`{}` cannot be written: {e}", path.display())))?;
    Ok(path)
}

/// Those that can be read; what else is in the text is for people.
fn certificates(pem: &[u8]) -> Vec<CertificateDer<'static>> {
    CertificateDer::pem_slice_iter(pem).filter_map(Result::ok).collect()
}

/// The roots that clients on this machine trust, where there are any.
fn system_roots() -> Option<(Vec<u8>, Vec<CertificateDer<'static>>)> {
    let named = std::env::var_os("SSL_CERT_FILE").map(PathBuf::from);
    named.into_iter().chain(SYSTEM_ROOTS.iter().map(PathBuf::from)).find_map(|path| {
        let text = fs::read(path).ok()?;
        let roots = certificates(&text);
        (!roots.is_empty()).then_some((text, roots))
    })
}

/// A key store of trusted certificates in the JKS format, which every Java version reads; PEM none does yet.
///
/// Layout: magic, version 2, count; per entry tag 2, alias, time, `X.509`, DER; SHA-1 over password, a
/// constant and all of that. The password guards nothing here and is the one that Java's own store has.
fn key_store(roots: &[&CertificateDer<'_>]) -> Vec<u8> {
    let mut out = Vec::new();
    out.extend_from_slice(&0xFEED_FEED_u32.to_be_bytes());
    out.extend_from_slice(&2_u32.to_be_bytes());
    out.extend_from_slice(&length(roots.len()));
    for (n, root) in roots.iter().enumerate() {
        out.extend_from_slice(&2_u32.to_be_bytes());
        text(&mut out, &format!("root-{n}"));
        out.extend_from_slice(&0_u64.to_be_bytes());
        text(&mut out, "X.509");
        out.extend_from_slice(&length(root.len()));
        out.extend_from_slice(root);
    }
    let mut digest = Sha1::new();
    for unit in "changeit".encode_utf16() {
        digest.update(unit.to_be_bytes());
    }
    digest.update("Mighty Aphrodite");
    digest.update(&out);
    out.extend_from_slice(&digest.finalize());
    out
}

fn text(out: &mut Vec<u8>, text: &str) {
    // Aliases are short and ASCII, so Java's modified UTF-8 is the same.
    out.extend_from_slice(&u16::try_from(text.len()).unwrap_or(u16::MAX).to_be_bytes());
    out.extend_from_slice(text.as_bytes());
}

/// A certificate bundle is read whole into memory: four bytes count it.
fn length(n: usize) -> [u8; 4] {
    u32::try_from(n).unwrap_or(u32::MAX).to_be_bytes()
}

/// Debian, Red Hat, SUSE, Alpine and FreeBSD keep them here.
const SYSTEM_ROOTS: [&str; 5] = [
    "/etc/ssl/certs/ca-certificates.crt",
    "/etc/pki/tls/certs/ca-bundle.crt",
    "/etc/pki/ca-trust/extracted/pem/tls-ca-bundle.pem",
    "/etc/ssl/ca-bundle.pem",
    "/etc/ssl/cert.pem",
];
