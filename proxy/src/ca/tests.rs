//! What clients make of our certificates, by the verifier that rustls clients use.

use std::{os::unix::fs::PermissionsExt as _, sync::Arc, time::Duration};

use rustls::{
    RootCertStore,
    client::{WebPkiServerVerifier, danger::ServerCertVerifier as _},
    crypto::ring,
    pki_types::{ServerName, UnixTime},
};

use super::{
    files::{BUNDLE, INTERMEDIATE_KEY, NEXT, ROOT},
    status::validity,
    *,
};

/// Seals by a mask that depends on the label, so that nothing opens in another's place.
struct Masked(u8);

impl Sealer for Masked {
    fn seal(&self, label: &[u8], plain: &[u8]) -> Option<Vec<u8>> {
        let mut out = vec![self.0, label.iter().fold(0, |a, b| a ^ b)];
        out.extend(plain.iter().map(|b| b ^ 0x55));
        Some(out)
    }

    fn open(&self, label: &[u8], sealed: &[u8]) -> Option<Vec<u8>> {
        let (head, body) = sealed.split_at_checked(2)?;
        (head == [self.0, label.iter().fold(0, |a, b| a ^ b)]).then(|| body.iter().map(|b| b ^ 0x55).collect())
    }
}

struct Rig {
    folder: Folder,
    root: Root,
    intermediate: Intermediate,
    key: LeafKey,
    _home: tempfile::TempDir,
}

fn permitted(hosts: &[&str]) -> Permitted {
    Permitted::from_hosts(hosts.iter().copied())
}

fn rig(hosts: &[&str]) -> Rig {
    let home = tempfile::tempdir().unwrap();
    let folder = Folder::new(&home.path().join("ca"));
    let root = Root::generate(NOW).unwrap();
    root.seal(&folder, &Masked(1)).unwrap();
    let intermediate = Intermediate::issue(&root, permitted(hosts).constraints(), NOW).unwrap();
    Rig { folder, root, intermediate, key: LeafKey::generate().unwrap(), _home: home }
}

/// Whether a client that trusts `root` takes the certificate for `name`.
fn taken(root: &Root, chain: &[CertificateDer<'static>], name: &str, at: Timestamp) -> Result<(), String> {
    let mut roots = RootCertStore::empty();
    roots.add(root.certificate()).unwrap();
    let verifier = WebPkiServerVerifier::builder_with_provider(Arc::new(roots), Arc::new(ring::default_provider()));
    let verifier = verifier.build().unwrap();
    let name = ServerName::try_from(name.to_owned()).unwrap();
    let now = UnixTime::since_unix_epoch(Duration::from_millis(u64::try_from(at.0).unwrap()));
    let (leaf, above) = chain.split_first().unwrap();
    verifier.verify_server_cert(leaf, above, &name, &[], now).map(drop).map_err(|e| format!("{e:?}"))
}

#[test]
fn a_leaf_is_good_for_its_own_host_and_a_week() {
    let rig = rig(&["api.example.com", "127.0.0.1", "::1"]);
    for host in ["api.example.com", "127.0.0.1", "::1"] {
        let leaf = rig.key.mint(host, &rig.intermediate, NOW).unwrap();
        assert_eq!(leaf.cert.len(), 2, "leaf and intermediate, without the root");
        taken(&rig.root, &leaf.cert, host, NOW).unwrap();
        // Clocks are not all right.
        taken(&rig.root, &leaf.cert, host, NOW.plus_seconds(-3599)).unwrap();
        assert!(taken(&rig.root, &leaf.cert, "other.example.com", NOW).unwrap_err().contains("NotValidForName"));
        assert!(taken(&rig.root, &leaf.cert, host, NOW.plus_seconds(7 * 86_400)).is_err());
        let (from, until) = validity(leaf.cert.first().unwrap()).unwrap();
        assert!(until.0 - from.0 <= 7 * 86_400_000);
    }
}

#[test]
fn an_intermediate_in_wrong_hands_is_good_for_no_other_host() {
    let limited = rig(&["api.example.com", "127.0.0.1"]);
    for host in ["evil.example.org", "example.com", "10.0.0.1", "::1"] {
        let leaf = limited.key.mint(host, &limited.intermediate, NOW).unwrap();
        let refused = taken(&limited.root, &leaf.cert, host, NOW).unwrap_err();
        assert!(refused.contains("NameConstraintViolation"), "{host}: {refused}");
    }
    for (hosts, other) in [(&["api.example.com"][..], "127.0.0.1"), (&["127.0.0.1"], "api.example.com")] {
        let one_kind = rig(hosts);
        let leaf = one_kind.key.mint(other, &one_kind.intermediate, NOW).unwrap();
        assert!(taken(&one_kind.root, &leaf.cert, other, NOW).is_err(), "{other}");
    }
}

#[test]
fn leaves_share_a_key_and_nothing_else() {
    let rig = rig(&["a.test", "b.test"]);
    let (a, b) = (rig.key.mint("a.test", &rig.intermediate, NOW), rig.key.mint("b.test", &rig.intermediate, NOW));
    let parse = |der: &CertificateDer<'_>| {
        let (_, c) = x509_parser::parse_x509_certificate(der).map_err(|e| e.to_string()).unwrap();
        (c.raw_serial_as_string(), c.public_key().raw.to_vec())
    };
    let (a, b) = (parse(a.unwrap().cert.first().unwrap()), parse(b.unwrap().cert.first().unwrap()));
    assert_ne!(a.0, b.0);
    assert_eq!(a.1, b.1);
}

#[test]
fn no_leaf_outlives_its_intermediate() {
    let rig = rig(&["a.test"]);
    let end = rig.intermediate.not_after;
    let leaf = rig.key.mint("a.test", &rig.intermediate, end.plus_seconds(-60)).unwrap();
    assert!(validity(leaf.cert.first().unwrap()).unwrap().1 <= end);
    assert!(matches!(rig.key.mint("a.test", &rig.intermediate, end), Err(CaError::Expired)));
}

#[test]
fn an_intermediate_is_read_back_with_its_limits_unless_something_is_off() {
    let hosts = ["a.test", "127.0.0.1"];
    let rig = rig(&hosts);
    rig.intermediate.store(&rig.folder).unwrap();
    let (known, limits) = Intermediate::load(&rig.folder).unwrap();
    assert_eq!(limits, permitted(&hosts));
    assert!(known.serves(&rig.root.certificate(), NOW));
    assert!(!known.serves(&rig.root.certificate(), known.not_after.plus_seconds(-29 * 86_400)), "it is near its end");
    assert!(!known.serves(&Root::generate(NOW).unwrap().certificate(), NOW), "another root signs now");
    let open = std::fs::Permissions::from_mode(0o640);
    std::fs::set_permissions(rig.folder.path(INTERMEDIATE_KEY), open).unwrap();
    assert!(Intermediate::load(&rig.folder).is_none(), "somebody may have read the key");
    let other = Intermediate::issue(&rig.root, permitted(&hosts).constraints(), NOW).unwrap();
    rig.folder.write(INTERMEDIATE_KEY, files::key_pem(other.issuer.key().serialized_der()).as_bytes()).unwrap();
    assert!(Intermediate::load(&rig.folder).is_none(), "key and certificate do not match");
}

#[test]
fn a_root_opens_only_in_its_place_and_with_its_vault() {
    let rig = rig(&["a.test"]);
    let root = rig.root.certificate();
    assert!(Root::unseal(&rig.folder, &Masked(1), &root).is_ok());
    assert!(matches!(Root::unseal(&rig.folder, &Masked(2), &root), Err(CaError::Sealed(_))));
    std::fs::copy(rig.folder.path(ROOT), rig.folder.path(NEXT)).unwrap();
    assert!(matches!(Roots::load(&rig.folder, &Masked(1)), Err(CaError::Sealed(_))), "a file moved by hand");
    rig.folder.remove(NEXT).unwrap();
    Root::generate(NOW).unwrap().seal(&rig.folder, &Masked(1)).unwrap();
    assert!(Root::unseal(&rig.folder, &Masked(1), &root).is_err(), "another root than the one that signs");
}

#[test]
fn a_rotation_survives_a_crash_at_either_side_of_the_switch() {
    let rig = rig(&["a.test"]);
    let next = Root::generate(NOW).unwrap();
    next.seal_next(&rig.folder, &Masked(1), NOW.plus_seconds(60)).unwrap();
    let before = Roots::load(&rig.folder, &Masked(1)).unwrap().unwrap();
    assert_eq!(before.active, rig.root.certificate());
    let waiting = before.next.unwrap();
    assert_eq!((waiting.certificate, waiting.from), (next.certificate(), NOW.plus_seconds(60)));
    // The file of the active root is the switch; what comes after it did not happen.
    next.seal(&rig.folder, &Masked(1)).unwrap();
    let after = Roots::load(&rig.folder, &Masked(1)).unwrap().unwrap();
    assert_eq!(after.active, next.certificate());
    assert!(after.next.is_none());
    assert!(!rig.folder.path(NEXT).exists());
    assert!(!rig.folder.path(BUNDLE).exists());
}

const NOW: Timestamp = Timestamp(1_767_225_600_000);
