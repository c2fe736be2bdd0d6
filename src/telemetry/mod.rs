//! What the operator tells those who run it: logs, metrics, and whether it is well.
//!
//! In: whatever the other rooms count and measure ([`Metrics`]). Out: lines on standard error ([`logs`]),
//! and one HTTP server with `/metrics`, `/healthz` and `/readyz` ([`serve`]). It knows nobody.

mod clock;
pub mod logs;
mod metrics;
mod server;
mod triggers;
mod watches;

pub use clock::Clock;
pub use metrics::{Call, Metrics, STATES};
pub use server::{Readiness, Ready, bind, serve};
pub use watches::{Streak, unreadable, whole};
