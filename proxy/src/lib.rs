//! Listeners and the request path; the only crate that knows Pingora.
//!
//! `path.rs` is the request path, top to bottom.

mod agent;
mod body;
mod ca;
mod caller;
mod chain;
mod conn;
mod connect;
mod connections;
mod decode;
mod dial;
mod exchange;
mod frames;
mod framing;
mod front;
mod grpc;
mod guard;
mod hold;
mod lifeline;
mod listen;
mod material;
mod messages;
mod path;
mod peer;
mod phases;
mod relay;
mod reply;
mod resolve;
mod rewrite;
mod scrub;
pub mod sockets;
mod target;
mod tls;
mod upstream;
mod vet;
mod way;
mod websocket;

pub use ca::{Authority, CaError, CaOptions, CaStatus, Provided, RootStatus, inspect};
pub use connections::{Busy, Connections, Limits, Mode, Origin};
pub use dial::Dialer;
pub use listen::{AgentApi, Bound, Entrance, ProxyError, ProxyOptions, TlsListener, serve};
pub use sockets::{Listener, Sockets};
pub use tls::OwnCertificate;
