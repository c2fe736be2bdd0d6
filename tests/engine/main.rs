//! Container groups of the emulator as real containers: what a client of the service sees of them.
//!
//! Without a container engine each test says that it is skipped; with `BURSTPOOL_REQUIRE_ENGINE=1` it
//! fails instead.

mod azure;
mod crash;
mod cycle;
mod host;
mod lives;
mod surroundings;
mod terminals;
