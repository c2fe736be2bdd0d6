//! The state that all request handlers and tasks of one emulator share.

use parking_lot::{Mutex, MutexGuard};

use super::clock::EmulatorClock;
use super::counters::Counters;
use super::engine::Engine;
use super::options::EmulatorOptions;
use super::store::GroupStore;
use super::stream::StreamSessions;

/// The shared state of one emulator.
pub struct EmulatorState {
    /// The options that the emulator was started with.
    pub options: EmulatorOptions,
    /// The emulated clock.
    pub clock: EmulatorClock,
    /// Request counters.
    pub counters: Counters,
    /// Exec and attach sessions whose client has not connected yet.
    pub sessions: StreamSessions,
    /// The container engine. `None` if groups are simulated.
    pub engine: Option<Engine>,
    store: Mutex<GroupStore>,
}

impl EmulatorState {
    /// Creates the state for an emulator with `options`.
    pub fn new(options: EmulatorOptions, engine: Option<Engine>) -> Self {
        Self {
            clock: EmulatorClock::new(options.speed, options.shows),
            counters: Counters::new(),
            sessions: StreamSessions::default(),
            engine,
            store: Mutex::new(GroupStore::new(&options)),
            options,
        }
    }

    /// Locks the emulated Azure. Hold the lock only while a request is decided, never across an
    /// `await`.
    pub fn store(&self) -> MutexGuard<'_, GroupStore> {
        self.store.lock()
    }
}
