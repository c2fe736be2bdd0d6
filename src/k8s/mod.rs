//! Helpers for writes to the API server.
//!
//! In: Events, and answers to writes. Out: Events within the API server's limits (`events`), how long not to
//! repeat a refused write (`refused`), and the pauses of every back-off (`backoff`).

pub mod backoff;
pub mod call;
pub mod events;
pub mod label_selector;
pub mod quantity;
pub mod refused;
pub(crate) mod resource_version;
pub mod watch_health;
