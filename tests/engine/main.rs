//! The emulator's container groups as real containers: what a client of the service sees.
//!
//! Without a container engine each test reports that it is skipped; with `BURSTPOOL_REQUIRE_ENGINE=1`
//! it fails instead.

mod azure;
mod commands;
mod crash;
mod cycle;
mod host;
mod image;
mod lives;
mod pages;
#[path = "../support/mod.rs"]
mod support;
mod surroundings;
mod terminals;
#[allow(
    clippy::disallowed_methods,
    dead_code,
    reason = "one test uses a part of it, and what a test deletes is its own"
)]
#[path = "../cluster/world.rs"]
mod world;
