//! Helpers for writes to the API server.
//!
//! In: Events, and answers to writes. Out: Events within the API server's limits (`events`), and how long not to
//! repeat a refused write (`refused`).

pub mod events;
pub mod refused;
