//! Looks for a secret in every form that somebody could read it from.

use std::path::Path;

use base64::{
    Engine as _,
    engine::general_purpose::{STANDARD_NO_PAD, URL_SAFE_NO_PAD},
};

use crate::error::CliError;

/// The secret raw, in hex, percent-encoded, and in base64 at each of the three places it can have
/// in a group of three bytes.
pub fn forms(secret: &[u8]) -> Vec<Vec<u8>> {
    let hexed = hex::encode(secret);
    let percent: String = secret.iter().map(|b| format!("%{b:02X}")).collect();
    let mut forms = vec![
        secret.to_vec(),
        hexed.clone().into_bytes(),
        hexed.to_uppercase().into_bytes(),
        percent.to_lowercase().into_bytes(),
        percent.into_bytes(),
    ];
    for before in 0..3 {
        let mut shifted = vec![0; before];
        shifted.extend_from_slice(secret);
        for engine in [&STANDARD_NO_PAD, &URL_SAFE_NO_PAD] {
            let text = engine.encode(&shifted);
            // Characters that hold bits of what stands before or behind are not the secret's own.
            let from = (before * 4).div_ceil(3);
            let to = shifted.len() * 8 / 6;
            forms.extend(text.get(from..to).map(|own| own.as_bytes().to_vec()));
        }
    }
    forms
}

/// Whether any form is in the bytes.
pub fn finds(forms: &[Vec<u8>], bytes: &[u8]) -> bool {
    forms.iter().any(|form| contains(bytes, form))
}

/// Whether `needle`, if there is one, is in the bytes.
pub fn contains(bytes: &[u8], needle: &[u8]) -> bool {
    !needle.is_empty() && bytes.windows(needle.len()).any(|w| w == needle)
}

/// How many files there are below a folder, and those with any form in them.
pub fn folder(forms: &[Vec<u8>], folder: &Path) -> Result<(usize, Vec<String>), CliError> {
    let unreadable = |e: std::io::Error| CliError::failed(format!("`{}` cannot be read: {e}", folder.display()));
    let (mut files, mut found) = (0, Vec::new());
    let mut folders = vec![folder.to_owned()];
    while let Some(next) = folders.pop() {
        for entry in std::fs::read_dir(&next).map_err(unreadable)? {
            let entry = entry.map_err(unreadable)?;
            let kind = entry.file_type().map_err(unreadable)?;
            if kind.is_dir() {
                folders.push(entry.path());
            } else if kind.is_file() {
                files += 1;
                if finds(forms, &std::fs::read(entry.path()).map_err(unreadable)?) {
                    found.push(entry.path().display().to_string());
                }
            }
        }
    }
    Ok((files, found))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_form_of_a_secret_is_found_wherever_it_stands() {
        let secret = b"ghp_0123456789abcdefXYZ";
        let forms = forms(secret);
        for before in ["", "x", "user:", "some words "] {
            for after in ["", "y", "!!"] {
                let text = [before.as_bytes(), secret, after.as_bytes()].concat();
                let base64 = STANDARD_NO_PAD.encode(&text);
                for shown in [
                    text.clone(),
                    base64.into_bytes(),
                    hex::encode(&text).into_bytes(),
                    hex::encode_upper(&text).into_bytes(),
                ] {
                    assert!(finds(&forms, &shown), "{before:?} {after:?} {}", String::from_utf8_lossy(&shown));
                }
            }
        }
        assert!(!finds(&forms, b"ghp_0123456789abcdefXY nothing to see"));
    }
}
