//! WebSocket handshakes (RFC 6455, 4): the agent's read strictly, the upstream's kept to what was asked for.

use base64::{Engine as _, engine::general_purpose::STANDARD};
use http::{HeaderMap, HeaderName, HeaderValue, Method, Version, header};
use pingora_error::Result;
use pingora_http::ResponseHeader;

/// Whether a request is a handshake; anything else that asks for an upgrade is an error that says what is wrong.
pub(crate) fn asked_for(method: &Method, version: Version, headers: &HeaderMap) -> Result<bool, &'static str> {
    if !headers.contains_key(header::UPGRADE) {
        return Ok(false);
    }
    let one = |name: &HeaderName| {
        let mut values = headers.get_all(name).iter();
        values.next().filter(|_| values.next().is_none()).map(HeaderValue::as_bytes)
    };
    if version != Version::HTTP_11 || method != Method::GET {
        return Err("an upgrade is asked for with GET over HTTP/1.1");
    }
    if !one(&header::UPGRADE).is_some_and(|v| v.eq_ignore_ascii_case(b"websocket")) {
        return Err("no route takes an upgrade to anything but `websocket`");
    }
    let nominated = headers.get_all(header::CONNECTION).iter().flat_map(|v| v.as_bytes().split(|b| *b == b','));
    if !nominated.map(<[u8]>::trim_ascii).any(|token| token.eq_ignore_ascii_case(b"upgrade")) {
        return Err("`Connection` does not name the upgrade");
    }
    if one(&header::SEC_WEBSOCKET_VERSION) != Some(b"13") {
        return Err("`Sec-WebSocket-Version` must be 13");
    }
    let key = one(&header::SEC_WEBSOCKET_KEY).and_then(|key| STANDARD.decode(key).ok());
    if key.is_none_or(|key| key.len() != 16) {
        return Err("`Sec-WebSocket-Key` must be 16 bytes in base64");
    }
    if headers.contains_key(header::TRANSFER_ENCODING)
        || headers.get(header::CONTENT_LENGTH).is_some_and(|v| v.as_bytes() != b"0")
    {
        return Err("a handshake has no body");
    }
    Ok(true)
}

/// Makes a rebuilt request a handshake. No extension is offered: compressed frames could not be looked into.
pub(crate) fn ask(headers: &mut HeaderMap) {
    headers.insert(header::CONNECTION, HeaderValue::from_static("Upgrade"));
    headers.insert(header::UPGRADE, HeaderValue::from_static("websocket"));
}

/// What of a 101 goes to the agent; an error where the upstream agreed to something that nobody asked for.
pub(crate) fn keep_to(asked: &[(HeaderName, HeaderValue)], answer: &mut ResponseHeader) -> Result<(), &'static str> {
    let upgrade = answer.headers.get(header::UPGRADE).map(HeaderValue::as_bytes);
    if !upgrade.is_some_and(|v| v.eq_ignore_ascii_case(b"websocket")) {
        return Err("the upstream switched to another protocol");
    }
    if answer.headers.contains_key(header::SEC_WEBSOCKET_EXTENSIONS) {
        return Err("the upstream uses an extension that was not offered");
    }
    let offered = asked
        .iter()
        .filter(|(name, _)| *name == header::SEC_WEBSOCKET_PROTOCOL)
        .flat_map(|(_, value)| value.as_bytes().split(|b| *b == b','))
        .map(<[u8]>::trim_ascii);
    let mut chosen = answer.headers.get_all(header::SEC_WEBSOCKET_PROTOCOL).iter();
    if let Some(chosen) = chosen.next()
        && !offered.into_iter().any(|protocol| protocol == chosen.as_bytes())
    {
        return Err("the upstream chose a protocol that was not offered");
    }
    if chosen.next().is_some() {
        return Err("the upstream chose two protocols");
    }
    let names: Vec<HeaderName> = answer.headers.keys().filter(|name| !KEPT.contains(name)).cloned().collect();
    names.iter().for_each(|name| drop(answer.remove_header(name)));
    Ok(())
}

const KEPT: [HeaderName; 4] =
    [header::CONNECTION, header::UPGRADE, header::SEC_WEBSOCKET_ACCEPT, header::SEC_WEBSOCKET_PROTOCOL];

#[cfg(test)]
mod tests {
    use super::*;

    const GOOD: [(&str, &str); 4] = [
        ("upgrade", "WebSocket"),
        ("connection", "keep-alive, Upgrade"),
        ("sec-websocket-version", "13"),
        ("sec-websocket-key", "dGhlIHNhbXBsZSBub25jZQ=="),
    ];

    fn map(pairs: &[(&'static str, &'static str)]) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for (name, value) in pairs {
            headers.append(HeaderName::from_static(name), HeaderValue::from_static(value));
        }
        headers
    }

    #[test]
    fn a_handshake_is_whole_or_refused() {
        assert_eq!(asked_for(&Method::GET, Version::HTTP_11, &map(&GOOD)), Ok(true));
        assert_eq!(asked_for(&Method::GET, Version::HTTP_11, &map(&GOOD[1..])), Ok(false));
        assert!(asked_for(&Method::POST, Version::HTTP_11, &map(&GOOD)).is_err());
        assert!(asked_for(&Method::GET, Version::HTTP_2, &map(&GOOD)).is_err());
        for (at, other) in
            [(0, "h2c"), (0, "websocket, h2c"), (1, "keep-alive"), (2, "8"), (3, "c2hvcnQ="), (3, "not base64")]
        {
            let mut pairs = GOOD;
            pairs[at].1 = other;
            assert!(asked_for(&Method::GET, Version::HTTP_11, &map(&pairs)).is_err(), "{other}");
        }
        for more in [
            ("upgrade", "websocket"),
            ("content-length", "3"),
            ("transfer-encoding", "chunked"),
            ("sec-websocket-key", "dGhlIHNhbXBsZSBub25jZQ=="),
        ] {
            let pairs = [&GOOD[..], &[more]].concat();
            assert!(asked_for(&Method::GET, Version::HTTP_11, &map(&pairs)).is_err(), "{more:?}");
        }
    }

    fn answer(pairs: &[(&'static str, &'static str)]) -> Result<Vec<String>, &'static str> {
        let asked = [(header::SEC_WEBSOCKET_PROTOCOL, HeaderValue::from_static("chat, super"))];
        let mut answer = ResponseHeader::build(101, None).unwrap();
        for (name, value) in pairs {
            answer.append_header(*name, *value).unwrap();
        }
        keep_to(&asked, &mut answer).map(|()| answer.headers.keys().map(|n| n.to_string()).collect())
    }

    #[test]
    fn an_answer_is_kept_to_what_was_asked_for() {
        let ok = [("upgrade", "websocket"), ("connection", "Upgrade"), ("sec-websocket-accept", "x")];
        let mut kept =
            answer(&[&ok[..], &[("set-cookie", "a=b"), ("x-more", "1"), ("sec-websocket-protocol", "chat")]].concat())
                .unwrap();
        kept.sort_unstable();
        assert_eq!(kept, ["connection", "sec-websocket-accept", "sec-websocket-protocol", "upgrade"]);
        assert!(answer(&ok[1..]).is_err());
        for more in [("sec-websocket-extensions", "permessage-deflate"), ("sec-websocket-protocol", "mqtt")] {
            assert!(answer(&[&ok[..], &[more]].concat()).is_err(), "{more:?}");
        }
    }
}
