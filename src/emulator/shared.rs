//! What all parts of one emulator share.

use std::sync::{Mutex, MutexGuard, PoisonError};

use super::clock::Clock;
use super::counters::Counters;
use super::engine::Engine;
use super::options::Options;
use super::store::Store;
use super::stream::Sessions;

/// One emulator's parts.
pub struct Shared {
    /// What it was started with.
    pub options: Options,
    /// Its clock.
    pub clock: Clock,
    /// How many requests it has seen.
    pub counters: Counters,
    /// Exec and attach sessions that wait for their client.
    pub sessions: Sessions,
    /// The container engine, if groups are run for real.
    pub engine: Option<Engine>,
    store: Mutex<Store>,
}

impl Shared {
    /// Parts for an emulator with `options`.
    pub fn new(options: Options, engine: Option<Engine>) -> Self {
        Self {
            clock: Clock::new(options.speed, options.shows),
            counters: Counters::new(),
            sessions: Sessions::default(),
            engine,
            store: Mutex::new(Store::new(&options)),
            options,
        }
    }

    /// The emulated Azure. Held for as long as a request takes to decide, never across a wait.
    pub fn store(&self) -> MutexGuard<'_, Store> {
        self.store.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
