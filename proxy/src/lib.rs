//! Listeners and the request path; the only crate that knows Pingora.
//!
//! `path.rs` is the request path, top to bottom.

mod agent;
mod body;
mod chain;
mod conn;
mod decode;
mod dial;
mod exchange;
mod frames;
mod framing;
mod grpc;
mod guard;
mod lifeline;
mod listen;
mod path;
mod peer;
mod reply;
mod resolve;
mod rewrite;
mod scrub;
mod tls;
mod upstream;
mod vet;
mod websocket;

pub use dial::Dialer;
pub use listen::{AgentApi, Bound, ProxyError, ProxyOptions, serve};
