//! The way to an upstream: straight, or through an HTTP proxy that takes `CONNECT`.

use std::{fmt, net::SocketAddr, sync::Arc, time::Duration};

use aegis_broker::credential::Credential;
use async_trait::async_trait;
use http::HeaderValue;
use pingora_core::{
    connectors::L4Connect,
    protocols::l4::{socket::SocketAddr as AnyAddr, stream::Stream},
};
use pingora_error::{Error, ErrorType, OrErr as _, Result};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
    time::timeout,
};
use zeroize::Zeroizing;

/// How to get there.
pub(crate) enum Way {
    /// To this vetted address.
    Straight(SocketAddr),
    /// By a tunnel.
    Through(Arc<Tunnelled>),
}

impl Way {
    /// What the socket is connected to.
    pub(crate) fn first_hop(&self) -> SocketAddr {
        match self {
            Self::Straight(addr) => *addr,
            Self::Through(tunnelled) => tunnelled.at,
        }
    }

    /// Tells ways apart.
    pub(crate) fn label(&self) -> String {
        match self {
            Self::Straight(addr) => addr.to_string(),
            Self::Through(tunnelled) => format!("{} via {}", tunnelled.to, tunnelled.at),
        }
    }
}

/// A tunnel through the proxy at `at`.
pub(crate) struct Tunnelled {
    at: SocketAddr,
    /// A vetted address, or a name where the route leaves resolving to the proxy.
    to: String,
    authorization: Option<HeaderValue>,
}

impl Tunnelled {
    pub(crate) fn new(at: SocketAddr, to: String, credential: Option<&Credential>) -> Result<Self, String> {
        let authorization = credential.map(Credential::header).transpose().map_err(|e| e.to_string())?.flatten();
        Ok(Self { at, to, authorization: authorization.map(|(_, value)| value) })
    }

    fn head(&self) -> Zeroizing<Vec<u8>> {
        let value = self.authorization.as_ref().map_or(&b""[..], HeaderValue::as_bytes);
        let fields: [&[u8]; 7] = if value.is_empty() {
            [b"CONNECT ", self.to.as_bytes(), b" HTTP/1.1\r\nHost: ", self.to.as_bytes(), b"\r\n\r\n", b"", b""]
        } else {
            [
                b"CONNECT ",
                self.to.as_bytes(),
                b" HTTP/1.1\r\nHost: ",
                self.to.as_bytes(),
                b"\r\nProxy-Authorization: ",
                value,
                b"\r\n\r\n",
            ]
        };
        let mut head = Zeroizing::new(Vec::with_capacity(fields.iter().map(|f| f.len()).sum()));
        fields.iter().for_each(|field| head.extend_from_slice(field));
        head
    }

    async fn open(&self) -> Result<TcpStream> {
        let mut stream = TcpStream::connect(self.at).await.or_err(ErrorType::ConnectError, "upstream proxy")?;
        let _ = stream.set_nodelay(true);
        stream.write_all(&self.head()).await.or_err(ErrorType::ConnectProxyFailure, "asking the upstream proxy")?;
        let mut answer = Vec::with_capacity(512);
        loop {
            match answer.windows(4).position(|w| w == b"\r\n\r\n") {
                Some(at) if at + 4 == answer.len() => break,
                // Nobody speaks in the tunnel before us, so what is behind the head cannot be told from a trick.
                Some(_) => return malformed(),
                None if answer.len() >= MAX_ANSWER => return malformed(),
                None => {}
            }
            let read = stream.read_buf(&mut answer).await;
            if read.or_err(ErrorType::ConnectProxyFailure, "reading the upstream proxy's answer")? == 0 {
                return Error::e_explain(ErrorType::ConnectProxyFailure, "the upstream proxy closed");
            }
        }
        match status(&answer) {
            Some(200..=299) => Ok(stream),
            // By number only: its words may repeat what it was sent.
            Some(status) => {
                let told = format!("the upstream proxy answered {status}");
                Error::e_explain(ErrorType::ConnectProxyFailure, told)
            }
            None => malformed(),
        }
    }
}

#[async_trait]
impl L4Connect for Tunnelled {
    async fn connect(&self, _: &AnyAddr) -> Result<Stream> {
        match timeout(TIME, self.open()).await {
            Ok(opened) => opened.map(Stream::from),
            Err(_) => Error::e_explain(ErrorType::ConnectTimedout, "the upstream proxy opened no tunnel in time"),
        }
    }
}

impl fmt::Debug for Tunnelled {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Tunnelled({} via {})", self.to, self.at)
    }
}

fn malformed<T>() -> Result<T> {
    Error::e_explain(ErrorType::ConnectProxyFailure, "the upstream proxy's answer is malformed")
}

fn status(answer: &[u8]) -> Option<u16> {
    let line = answer.strip_prefix(b"HTTP/1.1 ").or_else(|| answer.strip_prefix(b"HTTP/1.0 "))?;
    let (digits, rest) = line.split_at_checked(3)?;
    let ends = matches!(rest.first(), Some(b' ' | b'\r'));
    std::str::from_utf8(digits).ok().filter(|d| ends && d.bytes().all(|b| b.is_ascii_digit()))?.parse().ok()
}

const TIME: Duration = Duration::from_secs(10);
const MAX_ANSWER: usize = 8 * 1024;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_status_line_is_read_strictly() {
        assert_eq!(status(b"HTTP/1.1 200 Connection established\r\n\r\n"), Some(200));
        assert_eq!(status(b"HTTP/1.0 407 \r\n\r\n"), Some(407));
        assert_eq!(status(b"HTTP/1.1 204\r\n\r\n"), Some(204));
        for bad in ["", "HTTP/2 200 OK", "HTTP/1.1 2000 OK", "HTTP/1.1 +20 OK", "200 OK", "HTTP/1.1 20"] {
            assert_eq!(status(bad.as_bytes()), None, "{bad}");
        }
    }

    async fn ask(answer: &'static [u8]) -> (Result<TcpStream>, Vec<u8>) {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let at = listener.local_addr().unwrap();
        let proxy = tokio::spawn(async move {
            let (mut stream, _) = listener.accept().await.unwrap();
            let mut asked = Vec::new();
            while !asked.ends_with(b"\r\n\r\n") {
                stream.read_buf(&mut asked).await.unwrap();
            }
            stream.write_all(answer).await.unwrap();
            asked
        });
        let opened = Tunnelled::new(at, "192.0.2.1:443".into(), None).unwrap().open().await;
        (opened, proxy.await.unwrap())
    }

    #[tokio::test]
    async fn a_tunnel_is_asked_for_by_address_and_opened_on_2xx_alone() {
        let (opened, asked) = ask(b"HTTP/1.1 200 OK\r\nVia: x\r\n\r\n").await;
        assert!(opened.is_ok());
        assert_eq!(asked, b"CONNECT 192.0.2.1:443 HTTP/1.1\r\nHost: 192.0.2.1:443\r\n\r\n");
        for refused in [
            &b"HTTP/1.1 407 Proxy Authentication Required\r\n\r\n"[..],
            b"HTTP/1.1 200 OK\r\n\r\nsmuggled",
            b"HTTP/1.1 200 OK\r\n\r\nHTTP/1.1 200 OK\r\n\r\n",
            b"SSH-2.0-x\r\n\r\n",
            b"",
        ] {
            assert!(ask(refused).await.0.is_err(), "{}", String::from_utf8_lossy(refused));
        }
    }
}
