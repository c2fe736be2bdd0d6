//! Logs, metrics and health endpoints of the operator.
//!
//! In: what the other modules count and measure ([`Metrics`]). Out: log lines on standard error ([`logs`]), and one
//! HTTP server with `/metrics`, `/healthz` and `/readyz` ([`serve`]). It uses no other module of this crate.

mod clock;
pub mod logs;
mod metrics;
pub mod probes;
mod server;
mod triggers;
mod watches;

pub use clock::ServerClock;
pub use metrics::{CallOutcome, Metrics, POD_STATES};
pub use server::{Readiness, ReadinessCheck, bind, serve};
pub use watches::{FailureStreak, error_chain, record_unreadable};
