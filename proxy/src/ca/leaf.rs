//! Leaves: one host each, a week at most, all with the one key of this process.

use std::{net::IpAddr, sync::Arc, time::Duration};

use aegis_action::{Timestamp, sha256};
use aegis_broker::env::{Random as _, SystemRandom};
use moka::sync::Cache;
use rcgen::{
    CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, KeyPair, KeyUsagePurpose,
    PKCS_ECDSA_P256_SHA256, SanType, SerialNumber,
};
use rustls::{
    crypto::ring::sign::any_ecdsa_type,
    pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer},
    sign::{CertifiedKey, SigningKey},
};
use time::OffsetDateTime;

use super::{CaError, intermediate::Intermediate};

/// The key of all leaves.
pub(super) struct LeafKey {
    pair: KeyPair,
    signing: Arc<dyn SigningKey>,
}

impl LeafKey {
    pub(super) fn generate() -> Result<Self, CaError> {
        let pair = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256)?;
        let der = PrivateKeyDer::from(PrivatePkcs8KeyDer::from(pair.serialize_der()));
        let signing = any_ecdsa_type(&der).map_err(|e| CaError::Failed(e.to_string()))?;
        Ok(Self { pair, signing })
    }

    /// A certificate for one host, with the chain that is sent.
    pub(super) fn mint(&self, host: &str, by: &Intermediate, now: Timestamp) -> Result<CertifiedKey, CaError> {
        // Never longer than what signs it: a client would find the leaf good and the chain expired.
        let not_after = by.not_after.min(now.plus_seconds(LIFE - BACKDATED));
        if not_after <= now {
            return Err(CaError::Expired);
        }
        let mut params = base(now, not_after)?;
        // No common name: it would be a second place for the host, limited to 64 characters.
        params.subject_alt_names = vec![match host.parse::<IpAddr>() {
            Ok(address) => SanType::IpAddress(address),
            Err(_) => SanType::DnsName(host.to_owned().try_into()?),
        }];
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
        params.use_authority_key_identifier_extension = true;
        let leaf = params.signed_by(&self.pair, &by.issuer)?;
        let chain = std::iter::once(leaf.into()).chain(by.sent().cloned()).collect();
        Ok(CertifiedKey::new(chain, self.signing.clone()))
    }
}

/// Minted leaves. They leave the cache with most of their life ahead of them.
pub(super) fn cache() -> Cache<String, Arc<CertifiedKey>> {
    Cache::builder().max_capacity(MAX_LEAVES).time_to_live(KEPT).build()
}

/// What all certificates have: dates, a serial number of their own, and whose they are.
pub(super) fn base(now: Timestamp, not_after: Timestamp) -> Result<CertificateParams, CaError> {
    let at =
        |t: Timestamp| OffsetDateTime::from_unix_timestamp(t.seconds()).map_err(|e| CaError::Failed(e.to_string()));
    let mut params = CertificateParams::default();
    // Clocks of clients may be behind.
    params.not_before = at(now.plus_seconds(-BACKDATED))?;
    params.not_after = at(not_after)?;
    // Made from the key by default, which all leaves share.
    params.serial_number = Some(serial()?);
    params.distinguished_name = DistinguishedName::new();
    params.distinguished_name.push(DnType::OrganizationName, "Aegis");
    Ok(params)
}

pub(super) fn serial() -> Result<SerialNumber, CaError> {
    let mut bytes = [0; 16];
    SystemRandom.fill(&mut bytes).map_err(|e| CaError::Failed(e.to_string()))?;
    // Positive, and never empty (RFC 5280, section 4.1.2.2).
    if let Some(first) = bytes.first_mut() {
        *first = (*first & 0x7f) | 0x40;
    }
    Ok(SerialNumber::from_slice(&bytes))
}

/// SHA-256 of a certificate, as browsers and `openssl x509 -fingerprint` show it, without colons.
pub(super) fn fingerprint(der: &CertificateDer<'_>) -> String {
    sha256(der).to_hex()
}

/// One week from end to end.
const LIFE: i64 = 7 * 86_400;
const BACKDATED: i64 = 3600;
const KEPT: Duration = Duration::from_secs(86_400);
const MAX_LEAVES: u64 = 4096;
