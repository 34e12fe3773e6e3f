//! What is known of an authority without its keys.

use aegis_action::Timestamp;
use rustls::pki_types::CertificateDer;
use x509_parser::parse_x509_certificate;

use super::{Authority, CaError, files, files::BUNDLE, leaf::fingerprint};

/// Roots and intermediate.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CaStatus {
    /// PEM of the roots to trust.
    pub bundle: String,
    /// The same, one by one, the one that signs first.
    pub roots: Vec<RootStatus>,
    /// When the second root takes over, during a rotation.
    pub rotates_at: Option<Timestamp>,
    /// When the intermediate ends.
    pub intermediate_not_after: Timestamp,
    /// Whether the intermediate is the operator's own.
    pub provided: bool,
}

/// A root.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RootStatus {
    /// SHA-256 of the certificate, hex.
    pub fingerprint: String,
    /// Subject.
    pub subject: String,
    /// First second of its life.
    pub not_before: Timestamp,
    /// End of its life.
    pub not_after: Timestamp,
}

impl Authority {
    /// How things stand.
    pub async fn status(&self) -> Result<CaStatus, CaError> {
        let rotates_at = self.roots.lock().await.as_ref().and_then(|r| r.next.as_ref()).map(|next| next.from);
        let bundle = self.roots_pem();
        Ok(CaStatus {
            roots: inspect(bundle.as_bytes()).map_err(CaError::Failed)?,
            bundle: bundle.as_ref().clone(),
            rotates_at,
            intermediate_not_after: self.current.load().intermediate.not_after,
            provided: self.options.provided.is_some(),
        })
    }
}

impl CaStatus {
    /// Name of the bundle in the folder `ca`.
    pub const BUNDLE: &'static str = BUNDLE;
}

/// What a PEM text holds.
pub fn inspect(pem: &[u8]) -> Result<Vec<RootStatus>, String> {
    files::certificates(pem)?.iter().map(describe).collect()
}

fn describe(der: &CertificateDer<'_>) -> Result<RootStatus, String> {
    let (_, certificate) = parse_x509_certificate(der).map_err(|e| e.to_string())?;
    let (not_before, not_after) = validity(der).ok_or("its dates cannot be read")?;
    Ok(RootStatus { fingerprint: fingerprint(der), subject: certificate.subject().to_string(), not_before, not_after })
}

/// First and last second of a certificate's life.
pub(super) fn validity(der: &CertificateDer<'_>) -> Option<(Timestamp, Timestamp)> {
    let (_, certificate) = parse_x509_certificate(der).ok()?;
    let of = |t: x509_parser::time::ASN1Time| Timestamp(t.timestamp().saturating_mul(1000));
    Some((of(certificate.validity().not_before), of(certificate.validity().not_after)))
}
