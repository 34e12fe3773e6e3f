//! How a route reaches its upstream: which protocol, whom it trusts, as whom, and through what.

use std::{net::IpAddr, sync::Arc, time::Duration};

use aegis_action::{Digest, sha256};
use rustls::{
    RootCertStore,
    crypto::ring,
    pki_types::{CertificateDer, PrivateKeyDer},
    sign::CertifiedKey,
};

use super::{ConnectorKind, Unmapped, Upstream, files::NamedFiles, parse::parse_upstream, read::Reader};
use crate::secret::Secret;

/// The upstream side of a route.
#[derive(Debug, Clone)]
pub struct Egress {
    /// Whether HTTP/2 is offered over TLS; over plain HTTP it is spoken without asking.
    pub http2: bool,
    /// Whether gRPC is let through, trailers included.
    pub grpc: bool,
    /// Whether WebSocket is let through.
    pub websocket: bool,
    /// How long a gRPC or WebSocket stream may be silent.
    pub stream_idle: Duration,
    /// The only roots that are trusted; `None` trusts the system's.
    pub roots: Option<Arc<Roots>>,
    /// What the gateway shows to the upstream.
    pub client: Option<Arc<ClientCertificate>>,
    /// The only way out.
    pub proxy: Option<Arc<UpstreamProxy>>,
}

impl Egress {
    /// Name of the credential that holds the client certificate's key.
    pub fn client_key_credential(&self) -> Option<&String> {
        match self.client.as_ref().map(|c| &c.key) {
            Some(ClientKey::Credential(name)) => Some(name),
            Some(ClientKey::Bytes(_)) | None => None,
        }
    }
}

/// Certificates that a server's must lead to.
#[derive(Debug, PartialEq, Eq)]
pub struct Roots {
    /// DER. Each is one that both TLS library and proxy can parse.
    pub certificates: Vec<Vec<u8>>,
    /// SHA-256 over all of them, in order.
    pub fingerprint: Digest,
}

/// A client certificate with the place of its key.
#[derive(Debug)]
pub struct ClientCertificate {
    /// DER, leaf first. Each is one that both TLS library and proxy can parse.
    pub chain: Vec<Vec<u8>>,
    /// SHA-256 over the chain.
    pub fingerprint: Digest,
    /// Its private key.
    pub key: ClientKey,
}

impl ClientCertificate {
    /// Whether `key` (PKCS#8, SEC1 or PKCS#1 DER) is one that TLS can use and belongs to the leaf.
    pub fn takes(&self, key: &Secret) -> bool {
        fits(&self.chain, key.expose()).is_ok()
    }
}

/// Where the key of a client certificate is.
#[derive(Debug)]
pub enum ClientKey {
    /// DER, out of a file that is its owner's alone.
    Bytes(Secret),
    /// Name of a credential of kind `client_key`.
    Credential(String),
}

/// An HTTP proxy that takes `CONNECT`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UpstreamProxy {
    /// Lower-case host name, or an address without brackets.
    pub host: String,
    /// Port.
    pub port: u16,
    /// Name of a credential of kind `basic`, sent as `Proxy-Authorization`.
    pub credential: Option<String>,
    /// The proxy resolves the upstream's name, so nobody here has seen the address.
    pub danger_resolves: bool,
}

/// What of the route decides over its egress.
pub(super) struct Of<'a> {
    pub(super) upstream: &'a Upstream,
    pub(super) connector: ConnectorKind,
    pub(super) unmapped: Unmapped,
    pub(super) files: &'a NamedFiles,
}

pub(super) fn read(r: &mut Reader<'_, '_>, of: &Of<'_>) -> Egress {
    let tls = of.upstream.tls;
    let grpc = r.boolean("grpc").unwrap_or(false);
    let websocket = r.boolean("websocket").unwrap_or(false);
    let generic = of.connector == ConnectorKind::Http || of.unmapped == Unmapped::Http;
    for (key, on) in [("grpc", grpc), ("websocket", websocket)] {
        if on && !generic {
            r.error_at(key, format!("`{key}` needs `connector = \"http\"` or `unmapped = \"http\"`"));
        }
    }
    let asked = r.boolean("http2");
    if grpc && asked == Some(false) {
        r.error_at("http2", "gRPC is HTTP/2: leave `http2` out or set it to true".into());
    }
    let idle = r.integer("stream_idle_timeout_seconds", (1, 86_400));
    if idle.is_some() && !grpc && !websocket {
        r.error_at("stream_idle_timeout_seconds", "this means something with `grpc` or `websocket` only".into());
    }
    Egress {
        http2: asked.unwrap_or(tls || grpc),
        grpc,
        websocket,
        stream_idle: Duration::from_secs(idle.unwrap_or(STREAM_IDLE)),
        roots: roots(r, of),
        client: client(r, of),
        proxy: proxy(r),
    }
}

fn roots(r: &mut Reader<'_, '_>, of: &Of<'_>) -> Option<Arc<Roots>> {
    let name = r.string("ca_file")?;
    let read = needs_tls(of).and_then(|()| of.files.certificates(&name)).and_then(|certificates| {
        let mut store = RootCertStore::empty();
        for (at, der) in certificates.iter().enumerate() {
            store
                .add(CertificateDer::from(der.as_slice()))
                .map_err(|_| format!("certificate {} of `{name}` cannot be a root", at + 1))?;
        }
        Ok(certificates)
    });
    match read {
        Ok(certificates) => Some(Arc::new(Roots { fingerprint: fingerprint(&certificates), certificates })),
        Err(message) => {
            r.error_at("ca_file", message);
            None
        }
    }
}

fn client(r: &mut Reader<'_, '_>, of: &Of<'_>) -> Option<Arc<ClientCertificate>> {
    let names = (r.string("client_certificate"), r.string("client_key"), r.string("client_key_credential"));
    let (at, read) = match names {
        (None, None, None) => return None,
        (None, Some(_), _) => ("client_key", Err("`client_certificate` is required beside it".into())),
        (None, None, Some(_)) => ("client_key_credential", Err("`client_certificate` is required beside it".into())),
        (Some(_), Some(_), Some(_)) => {
            ("client_key", Err("name either `client_key` or `client_key_credential`".into()))
        }
        (Some(_), None, None) => {
            ("client_certificate", Err("`client_key` (a file) or `client_key_credential` is required beside it".into()))
        }
        (Some(chain), Some(key), None) => ("client_key", of_file(of, &chain, &key)),
        (Some(chain), None, Some(credential)) => ("client_certificate", of_vault(of, &chain, credential)),
    };
    match read {
        Ok(client) => Some(Arc::new(client)),
        Err(message) => {
            r.error_at(at, message);
            None
        }
    }
}

fn of_file(of: &Of<'_>, chain: &str, key: &str) -> Result<ClientCertificate, String> {
    needs_tls(of)?;
    let certificates = of.files.certificates(chain)?;
    let bytes = of.files.key(key)?;
    fits(&certificates, bytes.expose()).map_err(|why| format!("`{key}` {why} `{chain}`"))?;
    Ok(ClientCertificate { fingerprint: fingerprint(&certificates), chain: certificates, key: ClientKey::Bytes(bytes) })
}

fn of_vault(of: &Of<'_>, chain: &str, credential: String) -> Result<ClientCertificate, String> {
    needs_tls(of)?;
    let chain = of.files.certificates(chain)?;
    Ok(ClientCertificate { fingerprint: fingerprint(&chain), chain, key: ClientKey::Credential(credential) })
}

fn proxy(r: &mut Reader<'_, '_>) -> Option<Arc<UpstreamProxy>> {
    let url = r.string("upstream_proxy");
    let credential = r.string("upstream_proxy_credential");
    let danger_resolves = r.boolean("danger_proxy_resolves").unwrap_or(false);
    let Some(url) = url else {
        for (key, on) in
            [("upstream_proxy_credential", credential.is_some()), ("danger_proxy_resolves", danger_resolves)]
        {
            if on {
                r.error_at(key, "this means something with `upstream_proxy` only".into());
            }
        }
        return None;
    };
    match parse_upstream(&url, true) {
        Ok(Upstream { tls: false, host, port, base_path }) if base_path.is_empty() => {
            Some(Arc::new(UpstreamProxy { host, port, credential, danger_resolves }))
        }
        Ok(_) => {
            r.error_at("upstream_proxy", format!("`{url}` must be `http://host:port`"));
            None
        }
        Err(message) => {
            r.error_at("upstream_proxy", message);
            None
        }
    }
}

fn needs_tls(of: &Of<'_>) -> Result<(), String> {
    if of.upstream.tls { Ok(()) } else { Err("this needs an `https://` upstream".into()) }
}

/// Whether TLS can use the key and it is the leaf's.
fn fits(chain: &[Vec<u8>], key: &[u8]) -> Result<(), &'static str> {
    let key = PrivateKeyDer::try_from(key).map_err(|_| "is not a key that TLS can use with")?;
    let key = ring::sign::any_supported_type(&key).map_err(|_| "is not a key that TLS can use with")?;
    let chain = chain.iter().map(|der| CertificateDer::from(der.clone())).collect();
    CertifiedKey::new(chain, key).keys_match().map_err(|_| "does not belong to")
}

fn fingerprint(certificates: &[Vec<u8>]) -> Digest {
    let mut all = Vec::with_capacity(certificates.iter().map(|c| c.len() + 8).sum());
    for der in certificates {
        all.extend_from_slice(&(der.len() as u64).to_be_bytes());
        all.extend_from_slice(der);
    }
    sha256(&all)
}

/// Whether this is a name or an address in its one spelling, never a number that a resolver would
/// take for an address (`2130706433`, `0x7f.1`, `0177.0.0.1`).
pub(super) fn is_plain_host(host: &str) -> bool {
    let last = host.rsplit('.').next().unwrap_or_default();
    let number = last.bytes().all(|b| b.is_ascii_digit())
        || last.strip_prefix("0x").is_some_and(|hex| hex.bytes().all(|b| b.is_ascii_hexdigit()));
    !number || host.parse::<IpAddr>().is_ok()
}

const STREAM_IDLE: u64 = 600;
