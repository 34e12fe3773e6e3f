//! The head of a `CONNECT`, read as strictly as any other.

use aegis_action::SourceTrust;
use aegis_broker::admit::Trace;
use http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header};

use crate::{framing, reply::Reply, target::Target};

/// What was sent.
pub(super) struct Head {
    pub(super) bytes: Vec<u8>,
    /// What came after it.
    pub(super) rest: Vec<u8>,
    /// `false` where it was too long, too slow, or cut off.
    pub(super) whole: bool,
}

/// What it says.
pub(super) struct Parsed {
    /// Lower case; an address as Rust prints it.
    pub(super) host: String,
    pub(super) port: u16,
    pub(super) headers: HeaderMap,
    pub(super) trace: Trace,
    pub(super) declared_trust: Option<SourceTrust>,
}

impl Head {
    /// Refuses whatever is not exactly one `CONNECT host:port` without a body.
    pub(super) fn parse(&self) -> Result<Parsed, Reply> {
        if !self.whole {
            return Err(bad("bad_framing", "the head is incomplete, or larger than 16 KiB"));
        }
        framing::check_wire(&self.bytes)?;
        let text = std::str::from_utf8(&self.bytes).map_err(|_| bad("bad_header", "the head is not UTF-8"))?;
        let mut lines = text.split("\r\n");
        let line = lines.next().unwrap_or_default();
        let mut words = line.split(' ');
        let (Some("CONNECT"), Some(target), Some("HTTP/1.1" | "HTTP/1.0"), None) =
            (words.next(), words.next(), words.next(), words.next())
        else {
            return Err(bad("bad_path", "the request line must be `CONNECT host:port HTTP/1.1`"));
        };
        let headers = fields(lines)?;
        let named = Target::parse(target).filter(|t| !t.host.ends_with('.'));
        let Some(Target { host, port: Some(port) }) = named.filter(|t| t.port != Some(0)) else {
            return Err(bad("bad_host", "the target of a tunnel must be `host:port`"));
        };
        agree(&headers, &host, port, line.ends_with("1.1"))?;
        if headers.contains_key(header::TRANSFER_ENCODING)
            || headers.get_all(header::CONTENT_LENGTH).iter().any(|v| v.as_bytes() != b"0")
        {
            return Err(bad("unexpected_body", "`CONNECT` takes no body"));
        }
        if headers.contains_key(header::UPGRADE) || headers.contains_key(header::EXPECT) {
            return Err(bad("bad_header", "`CONNECT` takes neither `Upgrade` nor `Expect`"));
        }
        let trace = framing::trace(&headers, &headers)?;
        let declared_trust = framing::declared_trust(&headers)?;
        Ok(Parsed { host, port, headers, trace, declared_trust })
    }

    /// Whether a next request may follow on the same connection.
    pub(super) fn may_go_on(&self) -> bool {
        let version = self.bytes.split(|b| *b == b'\r').next().is_some_and(|line| line.ends_with(b"HTTP/1.1"));
        let text = String::from_utf8_lossy(&self.bytes).to_ascii_lowercase();
        // What follows already could only be meant for the tunnel that did not open.
        self.whole && version && self.rest.is_empty() && !text.contains("connection: close")
    }
}

/// Where the head ends. Bare line feeds end it too, so that they are refused rather than waited on.
pub(super) fn end(bytes: &[u8]) -> Option<usize> {
    let strict = bytes.windows(4).position(|w| w == b"\r\n\r\n").map(|at| at + 4);
    let bare = bytes.windows(2).position(|w| w == b"\n\n").map(|at| at + 2);
    let mixed = bytes.windows(3).position(|w| w == b"\n\r\n").map(|at| at + 3);
    [strict, bare, mixed].into_iter().flatten().min()
}

fn fields<'h>(lines: impl Iterator<Item = &'h str>) -> Result<HeaderMap, Reply> {
    let mut headers = HeaderMap::new();
    for line in lines.take_while(|line| !line.is_empty()) {
        let malformed = || bad("bad_header", "a header is malformed");
        let (name, value) = line.split_once(':').ok_or_else(malformed)?;
        let name = HeaderName::from_bytes(name.as_bytes()).map_err(|_| malformed())?;
        let value = HeaderValue::from_str(value.trim_matches([' ', '\t'])).map_err(|_| malformed())?;
        headers.append(name, value);
    }
    Ok(headers)
}

/// `Host` repeats the target (RFC 9112, section 3.2), with or without its port.
fn agree(headers: &HeaderMap, host: &str, port: u16, required: bool) -> Result<(), Reply> {
    let mut hosts = headers.get_all(header::HOST).iter();
    match (hosts.next(), hosts.next()) {
        (None, _) if !required => Ok(()),
        (Some(value), None) => {
            let named = value.to_str().ok().and_then(Target::parse);
            if named.is_some_and(|t| t.host == host && t.port.is_none_or(|p| p == port)) {
                return Ok(());
            }
            let words = "`Host` is not the host that the tunnel is asked for";
            Err(Reply::closing(StatusCode::MISDIRECTED_REQUEST, "authority_mismatch", words))
        }
        _ => Err(bad("bad_host", "exactly one `Host` is required")),
    }
}

fn bad(reason: &'static str, words: &str) -> Reply {
    Reply::closing(StatusCode::BAD_REQUEST, reason, words)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Result<(String, u16), &'static str> {
        let head = Head { bytes: text.into(), rest: Vec::new(), whole: true };
        match head.parse() {
            Ok(parsed) => Ok((parsed.host, parsed.port)),
            Err(Reply::Refused { reason, .. }) => Err(reason),
            Err(_) => Err("another reply"),
        }
    }

    #[test]
    fn a_tunnel_is_asked_for_in_one_way() {
        let ok = |text: &str| parse(text).unwrap();
        assert_eq!(ok("CONNECT A.test:443 HTTP/1.1\r\nHost: a.test:443\r\n\r\n"), ("a.test".into(), 443));
        assert_eq!(ok("CONNECT a.test:443 HTTP/1.1\r\nHost: a.test\r\n\r\n"), ("a.test".into(), 443));
        assert_eq!(ok("CONNECT a.test:443 HTTP/1.0\r\n\r\n"), ("a.test".into(), 443));
        assert_eq!(ok("CONNECT [::1]:8443 HTTP/1.1\r\nHost: [::1]:8443\r\n\r\n"), ("::1".into(), 8443));
        assert_eq!(
            ok("CONNECT a.test:443 HTTP/1.1\r\nHost: a.test\r\nContent-Length: 0\r\n\r\n"),
            ("a.test".into(), 443)
        );
        for (text, reason) in [
            ("CONNECT a.test HTTP/1.1\r\nHost: a.test\r\n\r\n", "bad_host"),
            ("CONNECT a.test:0 HTTP/1.1\r\nHost: a.test\r\n\r\n", "bad_host"),
            ("CONNECT a.test.:443 HTTP/1.1\r\nHost: a.test.\r\n\r\n", "bad_host"),
            ("CONNECT https://a.test:443 HTTP/1.1\r\nHost: a.test\r\n\r\n", "bad_host"),
            ("CONNECT u@a.test:443 HTTP/1.1\r\nHost: a.test\r\n\r\n", "bad_host"),
            ("CONNECT a.test:443 HTTP/1.1\r\n\r\n", "bad_host"),
            ("CONNECT a.test:443 HTTP/1.1\r\nHost: a.test\r\nHost: a.test\r\n\r\n", "bad_host"),
            ("CONNECT a.test:443 HTTP/1.1\r\nHost: b.test:443\r\n\r\n", "authority_mismatch"),
            ("CONNECT a.test:443 HTTP/1.1\r\nHost: a.test:80\r\n\r\n", "authority_mismatch"),
            ("CONNECT a.test:443 HTTP/1.1\r\nHost: a.test\r\nContent-Length: 3\r\n\r\n", "unexpected_body"),
            ("CONNECT a.test:443 HTTP/1.1\r\nHost: a.test\r\nTransfer-Encoding: chunked\r\n\r\n", "unexpected_body"),
            ("CONNECT a.test:443 HTTP/1.1\r\nHost: a.test\r\nUpgrade: h2c\r\n\r\n", "bad_header"),
            ("CONNECT a.test:443 HTTP/2.0\r\nHost: a.test\r\n\r\n", "bad_path"),
            ("CONNECT  a.test:443 HTTP/1.1\r\nHost: a.test\r\n\r\n", "bad_path"),
            ("CONNECT a.test:443 HTTP/1.1\nHost: a.test\n\n", "bare_lf"),
            ("CONNECT a.test:443 HTTP/1.1\r\nHost : a.test\r\n\r\n", "bad_header"),
            ("CONNECT a.test:443 HTTP/1.1\r\nHost: a.test\r\n x: folded\r\n\r\n", "obs_fold"),
        ] {
            assert_eq!(parse(text), Err(reason), "{text:?}");
        }
        let cut = Head { bytes: b"CONNECT a.test:443 HTTP/1.1\r\n".to_vec(), rest: Vec::new(), whole: false };
        assert!(cut.parse().is_err());
    }

    #[test]
    fn a_head_ends_at_its_first_empty_line_however_that_is_spelled() {
        assert_eq!(end(b"a\r\n\r\nb"), Some(5));
        assert_eq!(end(b"a\n\nb\r\n\r\n"), Some(3));
        assert_eq!(end(b"a\n\r\nb"), Some(4));
        assert_eq!(end(b"a\r\nb\r\n"), None);
    }
}
