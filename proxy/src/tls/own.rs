//! A certificate of the operator's own, for the gateway's own names.

use std::{
    net::IpAddr,
    path::{Path, PathBuf},
    sync::Arc,
};

use arc_swap::ArcSwap;
use rustls::{crypto::ring, sign::CertifiedKey};
use x509_parser::{extensions::GeneralName, parse_x509_certificate};

use crate::ca::{CaError, read_certificates, read_key};

/// Certificate and key from files, read again on reload.
pub struct OwnCertificate {
    certificate: PathBuf,
    key: PathBuf,
    loaded: ArcSwap<Loaded>,
}

struct Loaded {
    pair: Arc<CertifiedKey>,
    /// Lower case, as in the certificate; `*.` in front stands for one label.
    names: Vec<String>,
}

impl OwnCertificate {
    /// Reads both files; they must belong together.
    pub fn open(certificate: &Path, key: &Path) -> Result<Self, CaError> {
        let loaded = ArcSwap::from_pointee(load(certificate, key)?);
        Ok(Self { certificate: certificate.to_owned(), key: key.to_owned(), loaded })
    }

    /// Reads both files again. What is not usable changes nothing.
    pub fn reload(&self) -> Result<(), CaError> {
        self.loaded.store(Arc::new(load(&self.certificate, &self.key)?));
        Ok(())
    }

    pub(super) fn current(&self) -> Arc<CertifiedKey> {
        self.loaded.load().pair.clone()
    }

    /// Whether it is for this name.
    pub(super) fn names(&self, name: &str) -> bool {
        self.loaded.load().names.iter().any(|own| fits(own, name))
    }
}

fn load(certificate: &Path, key: &Path) -> Result<Loaded, CaError> {
    let bad = |path: &Path, why: String| CaError::Provided { path: path.to_owned(), why };
    let chain = read_certificates(certificate)?;
    let names = chain.first().and_then(|der| names_of(der)).unwrap_or_default();
    let pair = CertifiedKey::from_der(chain, read_key(key)?, &ring::default_provider());
    let pair = pair.map_err(|e| bad(key, format!("it cannot be used with `{}`: {e}", certificate.display())))?;
    if names.is_empty() {
        return Err(bad(certificate, "it names no host".into()));
    }
    Ok(Loaded { pair: Arc::new(pair), names })
}

fn names_of(der: &[u8]) -> Option<Vec<String>> {
    let (_, certificate) = parse_x509_certificate(der).ok()?;
    let names = certificate.subject_alternative_name().ok()??.value;
    let name = |name: &GeneralName<'_>| match name {
        GeneralName::DNSName(name) => Some(name.to_ascii_lowercase()),
        GeneralName::IPAddress(bytes) => match bytes.len() {
            4 => <[u8; 4]>::try_from(*bytes).ok().map(|b| IpAddr::from(b).to_string()),
            _ => <[u8; 16]>::try_from(*bytes).ok().map(|b| IpAddr::from(b).to_string()),
        },
        _ => None,
    };
    Some(names.general_names.iter().filter_map(name).collect())
}

fn fits(own: &str, name: &str) -> bool {
    match own.strip_prefix("*.") {
        Some(parent) => name.split_once('.').is_some_and(|(label, rest)| !label.is_empty() && rest == parent),
        None => own == name,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_star_stands_for_one_label() {
        assert!(fits("*.example.com", "gw.example.com"));
        for no in ["example.com", "a.gw.example.com", ".example.com", "gw.example.org"] {
            assert!(!fits("*.example.com", no), "{no}");
        }
        assert!(fits("gw", "gw") && !fits("gw", "gw2"));
    }
}
