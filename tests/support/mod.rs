//! What the tests and the demo share: a real cluster, a tenant per test in it, and waiting on watches.
//!
//! In: the control plane binary of `tests/controlplane` (`make controlplane`). Out: [`Cluster`],
//! [`Tenant`], [`wait`]. Only test binaries and the demo include it, with `mod support;`.
//!
//! A test begins with `let cluster = Cluster::shared().await; let tenant =
//! cluster.tenant("spill").await`, then creates nodes and pods of that tenant. All functions return
//! [`Error`]. Its debug form is its text, so `expect` shows what the test waited for, the last state it
//! saw, and the components' logs.

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
pub mod registry;
mod rights;
pub mod secure;
mod tenant;
pub mod wait;

pub use cluster::{Cluster, Component, Options};
pub use error::Error;
pub use optional::skipped;
pub use rights::OPERATOR;
pub use tenant::Tenant;
