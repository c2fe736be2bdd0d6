//! The state that all request handlers and tasks of one emulator share.

use std::sync::{Mutex, MutexGuard, PoisonError};

use super::clock::Clock;
use super::counters::Counters;
use super::engine::Engine;
use super::options::Options;
use super::store::Store;
use super::stream::Sessions;

/// The shared state of one emulator.
pub struct Shared {
    /// The options that the emulator was started with.
    pub options: Options,
    /// The emulated clock.
    pub clock: Clock,
    /// Request counters.
    pub counters: Counters,
    /// Exec and attach sessions whose client has not connected yet.
    pub sessions: Sessions,
    /// The container engine. `None` if groups are simulated.
    pub engine: Option<Engine>,
    store: Mutex<Store>,
}

impl Shared {
    /// Creates the state for an emulator with `options`.
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

    /// Locks the emulated Azure. Hold the lock only while a request is decided, never across an
    /// `await`.
    pub fn store(&self) -> MutexGuard<'_, Store> {
        self.store.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
