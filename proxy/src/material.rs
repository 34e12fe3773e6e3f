//! Roots and client certificates in the form that Pingora's connector takes.

use std::sync::Arc;

use aegis_action::Digest;
use aegis_broker::{
    config::{ClientCertificate, ClientKey, Roots, Route},
    credential::{Credential, Secrets},
    secret::Secret,
};
use moka::sync::Cache;
use pingora_core::{
    protocols::tls::CaType,
    utils::tls::{CertKey, WrappedX509, parse_x509},
};

use crate::dial::DialError;

/// What one connection verifies with, and what it shows.
#[derive(Clone, Default)]
pub(crate) struct Tls {
    /// `None` verifies with the system's roots.
    pub(crate) roots: Option<Arc<CaType>>,
    pub(crate) client: Option<Arc<CertKey>>,
}

/// Built once for a set of roots, and for a certificate with one version of its key.
pub(crate) struct Material {
    roots: Cache<Digest, Arc<CaType>>,
    clients: Cache<(Digest, String, String), Arc<CertKey>>,
}

impl Default for Material {
    fn default() -> Self {
        Self { roots: Cache::new(CACHED), clients: Cache::new(CACHED) }
    }
}

impl Material {
    pub(crate) fn of(&self, route: &Route, secrets: &Secrets) -> Result<Tls, DialError> {
        let client = match &route.egress.client {
            Some(certificate) => Some(self.client(certificate, secrets.client_key.as_deref())?),
            None => None,
        };
        Ok(Tls { roots: route.egress.roots.as_deref().map(|r| self.roots(r)), client })
    }

    fn roots(&self, roots: &Roots) -> Arc<CaType> {
        self.roots.get_with(roots.fingerprint, || roots.certificates.iter().map(|der| parsed(der)).collect())
    }

    fn client(&self, certificate: &ClientCertificate, key: Option<&Credential>) -> Result<Arc<CertKey>, DialError> {
        let (id, version) = key.map_or(("", ""), |k| (&k.id, &k.version));
        let name = (certificate.fingerprint, id.to_owned(), version.to_owned());
        self.clients.try_get_with(name, || usable(certificate, key)).map_err(|e| DialError::ClientKey((*e).clone()))
    }
}

/// The certificate with its key, which the connector takes for granted.
fn usable(certificate: &ClientCertificate, key: Option<&Credential>) -> Result<Arc<CertKey>, String> {
    let leased: Secret;
    let key = match (&certificate.key, key) {
        (ClientKey::Bytes(bytes), _) => bytes,
        (ClientKey::Credential(_), Some(credential)) => {
            leased = credential.client_key().map_err(|e| e.to_string())?;
            &leased
        }
        (ClientKey::Credential(name), None) => return Err(format!("`{name}` was not leased")),
    };
    if !certificate.takes(key) {
        return Err("the key is not the client certificate's".into());
    }
    Ok(Arc::new(CertKey::new(certificate.chain.clone(), key.expose().to_vec())))
}

/// The parser aborts on what it does not take; `config` has tried each certificate with it.
fn parsed(der: &[u8]) -> WrappedX509 {
    WrappedX509::new(der.to_vec(), parse_x509)
}

const CACHED: u64 = 256;
