//! Listeners and the request path; the only crate that knows Pingora.
//!
//! `path.rs` is the request path, top to bottom.

mod agent;
mod body;
mod conn;
mod dial;
mod exchange;
mod framing;
mod guard;
mod listen;
mod path;
mod reply;
mod rewrite;
mod upstream;

pub use dial::Dialer;
pub use listen::{AgentApi, Bound, ProxyError, ProxyOptions, serve};
