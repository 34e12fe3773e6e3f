//! Wire bytes to actions and back, one folder per system. Pure: nothing here does I/O.
//!
//! A connector sees a request in two steps. [`Connector::plan`] reads the head alone and
//! says which operation it is and what it needs of the body; [`Connector::map`] gets the
//! body and returns the actions together with the upstream request, both derived from the
//! same strict parse, so that what was judged is what is sent.

mod aliases;
mod connector;
pub mod declared;
pub mod github;
pub mod http_generic;
pub mod tunnel;
mod wire;

pub use connector::*;
