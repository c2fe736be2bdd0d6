//! Why Azure did not answer the last LIST of the node's container groups.
//!
//! In: the result of each LIST. Out: whether the operator may list, and whether the resource group is gone.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use parking_lot::Mutex;
use tokio::time::Instant;

use crate::aci::error::Error;

/// How long Azure must not find a resource group before its groups count as gone: a single answer may be wrong.
const MIN_TIME_NOT_FOUND: Duration = Duration::from_secs(20);

/// The failures of the last LISTs in a row.
#[derive(Debug, Default)]
pub(super) struct ListFailures {
    is_forbidden: AtomicBool,
    /// Since when Azure answers each LIST that the resource group or the subscription does not exist.
    not_found_since: Mutex<Option<Instant>>,
}

impl ListFailures {
    /// Records that a LIST failed.
    pub fn record(&self, error: &Error) {
        let status = error.failure().map(|failure| failure.status);
        self.is_forbidden
            .store(status == Some(403), Ordering::Relaxed);
        let is_not_found = error.means_nothing_to_delete();
        let mut since = self.not_found_since.lock();
        *since = is_not_found.then(|| since.unwrap_or_else(Instant::now));
    }

    /// Records that a LIST was answered.
    pub fn clear(&self) {
        self.is_forbidden.store(false, Ordering::Relaxed);
        *self.not_found_since.lock() = None;
    }

    /// Whether Azure answered the last LIST with 403.
    pub fn is_forbidden(&self) -> bool {
        self.is_forbidden.load(Ordering::Relaxed)
    }

    /// Whether Azure has not found the resource group for 20 s.
    pub fn is_resource_group_gone(&self) -> bool {
        self.not_found_since
            .lock()
            .is_some_and(|since| since.elapsed() >= MIN_TIME_NOT_FOUND)
    }
}
