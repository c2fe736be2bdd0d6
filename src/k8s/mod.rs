//! Helpers for writes to the API server.
//!
//! In: Events, and answers to writes. Out: Events within the API server's limits (`events`), how long not to
//! repeat a refused write (`refused`), and the pauses of every back-off (`backoff`).

pub mod backoff;
pub mod events;
pub mod refused;
