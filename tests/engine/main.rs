//! The emulator's container groups as real containers: what a client of the service sees.
//!
//! Without a container engine each test reports that it is skipped; with `BURSTPOOL_REQUIRE_ENGINE=1`
//! it fails instead.

mod azure;
mod commands;
mod container_ends;
mod container_environment;
mod crash;
mod end_to_end;
mod engine_host;
mod group_operations;
mod hooks;
mod image;
#[path = "../support/mod.rs"]
mod support;
mod terminals;
#[allow(
    clippy::disallowed_methods,
    dead_code,
    reason = "one test uses a part of it, and what a test deletes is its own"
)]
#[path = "../cluster/world.rs"]
mod world;
