//! The gateway as one value: state folder, keys, log, store, vaults, broker, API and proxy.

pub mod doors;
mod open;
mod run;

pub use open::{Gateway, NewAdmin, Parts, Prepared, RECEIPTS};
pub use run::{Listening, Running, serve, serve_on};
