//! Credentials on their way out: how a leased secret becomes bytes of one request, and
//! how those bytes are recognised if an upstream echoes them.

use std::sync::Arc;

use aho_corasick::{AhoCorasick, MatchKind};
use base64::{
    Engine as _,
    engine::general_purpose::{STANDARD, STANDARD_NO_PAD, URL_SAFE_NO_PAD},
};
use http::{HeaderName, HeaderValue, header};
use percent_encoding::{AsciiSet, CONTROLS, NON_ALPHANUMERIC, utf8_percent_encode};
use zeroize::Zeroizing;

use crate::{
    config::{CredentialKind, CredentialSpec},
    secret::Secret,
    vault::{Leased, VaultError},
};

/// A leased credential, ready to be sent. Neither prints nor serialises its bytes.
#[derive(Debug, Clone)]
pub struct Credential {
    /// Name as in `routes.toml`.
    pub id: String,
    /// Version the vault gave.
    pub version: String,
    spec: Arc<CredentialSpec>,
    value: Secret,
    /// What to look for in answers.
    pub echoes: Arc<Echoes>,
}

/// Everything a permit opens for one request.
#[derive(Debug, Clone, Default)]
pub struct Secrets {
    /// What is injected.
    pub credential: Option<Arc<Credential>>,
    /// The key of the route's client certificate, where a vault holds it.
    pub client_key: Option<Arc<Credential>>,
    /// What the route's upstream proxy asks for.
    pub proxy: Option<Arc<Credential>>,
}

impl Credential {
    /// Joins a declaration and a lease; a value that cannot be sent safely is refused.
    pub fn new(spec: &Arc<CredentialSpec>, leased: Leased) -> Result<Self, VaultError> {
        if leased.value.is_empty() || leased.value.expose().iter().any(|b| *b < 0x20 || *b == 0x7f) {
            return Err(VaultError::Sealed(format!("the value of `{}` is empty or has control bytes", spec.name)));
        }
        let echoes = Arc::new(Echoes::of(&spec.kind, &leased.value)?);
        Ok(Self { id: spec.name.clone(), version: leased.version, spec: spec.clone(), value: leased.value, echoes })
    }

    /// Whether it was made for this very declaration; a reload makes another.
    pub(crate) fn is_of(&self, spec: &Arc<CredentialSpec>) -> bool {
        Arc::ptr_eq(&self.spec, spec)
    }

    /// Whether these are the same bytes under the same version.
    pub(crate) fn is(&self, leased: &Leased) -> bool {
        use subtle::ConstantTimeEq as _;
        self.version == leased.version && bool::from(self.value.expose().ct_eq(leased.value.expose()))
    }

    /// The header that carries it, marked sensitive; `None` where it goes into the query.
    pub fn header(&self) -> Result<Option<(HeaderName, HeaderValue)>, VaultError> {
        let (name, text) = match &self.spec.kind {
            CredentialKind::Bearer { scheme } => {
                (header::AUTHORIZATION, joined(&[scheme.as_bytes(), b" ", self.value.expose()]))
            }
            CredentialKind::Basic { username } => (header::AUTHORIZATION, basic(username, &self.value)),
            CredentialKind::Header { name, prefix } => {
                (name.clone(), joined(&[prefix.as_bytes(), self.value.expose()]))
            }
            CredentialKind::Query { .. }
            | CredentialKind::ClientKey
            | CredentialKind::SigningKey
            | CredentialKind::WebhookUrl => return Ok(None),
        };
        let mut value = HeaderValue::from_bytes(&text)
            .map_err(|_| VaultError::Sealed(format!("the value of `{}` cannot stand in a header", self.id)))?;
        value.set_sensitive(true);
        Ok(Some((name, value)))
    }

    /// The private key (PKCS#8, SEC1 or PKCS#1 DER) that it is, where it is one.
    pub fn client_key(&self) -> Result<Secret, VaultError> {
        let unusable = || VaultError::Sealed(format!("`{}` is not a private key in base64 on one line", self.id));
        match self.spec.kind {
            CredentialKind::ClientKey => STANDARD.decode(self.value.expose()).map(Secret::new).map_err(|_| unusable()),
            _ => Err(unusable()),
        }
    }

    /// The bytes of one that no request of an agent carries: what webhooks are signed with, or where they go.
    pub(crate) fn for_webhooks(&self) -> Option<&Secret> {
        match self.spec.kind {
            CredentialKind::SigningKey | CredentialKind::WebhookUrl => Some(&self.value),
            _ => None,
        }
    }

    /// Adds it to path and query, where that is how it is sent.
    pub fn apply_query(&self, path_and_query: &mut String) {
        if let CredentialKind::Query { name } = &self.spec.kind {
            path_and_query.push(if path_and_query.contains('?') { '&' } else { '?' });
            path_and_query.push_str(&utf8_percent_encode(name, QUERY).to_string());
            path_and_query.push('=');
            path_and_query.push_str(&percent_encoding::percent_encode(self.value.expose(), QUERY).to_string());
        }
    }
}

/// The spellings of one credential that must not come back: raw, base64 at every
/// alignment (both alphabets), hex (both cases), URL-encoded.
pub struct Echoes {
    automaton: AhoCorasick,
    patterns: Vec<Zeroizing<Vec<u8>>>,
    longest: usize,
    /// How many bytes of a spelling say nothing of the rest.
    loose: usize,
    /// Whether a byte starts a spelling.
    starts: [bool; 256],
}

impl Echoes {
    /// Of a value that is sent this way.
    pub fn of(kind: &CredentialKind, value: &Secret) -> Result<Self, VaultError> {
        // What agents' requests never carry cannot come back in their answers.
        let raw = if kind.is_injected() { value.expose() } else { &[] };
        let mut patterns: Vec<Vec<u8>> =
            vec![raw.to_vec(), hex::encode(raw).into_bytes(), hex::encode_upper(raw).into_bytes()];
        patterns.push(percent_encoding::percent_encode(raw, NON_ALPHANUMERIC).to_string().into_bytes());
        patterns.push(percent_encoding::percent_encode(raw, QUERY).to_string().into_bytes());
        // Other encoders leave only the unreserved marks alone, or write lower-case digits.
        let unreserved = percent_encoding::percent_encode(raw, UNRESERVED).to_string();
        patterns.push(unreserved.to_ascii_lowercase().into_bytes().into_iter().collect());
        patterns.push(unreserved.into_bytes());
        let every: String = raw.iter().map(|b| format!("%{b:02X}")).collect();
        patterns.push(every.to_ascii_lowercase().into_bytes());
        patterns.push(every.into_bytes());
        for shift in 0..3 {
            patterns.extend(aligned_base64(raw, shift));
        }
        if let CredentialKind::Basic { username } = kind {
            patterns.push(STANDARD.encode(joined(&[username.as_bytes(), b":", raw]).as_slice()).into_bytes());
        }
        // Short patterns would mask ordinary text; a secret of under 4 bytes is refused where it is stored.
        patterns.retain(|p| p.len() >= 4);
        patterns.sort();
        patterns.dedup();
        let longest = patterns.iter().map(Vec::len).max().unwrap_or(0);
        let loose = (patterns.iter().map(Vec::len).min().unwrap_or(0) / LOOSE_PART).min(LOOSE);
        let automaton = AhoCorasick::builder()
            .match_kind(MatchKind::LeftmostLongest)
            .build(&patterns)
            .map_err(|_| VaultError::Sealed("value too long to be recognised in answers".into()))?;
        let mut starts = [false; 256];
        for first in patterns.iter().filter_map(|p| p.first()) {
            if let Some(flag) = starts.get_mut(usize::from(*first)) {
                *flag = true;
            }
        }
        let patterns = patterns.into_iter().map(Zeroizing::new).collect();
        Ok(Self { automaton, patterns, longest, loose, starts })
    }

    /// Masks every spelling in place with as many asterisks; returns how many there were.
    pub fn mask(&self, bytes: &mut [u8]) -> usize {
        let found: Vec<_> = self.automaton.find_iter(&*bytes).map(|m| m.range()).collect();
        for range in &found {
            if let Some(part) = bytes.get_mut(range.clone()) {
                part.fill(b'*');
            }
        }
        found.len()
    }

    /// How many bytes at the end could be the start of a spelling that the next chunk completes.
    pub fn held(&self, bytes: &[u8]) -> usize {
        let from = bytes.len().saturating_sub(self.longest.saturating_sub(1));
        let tail = bytes.get(from..).unwrap_or_default();
        (0..tail.len())
            .find(|at| {
                let rest = tail.get(*at..).unwrap_or_default();
                let starts = rest.first().and_then(|b| self.starts.get(usize::from(*b))).copied().unwrap_or(false);
                starts && self.patterns.iter().any(|p| p.len() > rest.len() && p.starts_with(rest))
            })
            .map_or(0, |at| tail.len() - at)
    }

    /// How many bytes of a tail that [`Echoes::held`] counts may go on at once all the same. A stream
    /// must not wait because its last letter happens to be the first of a credential.
    pub fn loose(&self) -> usize {
        self.loose
    }

    /// Whether any spelling is in there.
    pub fn found_in(&self, bytes: &[u8]) -> bool {
        self.automaton.is_match(bytes)
    }
}

impl std::fmt::Debug for Echoes {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Echoes(..)")
    }
}

/// The characters of a base64 text that depend on `raw` alone when `shift` unknown bytes stand before it.
fn aligned_base64(raw: &[u8], shift: usize) -> Vec<Vec<u8>> {
    let mut padded = vec![0; shift];
    padded.extend_from_slice(raw);
    let padded = Zeroizing::new(padded);
    // Each character holds 6 bits: the first ones mix with what stands before, the last with what follows.
    let first = (shift * 8).div_ceil(6);
    let last = padded.len() * 8 / 6;
    [STANDARD_NO_PAD.encode(padded.as_slice()), URL_SAFE_NO_PAD.encode(padded.as_slice())]
        .into_iter()
        .filter_map(|text| text.as_bytes().get(first..last).map(<[u8]>::to_vec))
        .collect()
}

fn basic(username: &str, value: &Secret) -> Zeroizing<Vec<u8>> {
    let pair = joined(&[username.as_bytes(), b":", value.expose()]);
    joined(&[b"Basic ", Zeroizing::new(STANDARD.encode(pair.as_slice())).as_bytes()])
}

fn joined(parts: &[&[u8]]) -> Zeroizing<Vec<u8>> {
    // Sized first, so that no reallocation leaves a copy behind.
    let mut out = Zeroizing::new(Vec::with_capacity(parts.iter().map(|p| p.len()).sum()));
    parts.iter().for_each(|p| out.extend_from_slice(p));
    out
}

/// At most this many bytes, and at most an eighth of the shortest spelling: less than the public
/// prefix (`ghp_`, `sk-`) of the tokens that have one.
const LOOSE: usize = 3;
const LOOSE_PART: usize = 8;
const UNRESERVED: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~');
const QUERY: &AsciiSet = &CONTROLS
    .add(b' ')
    .add(b'"')
    .add(b'#')
    .add(b'<')
    .add(b'>')
    .add(b'&')
    .add(b'=')
    .add(b'+')
    .add(b'%')
    .add(b'\'')
    .add(b'?')
    .add(b'/')
    .add(b'\\')
    .add(b'`')
    .add(b'{')
    .add(b'}')
    .add(b'|')
    .add(b'^')
    .add(b'[')
    .add(b']')
    .add(b':')
    .add(b'@')
    .add(b';')
    .add(b',')
    .add(b'$');

#[cfg(test)]
mod tests {
    use super::*;

    fn credential(kind: CredentialKind, value: &str) -> Credential {
        let spec =
            Arc::new(CredentialSpec { name: "c".into(), vault: "embedded".into(), key: "c".into(), kind, line: 1 });
        let leased =
            Leased { value: Secret::from(value.to_owned()), version: "1".into(), expires_at: None, renewable: false };
        Credential::new(&spec, leased).unwrap()
    }

    #[test]
    fn every_spelling_of_an_echo_is_masked_with_the_same_length() {
        let secret = "ghs_S3cr3t/+value==&x";
        let c = credential(CredentialKind::Bearer { scheme: "Bearer".into() }, secret);
        let spellings = [
            secret.to_owned(),
            STANDARD.encode(secret),
            STANDARD.encode(format!("x:{secret}")),
            STANDARD.encode(format!("xy:{secret}")),
            URL_SAFE_NO_PAD.encode(format!("abc{secret}tail")),
            hex::encode(secret),
            hex::encode_upper(secret),
            "ghs_S3cr3t%2F%2Bvalue%3D%3D%26x".to_owned(),
            secret.bytes().map(|b| format!("%{b:02X}")).collect(),
            secret.bytes().map(|b| format!("%{b:02x}")).collect(),
        ];
        for spelling in spellings {
            let mut body = format!("before {spelling} after").into_bytes();
            let length = body.len();
            assert_eq!(c.echoes.mask(&mut body), 1, "{spelling}");
            assert_eq!(body.len(), length);
            assert!(!c.echoes.found_in(&body));
        }
        let mut clean = b"nothing to see".to_vec();
        assert_eq!(c.echoes.mask(&mut clean), 0);
    }

    #[test]
    fn an_echo_across_chunk_borders_is_held_back_until_it_is_known() {
        let c = credential(CredentialKind::Bearer { scheme: "Bearer".into() }, "ghs_S3cr3tvalue");
        assert_eq!(c.echoes.held(b"plain text"), 0);
        assert_eq!(c.echoes.held(b"text ghs_S3"), 6);
        assert_eq!(c.echoes.held(b"text g"), 1);
        assert_eq!(c.echoes.held(b"ghs_S3cr3tvalue"), 0);
    }

    #[test]
    fn values_that_could_split_a_header_are_refused() {
        let spec = Arc::new(CredentialSpec {
            name: "c".into(),
            vault: "embedded".into(),
            key: "c".into(),
            kind: CredentialKind::Bearer { scheme: "Bearer".into() },
            line: 1,
        });
        for bad in ["", "a\r\nX: y", "a\0"] {
            let leased =
                Leased { value: Secret::from(bad.to_owned()), version: "1".into(), expires_at: None, renewable: false };
            assert!(Credential::new(&spec, leased).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn each_kind_is_sent_its_own_way() {
        let bearer = credential(CredentialKind::Bearer { scheme: "token".into() }, "abcd").header().unwrap().unwrap();
        assert_eq!(bearer.1.as_bytes(), b"token abcd");
        assert!(bearer.1.is_sensitive());
        let basic = credential(CredentialKind::Basic { username: "u".into() }, "abcd").header().unwrap().unwrap();
        assert_eq!(basic.1.as_bytes(), b"Basic dTphYmNk");
        let query = credential(CredentialKind::Query { name: "key".into() }, "a&b c");
        assert!(query.header().unwrap().is_none());
        let mut path = "/x?y=1".to_owned();
        query.apply_query(&mut path);
        assert_eq!(path, "/x?y=1&key=a%26b%20c");
    }
}
