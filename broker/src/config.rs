//! `routes.toml`: as written, and as meant. Every problem is reported at once, with its line.

mod egress;
mod files;
mod parse;
mod read;
mod route;
mod tool;
mod webhook;

pub use egress::{ClientCertificate, ClientKey, Egress, Roots, UpstreamProxy};
pub use files::NamedFiles;
pub use parse::parse;
pub use read::{Problem, Severity};
pub use route::{
    ApiDefaults, ConnectorKind, CredentialKind, CredentialSpec, Injection, ProxyAuth, Route, RouteConfig,
    TunnelDefaults, Unmapped, Upstream,
};
pub use webhook::{Webhook, WebhookFormat};
