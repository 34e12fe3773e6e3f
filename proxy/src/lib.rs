//! Listeners and the request path; the only crate that knows Pingora.
//!
//! `path.rs` is the request path, top to bottom.

mod agent;
mod body;
mod conn;
mod connections;
mod dial;
mod exchange;
mod framing;
mod guard;
mod listen;
mod path;
mod relay;
mod reply;
mod rewrite;
pub mod sockets;
mod upstream;

pub use connections::{Busy, Connections, Limits, Mode, Origin};
pub use dial::Dialer;
pub use listen::{AgentApi, Bound, Entrance, ProxyError, ProxyOptions, serve};
pub use sockets::Sockets;
