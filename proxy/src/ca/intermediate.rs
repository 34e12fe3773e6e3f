//! The intermediate: signs leaves for a year, for the permitted hosts alone.

use aegis_action::Timestamp;
use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair, KeyUsagePurpose,
    NameConstraints, PKCS_ECDSA_P256_SHA256, PublicKeyData as _,
};
use rustls::pki_types::CertificateDer;
use x509_parser::{certificate::X509Certificate, parse_x509_certificate};

use super::{
    CaError, Provided,
    files::{self, Folder, INTERMEDIATE, INTERMEDIATE_KEY},
    leaf::{base, fingerprint},
    permitted::Permitted,
    root::Root,
    status::validity,
};

/// What leaves are signed with.
pub(super) struct Intermediate {
    /// The intermediate first, then what clients need to reach a root; the root itself where it is known.
    pub(super) chain: Vec<CertificateDer<'static>>,
    pub(super) not_after: Timestamp,
    pub(super) issuer: Issuer<'static, KeyPair>,
}

impl Intermediate {
    /// A new one, with a key of its own.
    pub(super) fn issue(root: &Root, constraints: NameConstraints, now: Timestamp) -> Result<Self, CaError> {
        let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256)?;
        let not_after = root.not_after().min(now.plus_seconds(LIFE));
        let mut params: CertificateParams = base(now, not_after)?;
        params.distinguished_name.push(DnType::CommonName, "Aegis intermediate");
        params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
        params.name_constraints = Some(constraints);
        params.use_authority_key_identifier_extension = true;
        let certificate: CertificateDer<'static> = params.signed_by(&key, &root.issuer()?)?.into();
        let issuer = Issuer::new(params, key);
        Ok(Self { chain: vec![certificate, root.certificate()], not_after, issuer })
    }

    /// What is on disk, with the hosts that it is limited to. `None` where it is missing, damaged, or could have been read by others: then a new
    /// one is issued, which costs nobody anything.
    pub(super) fn load(folder: &Folder) -> Option<(Self, Permitted)> {
        if !folder.is_private(INTERMEDIATE_KEY) {
            return None;
        }
        let chain = files::certificates(&folder.read(INTERMEDIATE).ok()??).ok()?;
        let key = files::private_key(&folder.read(INTERMEDIATE_KEY).ok()??).ok()?;
        let key = KeyPair::try_from(&key).ok()?;
        let [certificate, _] = chain.as_slice() else { return None };
        let (_, parsed) = parse_x509_certificate(certificate).ok()?;
        let permitted = Permitted::read(&parsed)?;
        if !matches(&parsed, &key) {
            return None;
        }
        let (_, not_after) = validity(certificate)?;
        let issuer = Issuer::from_ca_cert_der(certificate, key).ok()?;
        Some((Self { not_after, issuer, chain }, permitted))
    }

    /// The key first: a crash in between leaves a pair that does not match, which is not used.
    pub(super) fn store(&self, folder: &Folder) -> Result<(), CaError> {
        folder.write(INTERMEDIATE_KEY, files::key_pem(self.issuer.key().serialized_der()).as_bytes())?;
        folder.write(INTERMEDIATE, files::pem(&self.chain).as_bytes())
    }

    /// Whether `root` signed it and it has some time left.
    pub(super) fn serves(&self, root: &CertificateDer<'_>, now: Timestamp) -> bool {
        let signed = || {
            let (_, root) = parse_x509_certificate(root).ok()?;
            let (_, own) = parse_x509_certificate(self.chain.first()?).ok()?;
            own.verify_signature(Some(root.public_key())).ok()
        };
        now < self.not_after.plus_seconds(-RENEW_BEFORE) && self.chain.last() == Some(root) && signed().is_some()
    }

    /// What is sent with a leaf. A root of ours is not: clients have it, or would not trust it.
    pub(super) fn sent(&self) -> impl Iterator<Item = &CertificateDer<'static>> {
        self.chain.iter().filter(|der| !is_root(der))
    }

    pub(super) fn fingerprint(&self) -> String {
        self.chain.first().map(|der| fingerprint(der)).unwrap_or_default()
    }

    pub(super) fn root_fingerprint(&self) -> String {
        self.chain.last().map(|der| fingerprint(der)).unwrap_or_default()
    }
}

/// The operator's own. Everything about it is checked that would otherwise show up at clients.
pub(super) fn provided(from: &Provided, now: Timestamp) -> Result<Intermediate, CaError> {
    let bad = |path: &std::path::Path, why: &str| CaError::Provided { path: path.to_owned(), why: why.to_owned() };
    let chain = files::read_certificates(&from.certificate)?;
    let key = files::read_key(&from.key)?;
    let key = KeyPair::try_from(&key).map_err(|_| bad(&from.key, "it is not a PKCS #8 key of a supported kind"))?;
    let first = chain.first().ok_or_else(|| bad(&from.certificate, "there is no certificate in it"))?;
    let (_, parsed) =
        parse_x509_certificate(first).map_err(|_| bad(&from.certificate, "its first certificate cannot be read"))?;
    if !parsed.is_ca() {
        return Err(bad(&from.certificate, "its first certificate may not sign others (CA is not set)"));
    }
    if !matches(&parsed, &key) {
        return Err(bad(&from.key, "it is not the key of the certificate"));
    }
    let not_after = match validity(first) {
        Some((from, until)) if from <= now && now < until => until,
        Some(_) => return Err(bad(&from.certificate, "it is not valid now")),
        None => return Err(bad(&from.certificate, "its dates cannot be read")),
    };
    let issuer = Issuer::from_ca_cert_der(first, key)?;
    Ok(Intermediate { not_after, issuer, chain })
}

fn matches(certificate: &X509Certificate<'_>, key: &KeyPair) -> bool {
    certificate.public_key().raw == key.subject_public_key_info()
}

fn is_root(der: &CertificateDer<'_>) -> bool {
    parse_x509_certificate(der).is_ok_and(|(_, c)| c.subject() == c.issuer())
}

const LIFE: i64 = 365 * 86_400;
/// How long before its end a new one is issued, seconds.
pub(super) const RENEW_BEFORE: i64 = 30 * 86_400;
