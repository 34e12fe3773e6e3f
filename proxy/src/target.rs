//! Host and port as requests name them, read strictly and in one spelling.

use std::net::{IpAddr, Ipv6Addr};

/// `host`, `host:port`, `[v6]` or `[v6]:port`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Target {
    /// Lower case; an address as Rust prints it, without brackets.
    pub(crate) host: String,
    pub(crate) port: Option<u16>,
}

impl Target {
    /// `None` for anything that is not exactly that: no user, no scheme, no empty or signed port.
    pub(crate) fn parse(text: &str) -> Option<Self> {
        let (host, port) = match text.strip_prefix('[') {
            Some(rest) => {
                let (inner, after) = rest.split_once(']')?;
                (inner.parse::<Ipv6Addr>().ok()?.to_string(), after)
            }
            None => {
                let (name, after) = text.find(':').map_or((text, ""), |at| text.split_at(at));
                (is_host(name).then(|| name.to_ascii_lowercase())?, after)
            }
        };
        let port = match port.strip_prefix(':') {
            None if port.is_empty() => None,
            Some(digits) if (1..=5).contains(&digits.len()) && digits.bytes().all(|b| b.is_ascii_digit()) => {
                Some(digits.parse().ok()?)
            }
            _ => return None,
        };
        Some(Self { host, port })
    }

    /// Whether the host is a name, not an address.
    pub(crate) fn is_name(&self) -> bool {
        self.host.parse::<IpAddr>().is_err()
    }
}

fn is_host(name: &str) -> bool {
    (1..=253).contains(&name.len())
        && name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'.')
        && !name.starts_with('.')
        && !name.contains("..")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hosts_are_names_or_addresses_with_an_optional_port() {
        for (text, host, port) in [
            ("api.github.com", "api.github.com", None),
            ("API.GitHub.com:443", "api.github.com", Some(443)),
            ("localhost:8080", "localhost", Some(8080)),
            ("127.0.0.1", "127.0.0.1", None),
            ("[::1]:80", "::1", Some(80)),
            ("[0:0:0:0:0:0:0:1]", "::1", None),
            ("x-1.example", "x-1.example", None),
        ] {
            assert_eq!(Target::parse(text), Some(Target { host: host.into(), port }), "{text}");
        }
        for bad in [
            "",
            "a b",
            "a/b",
            "user@host",
            "host:",
            "host:123456",
            "host:65536",
            "host:8o",
            "host:+80",
            "::1",
            "[::1",
            "[::1]x",
            "[zz]",
            "..",
            "a..b",
            ".a",
            "h\u{e9}",
            "a,b",
            "a_b",
        ] {
            assert_eq!(Target::parse(bad), None, "{bad}");
        }
    }
}
