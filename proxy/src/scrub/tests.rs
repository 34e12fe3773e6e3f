use std::sync::LazyLock;

use aegis_broker::{config::CredentialKind, credential::Echoes, secret::Secret};
use base64::{Engine as _, engine::general_purpose::STANDARD};
use proptest::prelude::*;

use super::*;

const SECRET: &str = "ghs_S3cr3tValue0123456789abcdefghij";

static ECHOES: LazyLock<Arc<Echoes>> = LazyLock::new(|| {
    let kind = CredentialKind::Bearer { scheme: "Bearer".into() };
    Arc::new(Echoes::of(&kind, &Secret::from(SECRET.to_owned())).unwrap())
});

fn scrubber() -> Scrubber {
    Scrubber::new(ECHOES.clone())
}

fn scrub(text: &[u8], borders: &[usize]) -> (Vec<u8>, u64) {
    let (mut scrubber, mut out, mut from) = (scrubber(), Vec::new(), 0);
    for to in borders.iter().copied().chain([text.len()]) {
        let to = to.clamp(from, text.len());
        out.extend_from_slice(&scrubber.push(Bytes::copy_from_slice(&text[from..to]), to == text.len()));
        from = to;
    }
    (out, scrubber.masked())
}

#[test]
fn every_spelling_is_masked_wherever_the_chunks_end() {
    for spelling in [
        SECRET.to_owned(),
        STANDARD.encode(SECRET),
        STANDARD.encode(format!("x:{SECRET}")),
        SECRET.bytes().map(|b| format!("{b:02x}")).collect(),
        SECRET.bytes().map(|b| format!("%{b:02X}")).collect(),
    ] {
        let text = format!("before {spelling} after");
        for border in 0..=text.len() {
            let (out, masked) = scrub(text.as_bytes(), &[border]);
            assert_eq!((out.len(), masked), (text.len(), 1), "{border}");
            // At most the loose bytes of its start went on before it was known for what it is; of base64
            // a few characters mix with what stands beside it, and the last only says where it ends.
            let left = out.iter().filter(|b| **b != b'*').count();
            assert!(left <= "before  after".len() + 3 + STANDARD.encode("x:").len() + 2, "{border}");
        }
        let every: Vec<usize> = (1..text.len()).collect();
        assert_eq!(scrub(text.as_bytes(), &every).1, 1);
    }
}

#[test]
fn a_letter_that_could_start_a_credential_does_not_wait() {
    let mut scrubber = scrubber();
    for chunk in ["token g", "gh", "ghs", "data: hello\n\n", "xg"] {
        assert_eq!(scrubber.push(Bytes::from(chunk), false), chunk);
    }
    // More than that does, for one chunk.
    assert_eq!(scrubber.push(Bytes::from("and ghs_S3"), false), "and ghs");
    assert_eq!(scrubber.push(Bytes::from("quel"), false), "_S3quel");
}

#[test]
fn what_was_held_goes_on_when_nothing_follows() {
    let mut scrubber = scrubber();
    assert_eq!(scrubber.push(Bytes::from("a ghs_S3cr3t"), false), "a ghs");
    assert_eq!(scrubber.push(Bytes::new(), true), "_S3cr3t");
    assert_eq!(scrubber.masked(), 0);
}

proptest! {
    /// Cut anywhere, the stream is what it would be in one piece, but for the loose bytes of an echo.
    #[test]
    fn borders_change_nothing(
        words in proptest::collection::vec(prop_oneof![
            Just(SECRET.to_owned()), Just("ghs_S3".to_owned()), Just("g".to_owned()), "[a-z ]{0,12}",
            Just(STANDARD.encode(SECRET)),
        ], 0..12),
        borders in proptest::collection::vec(0usize..400, 0..12),
    ) {
        let text = words.concat().into_bytes();
        let mut borders = borders;
        borders.sort_unstable();
        let (whole, masked) = scrub(&text, &[]);
        let (cut, masked_cut) = scrub(&text, &borders);
        prop_assert_eq!(masked, masked_cut);
        prop_assert_eq!(whole.len(), cut.len());
        for (at, (one, other)) in whole.iter().zip(&cut).enumerate() {
            prop_assert!(one == other || *one == b'*', "{}", at);
        }
        prop_assert!(!String::from_utf8_lossy(&cut).contains(&SECRET[4..]));
    }
}
