//! Routes, credentials and declared tools, as meant.

use std::{collections::BTreeMap, net::SocketAddr, sync::Arc, time::Duration};

use aegis_action::SourceTrust;
use aegis_connectors::Entry;
use http::HeaderName;
use ipnet::IpNet;

use super::{egress::Egress, webhook::Webhook};

/// Everything `routes.toml` says, as meant.
#[derive(Debug, Clone)]
pub struct RouteConfig {
    /// In file order.
    pub routes: Vec<Arc<Route>>,
    /// By name.
    pub credentials: BTreeMap<String, Arc<CredentialSpec>>,
    /// The user's own functions, for SDK calls.
    pub tools: Vec<Arc<Entry>>,
    /// What applies to SDK calls of declared tools.
    pub api: ApiDefaults,
    /// What applies to opaque tunnels of the forward proxy.
    pub tunnel: TunnelDefaults,
    /// Who is told what happens, in file order.
    pub webhooks: Vec<Arc<Webhook>>,
}

/// Defaults for calls that belong to no route.
#[derive(Debug, Clone)]
pub struct ApiDefaults {
    /// Base trust of SDK calls to declared tools.
    pub default_trust: SourceTrust,
    /// How long an asked approval lives.
    pub approval_ttl: Duration,
    /// How many questions of one agent may be open.
    pub max_pending: u32,
}

/// What applies to tunnels to hosts that no route serves, where policies permit `tunnel.connect` at all.
#[derive(Debug, Clone)]
pub struct TunnelDefaults {
    /// Base trust of a tunnel.
    pub default_trust: SourceTrust,
    /// Internal addresses that a tunnel may lead to.
    pub allow_internal: Vec<IpNet>,
    /// A tunnel in which nothing moves for this long is closed.
    pub idle_timeout: Duration,
}

/// One route: where requests come in, whose grammar they speak, where they go.
#[derive(Debug, Clone)]
pub struct Route {
    /// First path segment of the base URL, and the label everywhere.
    pub name: String,
    /// Whose grammar.
    pub connector: ConnectorKind,
    /// Where to.
    pub upstream: Upstream,
    /// Name of the credential that is injected; `None` sends none.
    pub credential: Option<String>,
    /// Base of the effective source trust.
    pub default_trust: SourceTrust,
    /// Hosts that select this route, lower case, without port.
    pub hosts: Vec<String>,
    /// A listener of the route's own.
    pub listen: Option<SocketAddr>,
    /// What happens to requests the connector does not know.
    pub unmapped: Unmapped,
    /// Internal addresses that this route may dial.
    pub allow_internal: Vec<IpNet>,
    /// How it gets there.
    pub egress: Egress,
    /// Time for the whole request body to arrive.
    pub body_timeout: Duration,
    /// Time for the upstream to connect, and between two reads of its answer.
    pub upstream_timeout: Duration,
    /// Upper bound for buffered bodies, bytes.
    pub max_body: usize,
    /// How long an asked approval lives.
    pub approval_ttl: Duration,
    /// How long a request that waits for people is kept; zero where it is answered at once.
    pub approval_hold: Duration,
    /// What a client of the forward proxy is told that names no agent.
    pub proxy_auth: ProxyAuth,
    /// Line in the file, for messages.
    pub line: usize,
}

/// What a client of the forward proxy is told that names no agent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ProxyAuth {
    /// 407: the proxy's own credential is asked for.
    Challenge,
    /// Nothing yet: the tunnel opens, and each request inside is asked as the tool's API would.
    Inner,
}

/// Whose grammar a route speaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "snake_case")]
pub enum ConnectorKind {
    /// GitHub's REST API.
    Github,
    /// Any HTTP API, by method and URL.
    Http,
}

/// What happens to a request that the connector cannot map.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Unmapped {
    /// Denied.
    Deny,
    /// Becomes `http.<method>` on the normalised URL, and policy decides.
    Http,
}

/// Where a route goes.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Upstream {
    /// TLS or not.
    pub tls: bool,
    /// Lower-case host name, or an address without brackets.
    pub host: String,
    /// Port.
    pub port: u16,
    /// Path in front of every request, without a slash at the end.
    pub base_path: String,
}

impl Upstream {
    /// `Host` for the upstream: the port only where it is not the scheme's own.
    pub fn authority(&self) -> String {
        let host = if self.host.contains(':') { format!("[{}]", self.host) } else { self.host.clone() };
        if self.port == if self.tls { 443 } else { 80 } { host } else { format!("{host}:{}", self.port) }
    }
    /// `scheme://authority`.
    pub fn origin(&self) -> String {
        format!("{}://{}", if self.tls { "https" } else { "http" }, self.authority())
    }
}

/// A credential as routes name it: where its bytes are and how they are sent.
#[derive(Debug, Clone)]
pub struct CredentialSpec {
    /// Name.
    pub name: String,
    /// Vault adapter: `embedded`, `env`, `file`.
    pub vault: String,
    /// Key in that vault.
    pub key: String,
    /// How it is sent.
    pub kind: CredentialKind,
    /// Line in the file.
    pub line: usize,
}

/// How a credential is sent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum CredentialKind {
    /// `Authorization: <scheme> <value>`; the scheme is `Bearer` unless said.
    Bearer {
        /// `Bearer`, `token`, …
        scheme: String,
    },
    /// `Authorization: Basic base64(username:value)`.
    Basic {
        /// User.
        username: String,
    },
    /// A header of its own.
    Header {
        /// Lower-case name.
        name: HeaderName,
        /// Put in front of the value.
        prefix: String,
    },
    /// A query parameter.
    Query {
        /// Name.
        name: String,
    },
    /// The key of a client certificate, never sent: base64 of its DER on one line.
    ClientKey,
    /// The key that webhooks are signed with, never sent.
    SigningKey,
    /// The address of a webhook that is itself a secret.
    WebhookUrl,
}

/// Short name of a [`CredentialKind`], as in the file.
pub type Injection = &'static str;

impl CredentialKind {
    /// The word used in `routes.toml`.
    pub fn word(&self) -> Injection {
        match self {
            Self::Bearer { .. } => "bearer",
            Self::Basic { .. } => "basic",
            Self::Header { .. } => "header",
            Self::Query { .. } => "query",
            Self::ClientKey => "client_key",
            Self::SigningKey => "signing_key",
            Self::WebhookUrl => "webhook_url",
        }
    }

    /// Whether it is what requests of agents carry; the others are for the gateway itself.
    pub fn is_injected(&self) -> bool {
        match self {
            Self::Bearer { .. } | Self::Basic { .. } | Self::Header { .. } | Self::Query { .. } => true,
            Self::ClientKey | Self::SigningKey | Self::WebhookUrl => false,
        }
    }
}
