//! Listeners and the request path; the only crate that knows Pingora.
//!
//! `path.rs` is the request path, top to bottom.

mod agent;
mod body;
mod ca;
mod conn;
mod connect;
mod dial;
mod exchange;
mod frames;
mod framing;
mod front;
mod guard;
mod listen;
mod path;
mod reply;
mod rewrite;
mod target;
mod tls;
mod upstream;
mod way;

pub use ca::{Authority, CaError, CaOptions, CaStatus, Provided, RootStatus, inspect};
pub use dial::Dialer;
pub use listen::{AgentApi, Bound, ProxyError, ProxyOptions, TlsListener, serve};
pub use tls::OwnCertificate;
