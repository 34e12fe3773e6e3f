//! Files that `routes.toml` names: certificates and keys, read beside it and judged with it.

use std::{collections::BTreeMap, fmt, fs::File, io::Read as _, os::unix::fs::MetadataExt as _, path::Path};

use rustls::pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject as _};
use toml::de::{DeTable, DeValue};

use crate::secret::Secret;

/// Contents of the named files, by name as written. Read before anything is judged, so that one
/// configuration is one state of all its files.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct NamedFiles(BTreeMap<String, Result<NamedFile, String>>);

#[derive(Clone, PartialEq, Eq)]
struct NamedFile {
    bytes: Secret,
    /// Permission bits.
    mode: u32,
    /// Size and time of change: what tells two states of a file apart without its bytes.
    stamp: (u64, i64, i64),
}

impl NamedFiles {
    /// Reads every file that the text of a `routes.toml` names; relative names start at `base`.
    pub fn read(base: &Path, text: &str) -> Self {
        Self(named(text).into_iter().map(|name| (name.clone(), read(&base.join(&name)))).collect())
    }

    /// The names, as written.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.0.keys().map(String::as_str)
    }

    /// All certificates of a PEM file, DER.
    pub(super) fn certificates(&self, name: &str) -> Result<Vec<Vec<u8>>, String> {
        let file = self.get(name)?;
        let mut out = Vec::new();
        for found in CertificateDer::pem_slice_iter(file.bytes.expose()) {
            let der = found.map_err(|_| format!("`{name}` is not a PEM file of certificates"))?;
            // The TLS stack aborts on what this parser does not take.
            match x509_parser_pingora::parse_x509_certificate(&der) {
                Ok(([], _)) => out.push(der.to_vec()),
                _ => return Err(format!("certificate {} of `{name}` cannot be parsed", out.len() + 1)),
            }
        }
        if out.is_empty() { Err(format!("`{name}` has no certificate; it must be PEM")) } else { Ok(out) }
    }

    /// The private key of a PEM file, DER. The file must be its owner's alone.
    pub(super) fn key(&self, name: &str) -> Result<Secret, String> {
        let file = self.get(name)?;
        if file.mode & 0o077 != 0 {
            return Err(format!("others may use `{name}` (mode {:o}); run `chmod 600` on it", file.mode & 0o777));
        }
        let key = PrivateKeyDer::from_pem_slice(file.bytes.expose())
            .map_err(|_| format!("`{name}` has no private key; it must be PEM"))?;
        Ok(Secret::new(key.secret_der().to_vec()))
    }

    fn get(&self, name: &str) -> Result<&NamedFile, String> {
        match self.0.get(name) {
            Some(Ok(file)) => Ok(file),
            Some(Err(why)) => Err(why.clone()),
            None => Err(format!("`{name}` was not read")),
        }
    }
}

impl fmt::Debug for NamedFiles {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let shown = self.0.iter().map(|(name, file)| (name, file.as_ref().map(|file| (file.mode, file.stamp))));
        f.debug_map().entries(shown).finish()
    }
}

/// Leniently: what is wrong with the text is said by whoever judges it.
fn named(text: &str) -> Vec<String> {
    let Ok(root) = DeTable::parse(text) else { return Vec::new() };
    let root = root.into_inner();
    let Some(DeValue::Array(routes)) = root.get("route").map(|v| v.get_ref()) else { return Vec::new() };
    let mut names: Vec<String> = routes
        .iter()
        .filter_map(|route| match route.get_ref() {
            DeValue::Table(table) => Some(table),
            _ => None,
        })
        .flat_map(|table| KEYS.iter().filter_map(|key| table.get(*key)))
        .filter_map(|value| match value.get_ref() {
            DeValue::String(name) => Some(name.to_string()),
            _ => None,
        })
        .collect();
    names.sort();
    names.dedup();
    names
}

fn read(path: &Path) -> Result<NamedFile, String> {
    let failed = |e: std::io::Error| format!("`{}` cannot be read: {}", path.display(), e.kind());
    // Asked before it is opened: opening a pipe would wait for its other end.
    if !path.metadata().map_err(failed)?.is_file() {
        return Err(format!("`{}` is not a regular file", path.display()));
    }
    let file = File::open(path).map_err(failed)?;
    let about = file.metadata().map_err(failed)?;
    if about.len() > MAX_BYTES {
        return Err(format!("`{}` is larger than {MAX_BYTES} bytes", path.display()));
    }
    // Sized first, so that no reallocation leaves a copy of a key behind.
    let mut bytes = Vec::with_capacity(about.len() as usize + 1);
    file.take(MAX_BYTES).read_to_end(&mut bytes).map_err(failed)?;
    let stamp = (about.len(), about.mtime(), about.mtime_nsec());
    Ok(NamedFile { bytes: Secret::new(bytes), mode: about.mode(), stamp })
}

/// Keys of a `[[route]]` whose values are names of files.
const KEYS: [&str; 3] = ["ca_file", "client_certificate", "client_key"];
const MAX_BYTES: u64 = 1 << 20;
