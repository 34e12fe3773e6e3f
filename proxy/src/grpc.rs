//! What gRPC needs of a gateway: messages told apart, trailers guarded, refusals as a status.

use std::sync::Arc;

use aegis_broker::credential::Echoes;
use aegis_connectors::Denial;
use http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header};

/// Where messages end: a flag, a length in four bytes, and so many bytes (gRPC over HTTP/2, "Length-Prefixed-Message").
#[derive(Default)]
pub(crate) struct Messages {
    prefix: Vec<u8>,
    left: u64,
}

impl Messages {
    /// Whether the chunk ends where a message ends.
    pub(crate) fn push(&mut self, mut chunk: &[u8]) -> bool {
        while !chunk.is_empty() {
            if self.left > 0 {
                let skipped = usize::try_from(self.left).unwrap_or(usize::MAX).min(chunk.len());
                self.left -= skipped as u64;
                chunk = chunk.get(skipped..).unwrap_or_default();
                continue;
            }
            let (missing, rest) = chunk.split_at((PREFIX - self.prefix.len()).min(chunk.len()));
            self.prefix.extend_from_slice(missing);
            chunk = rest;
            if let [_, length @ ..] = self.prefix.as_slice()
                && let Ok(length) = <[u8; 4]>::try_from(length)
            {
                self.left = u64::from(u32::from_be_bytes(length));
                self.prefix.clear();
            }
        }
        self.left == 0 && self.prefix.is_empty()
    }
}

/// Whether a content type is gRPC's.
pub(crate) fn is_grpc(headers: &HeaderMap) -> bool {
    headers.get(header::CONTENT_TYPE).is_some_and(|v| {
        let prefix = v.as_bytes().get(..GRPC.len()).unwrap_or_default();
        prefix.eq_ignore_ascii_case(GRPC)
    })
}

/// Whether messages of an answer are compressed, although nobody said we could take that.
pub(crate) fn is_compressed(headers: &HeaderMap) -> bool {
    headers.get("grpc-encoding").is_some_and(|v| !v.as_bytes().eq_ignore_ascii_case(b"identity"))
}

/// Masks echoes in trailers; what frames a message or speaks for the gateway does not belong there.
pub(crate) fn guard_trailers(trailers: &mut HeaderMap, echoes: Option<&Arc<Echoes>>) -> usize {
    let names: Vec<HeaderName> = trailers.keys().cloned().collect();
    let mut masked = 0;
    for name in names {
        let named = echoes.is_some_and(|e| e.found_in(name.as_str().as_bytes()));
        if named || DROPPED.contains(&name.as_str()) || name.as_str().starts_with("aegis-") {
            trailers.remove(&name);
            masked += usize::from(named);
            continue;
        }
        let Some(echoes) = echoes else { continue };
        let values: Vec<HeaderValue> = trailers.get_all(&name).iter().cloned().collect();
        if !values.iter().any(|v| echoes.found_in(v.as_bytes())) {
            continue;
        }
        trailers.remove(&name);
        for value in values {
            let mut bytes = value.as_bytes().to_vec();
            masked += echoes.mask(&mut bytes);
            if let Ok(value) = HeaderValue::from_bytes(&bytes) {
                trailers.append(name.clone(), value);
            }
        }
    }
    masked
}

/// A refusal as gRPC clients read one (gRPC over HTTP/2, "Responses"): a status in the trailers.
pub(crate) fn status_of(denial: &Denial) -> HeaderMap {
    let code = match denial.status {
        StatusCode::BAD_REQUEST | StatusCode::UNSUPPORTED_MEDIA_TYPE => "3",
        StatusCode::REQUEST_TIMEOUT | StatusCode::GATEWAY_TIMEOUT => "4",
        StatusCode::NOT_FOUND => "5",
        StatusCode::FORBIDDEN => "7",
        StatusCode::PAYLOAD_TOO_LARGE | StatusCode::TOO_MANY_REQUESTS => "8",
        StatusCode::METHOD_NOT_ALLOWED => "12",
        StatusCode::BAD_GATEWAY | StatusCode::SERVICE_UNAVAILABLE => "14",
        StatusCode::UNAUTHORIZED => "16",
        status if status.is_server_error() => "13",
        _ => "2",
    };
    let receipt = denial.receipt.as_ref().map(|id| format!(" (receipt {id})")).unwrap_or_default();
    let message = format!("{}: {}{receipt}", denial.reason, denial.message);
    // Percent-encoded, as the protocol says of this field.
    let message: String = message
        .bytes()
        .map(|b| if (0x20..=0x7e).contains(&b) && b != b'%' { char::from(b).to_string() } else { format!("%{b:02X}") })
        .collect();
    let mut trailers = HeaderMap::new();
    trailers.insert("grpc-status", HeaderValue::from_static(code));
    if let Ok(message) = HeaderValue::from_str(&message) {
        trailers.insert("grpc-message", message);
    }
    trailers
}

const GRPC: &[u8] = b"application/grpc";
const PREFIX: usize = 5;
/// What RFC 9110, 6.5.1 keeps out of trailers, as far as a client might heed it.
const DROPPED: [&str; 11] = [
    "connection",
    "content-encoding",
    "content-length",
    "content-type",
    "host",
    "location",
    "set-cookie",
    "te",
    "trailer",
    "transfer-encoding",
    "www-authenticate",
];

#[cfg(test)]
mod tests {
    use aegis_broker::{config::CredentialKind, secret::Secret};
    use proptest::prelude::*;

    use super::*;

    fn message(bytes: &[u8]) -> Vec<u8> {
        [&[0][..], &(bytes.len() as u32).to_be_bytes(), bytes].concat()
    }

    #[test]
    fn a_message_ends_where_its_length_says() {
        let mut messages = Messages::default();
        let stream = [message(b"hello"), message(b""), message(b"x")].concat();
        let ends: Vec<usize> =
            stream.iter().enumerate().filter_map(|(at, b)| messages.push(&[*b]).then_some(at + 1)).collect();
        assert_eq!(ends, [10, 15, 21]);
        assert!(Messages::default().push(&stream));
        assert!(!Messages::default().push(&stream[..12]));
    }

    proptest! {
        #[test]
        fn any_bytes_are_counted(chunks in proptest::collection::vec(proptest::collection::vec(any::<u8>(), 0..40), 0..20)) {
            let (mut one, mut other) = (Messages::default(), Messages::default());
            let whole = chunks.iter().map(|c| one.push(c)).last().unwrap_or(true);
            prop_assert_eq!(other.push(&chunks.concat()), whole);
        }
    }

    #[test]
    fn trailers_are_masked_and_cannot_frame_anything() {
        let secret = "ghs_S3cr3tValue0123456789";
        let kind = CredentialKind::Bearer { scheme: "Bearer".into() };
        let echoes = Arc::new(Echoes::of(&kind, &Secret::from(secret.to_owned())).unwrap());
        let mut trailers = HeaderMap::new();
        for (name, value) in [
            ("grpc-status", "7"),
            ("grpc-message", "you sent ghs_S3cr3tValue0123456789"),
            ("content-length", "3"),
            ("aegis-decision", "allow"),
            ("www-authenticate", "x"),
        ] {
            trailers.insert(name, value.parse().unwrap());
        }
        assert_eq!(guard_trailers(&mut trailers, Some(&echoes)), 1);
        let mut names: Vec<_> = trailers.keys().map(HeaderName::as_str).collect();
        names.sort_unstable();
        assert_eq!(names, ["grpc-message", "grpc-status"]);
        assert_eq!(trailers["grpc-message"], format!("you sent {}", "*".repeat(secret.len())));
    }

    #[test]
    fn a_refusal_is_a_status_with_a_plain_message() {
        let denial = Denial {
            status: StatusCode::FORBIDDEN,
            reason: "denied".into(),
            message: "100% no\nway".into(),
            receipt: Some("rcp_n1_4".into()),
            approval: None,
        };
        let trailers = status_of(&denial);
        assert_eq!(trailers["grpc-status"], "7");
        assert_eq!(trailers["grpc-message"], "denied: 100%25 no%0Away (receipt rcp_n1_4)");
    }
}
