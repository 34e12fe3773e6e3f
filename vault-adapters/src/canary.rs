//! No text that an adapter gives out holds a secret, in any of the usual spellings.

use std::fs;

use aegis_broker::secret::Secret;
use aegis_broker::vault::Vault as _;
use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use zeroize::Zeroizing;

use crate::conformance::{Embedded, Env, Files, Harness, TestClock};
use crate::{EmbeddedVault, MasterKey, RootKey};

const CANARY: &str = "ghp_cAnArY/9f3e+7d21==c0ffee";

fn spellings(secret: &[u8]) -> Vec<Vec<u8>> {
    let url: String = secret
        .iter()
        .map(|b| if b.is_ascii_alphanumeric() { char::from(*b).to_string() } else { format!("%{b:02X}") })
        .collect();
    let mut all = vec![
        secret.to_vec(),
        hex::encode(secret).into_bytes(),
        hex::encode_upper(secret).into_bytes(),
        url.into_bytes(),
    ];
    // Base64 of a longer text holds it at one of three offsets; the borders depend on the neighbours.
    for skip in 0..3 {
        let inner = &secret[skip..];
        let whole = &inner[..inner.len() / 3 * 3];
        all.push(STANDARD.encode(whole).into_bytes());
        all.push(URL_SAFE_NO_PAD.encode(whole).into_bytes());
    }
    all.push(format!("{secret:?}").into_bytes());
    all
}

#[track_caller]
fn assert_clean(text: impl AsRef<[u8]>, secret: &[u8]) {
    for spelling in spellings(secret) {
        assert!(
            !text.as_ref().windows(spelling.len()).any(|w| w == spelling),
            "{}",
            String::from_utf8_lossy(text.as_ref())
        );
    }
}

/// Debug of everything that a lease gives, and Debug and Display of every error on the way.
async fn everything_said(harness: &impl Harness) -> Vec<String> {
    let vault = harness.vault();
    let mut said = Vec::new();
    let long = CANARY.repeat(4000);
    for value in [CANARY.to_owned(), format!("{CANARY}\r\nX: 1"), format!("{CANARY}\n\n"), format!("\t{CANARY}"), long]
    {
        if let Err(e) = harness.set("KEY", value.as_bytes()).await {
            said.push(format!("{e} {e:?}"));
        }
        match vault.lease("KEY").await {
            Ok(leased) => said.push(format!("{leased:?} {:?} {}", leased.value, leased.version)),
            Err(e) => said.push(format!("{e} {e:?}")),
        }
    }
    if let Err(e) = vault.put("bad key\n", Secret::from(CANARY.to_owned())).await {
        said.push(format!("{e} {e:?}"));
    }
    said.push(format!("{:?} {:?}", vault.list().await, vault.health().await));
    said
}

#[tokio::test]
async fn nothing_that_an_adapter_says_holds_a_secret() {
    let mut said = everything_said(&Embedded::new()).await;
    said.extend(everything_said(&Env::new()).await);
    said.extend(everything_said(&Files::new()).await);
    assert!(said.len() >= 18);
    for text in said {
        assert_clean(text, CANARY.as_bytes());
    }
}

#[tokio::test]
async fn the_vaults_file_holds_neither_values_nor_keys() {
    let folder = tempfile::tempdir().unwrap();
    let (path, key_path) = (folder.path().join("vault.json"), folder.path().join("master.key"));
    let vault = EmbeddedVault::open(&path, &MasterKey::from_file(&key_path).unwrap(), TestClock::at(1)).unwrap();
    vault.put("github", Secret::from(CANARY.to_owned())).await.unwrap();
    let file = fs::read(&path).unwrap();
    let master = hex::decode(fs::read_to_string(&key_path).unwrap().trim()).unwrap();
    let root = vault.root_key();
    for secret in [CANARY.as_bytes(), &master, root.expose(), &*root.derive_key("vault-values")] {
        assert_clean(&file, secret);
    }
    assert!(String::from_utf8_lossy(&file).contains("github"), "the file can be read for keys");
}

#[test]
fn keys_do_not_print() {
    let hex = "000102030405060708090a0b0c0d0e0f101112131415161718191a1b1c1d1e1f";
    let bytes = hex::decode(hex).unwrap();
    let root = RootKey::from_bytes(Zeroizing::new(bytes.clone().try_into().unwrap()));
    let passphrase = MasterKey::from_passphrase(Zeroizing::new(CANARY.into())).unwrap();
    let vault = Embedded::new().vault();
    let said = format!(
        "{root:?} {:?} {:?} {passphrase:?} {}",
        root.sealer("payload"),
        MasterKey::from_env(hex).unwrap(),
        vault.name()
    );
    assert_clean(&said, &bytes);
    assert_clean(&said, CANARY.as_bytes());
    for bad in [&hex[..62], CANARY, "not-a-key"] {
        let error = MasterKey::from_env(bad).unwrap_err();
        assert_clean(format!("{error} {error:?}"), bad.as_bytes());
    }
}

#[test]
fn the_search_finds_every_spelling() {
    for spelling in spellings(CANARY.as_bytes()) {
        let text = [b"before ".as_slice(), &spelling, b" after"].concat();
        assert!(std::panic::catch_unwind(|| assert_clean(&text, CANARY.as_bytes())).is_err());
    }
    for offset in 0..3 {
        let text = STANDARD.encode(format!("{}{CANARY} after", "x".repeat(offset)));
        assert!(std::panic::catch_unwind(|| assert_clean(&text, CANARY.as_bytes())).is_err(), "offset {offset}");
    }
}
