//! The one decision path: agents, routes, policy, approvals, permits, credentials and leases.

pub mod config;
pub mod policy;
pub mod secret;
pub mod store;
pub mod vault;
