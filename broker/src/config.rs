//! `routes.toml`: as written, and as meant. Every problem is reported at once, with its line.

mod read;
mod route;

pub use read::{Problem, Severity};
pub use route::{
    ApiDefaults, ConnectorKind, CredentialKind, CredentialSpec, Injection, ProxyAuth, Route, RouteConfig,
    TunnelDefaults, Unmapped, Upstream, parse,
};
