//! The HTTP API for SDKs and admins: strict JSON in, JSON out, problem+json for every error.
//!
//! Two doors that share nothing but the decision path behind them: [`agent_router`] knows
//! agent tokens only, [`admin_router`] admin and approver tokens only. What is served is
//! described by [`document`], committed as `docs/openapi.json`.

mod admin;
mod agent;
mod answers;
mod auth;
mod body;
mod ca;
mod catalog;
mod convert;
mod doors;
mod error;
mod evidence;
mod explain;
mod openapi;
mod pages;
mod requests;
mod slack;
mod strict;
#[cfg(test)]
mod tests;
mod throttle;

pub use admin::{AdminOptions, ReloadError, ReloadFn, admin_router};
pub use agent::agent_router;
pub use auth::Peer;
pub use ca::{CaFuture, CaRefused, CaView, CertificateAuthority};
pub use openapi::document;
pub use slack::SlackReply;
