//! What the tests and the demo share: a real cluster, a test's own part of it, and waiting on watches.
//!
//! In: the control plane binary of `tests/controlplane` (`make controlplane`). Out: [`Cluster`],
//! [`Tenant`], [`wait`]. Taken in with `mod support;` by test binaries and the demo alone.
//!
//! A test reads: `let cluster = Cluster::shared().await; let tenant = cluster.tenant("spill").await`,
//! then nodes and pods of that tenant. Everything returns [`Error`], whose debug form is its text, so
//! that `expect` shows what was waited for, what was seen last, and what the components logged.

#![allow(
    dead_code,
    unused_imports,
    reason = "every binary uses a part of this module"
)]

pub mod alertmanager;
pub mod between;
mod cluster;
mod error;
pub mod monitoring;
pub mod objects;
mod optional;
mod rights;
pub mod secure;
mod tenant;
pub mod wait;

pub use cluster::{Cluster, Component, Options};
pub use error::Error;
pub use optional::skipped;
pub use rights::OPERATOR;
pub use tenant::Tenant;
