//! The root: what clients trust for ten years, and what signs only intermediates.
//!
//! Certificate and key are sealed together, so that nothing but what was sealed here is ever signed with.

use aegis_action::Timestamp;
use aegis_broker::sealer::Sealer;
use rcgen::{
    BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair, KeyUsagePurpose, PKCS_ECDSA_P256_SHA256,
};
use rustls::pki_types::{CertificateDer, PrivatePkcs8KeyDer};
use zeroize::Zeroizing;

use super::{
    CaError,
    files::{Folder, NEXT, ROOT},
    leaf::{base, fingerprint, serial},
    status::validity,
};

/// A root with its key, in memory for as long as it signs.
pub(super) struct Root {
    certificate: CertificateDer<'static>,
    key: Zeroizing<KeyPair>,
}

/// The roots of an installation, without their keys.
pub(super) struct Roots {
    /// The one that signs.
    pub(super) active: CertificateDer<'static>,
    /// The one that takes over, during a rotation.
    pub(super) next: Option<Next>,
}

/// A root that clients are given time to install.
pub(super) struct Next {
    pub(super) certificate: CertificateDer<'static>,
    /// When it takes over.
    pub(super) from: Timestamp,
}

impl Root {
    pub(super) fn generate(now: Timestamp) -> Result<Self, CaError> {
        let key = Zeroizing::new(KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256)?);
        let id = serial()?;
        let name =
            format!("Aegis root {}", id.to_bytes().iter().take(4).map(|b| format!("{b:02x}")).collect::<String>());
        let mut params: CertificateParams = base(now, now.plus_seconds(LIFE))?;
        params.distinguished_name.push(DnType::CommonName, name);
        params.is_ca = IsCa::Ca(BasicConstraints::Constrained(1));
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        let certificate = params.self_signed(&*key)?.into();
        Ok(Self { certificate, key })
    }

    pub(super) fn certificate(&self) -> CertificateDer<'static> {
        self.certificate.clone()
    }

    pub(super) fn fingerprint(&self) -> String {
        fingerprint(&self.certificate)
    }

    pub(super) fn not_after(&self) -> Timestamp {
        validity(&self.certificate).map_or(Timestamp(0), |(_, end)| end)
    }

    /// What signs with it.
    pub(super) fn issuer(&self) -> Result<Issuer<'_, &KeyPair>, CaError> {
        Ok(Issuer::from_ca_cert_der(&self.certificate, &*self.key)?)
    }

    /// Makes it the one that signs. A crash leaves the old file or the new one.
    pub(super) fn seal(&self, folder: &Folder, sealer: &dyn Sealer) -> Result<(), CaError> {
        folder.write(ROOT, &self.sealed(sealer, ROOT, Timestamp(0))?)
    }

    /// Makes it the one that takes over at `from`.
    pub(super) fn seal_next(&self, folder: &Folder, sealer: &dyn Sealer, from: Timestamp) -> Result<(), CaError> {
        folder.write(NEXT, &self.sealed(sealer, NEXT, from)?)
    }

    /// The root that signs, which must be `expected`.
    pub(super) fn unseal(folder: &Folder, sealer: &dyn Sealer, expected: &CertificateDer<'_>) -> Result<Self, CaError> {
        match read(folder, sealer, ROOT)? {
            Some((root, _)) if root.certificate == *expected => Ok(root),
            Some(_) | None => {
                Err(CaError::Failed(format!("`{}` was changed by somebody else", folder.path(ROOT).display())))
            }
        }
    }

    /// The root that takes over.
    pub(super) fn unseal_next(folder: &Folder, sealer: &dyn Sealer) -> Result<Option<Self>, CaError> {
        Ok(read(folder, sealer, NEXT)?.map(|(root, _)| root))
    }

    fn sealed(&self, sealer: &dyn Sealer, label: &str, from: Timestamp) -> Result<Vec<u8>, CaError> {
        let mut plain = Zeroizing::new(Vec::new());
        plain.extend_from_slice(&from.0.to_be_bytes());
        plain.extend_from_slice(&u32::try_from(self.certificate.len()).unwrap_or(u32::MAX).to_be_bytes());
        plain.extend_from_slice(&self.certificate);
        plain.extend_from_slice(self.key.serialized_der());
        sealer.seal(format!("ca/{label}").as_bytes(), &plain).ok_or(CaError::NotSealed)
    }
}

impl Roots {
    /// `None` where there is no root yet. A rotation that a crash cut short just after the switch is tidied up.
    pub(super) fn load(folder: &Folder, sealer: &dyn Sealer) -> Result<Option<Self>, CaError> {
        let Some((active, _)) = read(folder, sealer, ROOT)? else { return Ok(None) };
        let next = read(folder, sealer, NEXT)?.map(|(root, from)| Next { certificate: root.certificate, from });
        if next.as_ref().is_some_and(|next| next.certificate == active.certificate) {
            folder.remove(NEXT)?;
            return Ok(Some(Self { active: active.certificate, next: None }));
        }
        Ok(Some(Self { active: active.certificate, next }))
    }
}

/// A sealed root and its date.
fn read(folder: &Folder, sealer: &dyn Sealer, label: &str) -> Result<Option<(Root, Timestamp)>, CaError> {
    let Some(sealed) = folder.read(label)? else { return Ok(None) };
    let foreign = || CaError::Sealed(folder.path(label));
    let plain = sealer.open(format!("ca/{label}").as_bytes(), &sealed).map(Zeroizing::new).ok_or_else(foreign)?;
    let (from, rest) = plain.split_first_chunk::<8>().ok_or_else(foreign)?;
    let (length, rest) = rest.split_first_chunk::<4>().ok_or_else(foreign)?;
    let length = usize::try_from(u32::from_be_bytes(*length)).map_err(|_| foreign())?;
    let (certificate, key) = rest.split_at_checked(length).ok_or_else(foreign)?;
    let key = KeyPair::from_pkcs8_der_and_sign_algo(&PrivatePkcs8KeyDer::from(key), &PKCS_ECDSA_P256_SHA256)?;
    let certificate = CertificateDer::from(certificate.to_vec());
    Ok(Some((Root { certificate, key: Zeroizing::new(key) }, Timestamp(i64::from_be_bytes(*from)))))
}

const LIFE: i64 = 3650 * 86_400;
