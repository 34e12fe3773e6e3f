//! The gateway as one value: state folder, keys, log, store, vaults, broker, API and proxy.

pub mod doors;
mod open;
mod run;

pub use open::{Gateway, NewAdmin, Parts, RECEIPTS};
pub use run::{Running, serve};
