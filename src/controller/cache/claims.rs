//! A cache of the volumes behind the `PersistentVolumeClaim`s of pending pods: each claim is read once, and
//! again when the answer may have changed.
//!
//! In: claims that a plan does not know. Out: [`ClaimStates`], and a notification of every new answer. A bound
//! claim keeps its volume, so it is read again only every 5 minutes. A claim that does not exist or is not bound
//! is read with increasing pauses, for as long as a pending pod names it.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use kube::Client;
use parking_lot::Mutex;
use tokio::sync::{Notify, Semaphore};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::cluster::Snapshot;
use crate::burst::{ClaimState, ClaimStates};
use crate::node::environment::{self, MissingObject, MissingReason};

/// How soon a claim without a volume is read again: a claim that was created together with its pod is bound a
/// moment later. The pause doubles each time up to a limit, so that a thousand claims that are never bound do
/// not cause a thousand reads every 3 s.
const RETRY_INTERVAL: Duration = Duration::from_secs(3);
const MAX_RETRY_INTERVAL: Duration = Duration::from_secs(48);
/// How soon a claim with a volume is read again: the claim may be replaced by another of the same name.
const RECHECK_INTERVAL: Duration = Duration::from_mins(5);
/// How many claims are read at the same time.
pub(crate) const MAX_CONCURRENT_READS: usize = 8;

/// Namespace and name of a claim.
type ClaimKey = (String, String);

/// The cached claims.
pub struct ClaimCache {
    client: Client,
    cancel: CancellationToken,
    changed: Arc<Notify>,
    read_permits: Arc<Semaphore>,
    content: Arc<Mutex<ClaimCacheContent>>,
}

#[derive(Default)]
struct ClaimCacheContent {
    claims: ClaimStates,
    schedules: HashMap<ClaimKey, ClaimReadSchedule>,
}

/// The reads of one claim.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
struct ClaimReadSchedule {
    /// When to read it again; `None` while a read is in flight.
    next_read: Option<Instant>,
    /// The last pause, if the claim has no volume.
    backoff: Option<Duration>,
}

impl ClaimCache {
    /// An empty cache; `changed` is notified of every new answer.
    pub fn new(client: Client, changed: Arc<Notify>, cancel: CancellationToken) -> Self {
        Self {
            client,
            cancel,
            changed,
            read_permits: Arc::new(Semaphore::new(MAX_CONCURRENT_READS)),
            content: Arc::default(),
        }
    }

    /// The current content of the cache.
    pub fn claims(&self) -> ClaimStates {
        self.content.lock().claims.clone()
    }

    /// Forgets claims that no pending pod names, and reads again those that are due.
    pub fn refresh(&self, snapshot: &Snapshot, tasks: &TaskTracker) {
        let named = snapshot.waiting.values().flat_map(|pod| {
            let names = pod.facts.claims.iter();
            names.map(|(_, name)| (pod.facts.id.namespace.as_str(), name.as_str()))
        });
        let named: HashSet<(&str, &str)> = named.collect();
        let is_named = |namespace: &str, name: &str| named.contains(&(namespace, name));
        let mut content = self.content.lock();
        content.schedules.retain(|(namespace, name), schedule| {
            schedule.next_read.is_none() || is_named(namespace, name)
        });
        for (namespace, claims) in &mut content.claims {
            claims.retain(|name, _| is_named(namespace, name));
        }
        content.claims.retain(|_, claims| !claims.is_empty());
        let keys: Vec<ClaimKey> = content.schedules.keys().cloned().collect();
        drop(content);
        self.read_due(keys, tasks);
    }

    /// Reads those of `wanted` that are due.
    pub fn read_due(&self, wanted: impl IntoIterator<Item = ClaimKey>, tasks: &TaskTracker) {
        let now = Instant::now();
        for key in wanted {
            let mut content = self.content.lock();
            let is_due = |schedule: &ClaimReadSchedule| {
                schedule.next_read.is_some_and(|next_read| next_read <= now)
            };
            if content
                .schedules
                .get(&key)
                .is_some_and(|schedule| !is_due(schedule))
            {
                continue;
            }
            content.schedules.entry(key.clone()).or_default().next_read = None;
            drop(content);
            let (client, permits) = (self.client.clone(), self.read_permits.clone());
            let (content, changed) = (self.content.clone(), self.changed.clone());
            let read = async move {
                // The semaphore is never closed.
                let permit = permits.acquire().await;
                let read = environment::check_mountable(&client, &key.0, &key.1).await;
                drop(permit);
                let pause = content.lock().record_read(key, read);
                changed.notify_one();
                if let Some(pause) = pause {
                    tokio::time::sleep(pause).await;
                    changed.notify_one();
                }
            };
            let cancel = self.cancel.clone();
            tasks.spawn(async move { cancel.run_until_cancelled(read).await });
        }
    }
}

impl ClaimCacheContent {
    /// Records the result of a read. Returns the pause until the next read, if the claim has no volume.
    fn record_read(
        &mut self,
        key: ClaimKey,
        read: Result<Result<(), String>, MissingObject>,
    ) -> Option<Duration> {
        let schedule = self.schedules.entry(key.clone()).or_default();
        let doubled = |pause: Duration| MAX_RETRY_INTERVAL.min(pause * 2);
        let is_missing = read.is_err();
        schedule.backoff = is_missing.then(|| schedule.backoff.map_or(RETRY_INTERVAL, doubled));
        schedule.next_read = Some(Instant::now() + schedule.backoff.unwrap_or(RECHECK_INTERVAL));
        let pause = schedule.backoff;
        if let Some(state) = claim_state(read) {
            self.claims.entry(key.0).or_default().insert(key.1, state);
        }
        pause
    }
}

/// Converts the result of reading a claim; `None` if the read failed: the cache then keeps its last answer.
pub(crate) fn claim_state(read: Result<Result<(), String>, MissingObject>) -> Option<ClaimState> {
    match read {
        Ok(Ok(())) => Some(ClaimState::Mountable),
        Ok(Err(why)) => Some(ClaimState::Unsupported(why)),
        Err(missing) => match missing.reason {
            MissingReason::Unreadable => None,
            // The cluster may bind it at any time, without a change of the pod.
            MissingReason::Missing => Some(ClaimState::Pending(missing.to_string())),
            // A retry cannot help until an administrator grants the permission that the message names.
            MissingReason::Forbidden => Some(ClaimState::Unsupported(missing.to_string())),
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn missing(reason: MissingReason) -> MissingObject {
        MissingObject {
            object: "PersistentVolumeClaim shop/data".to_owned(),
            reason,
            why: "does not exist".to_owned(),
            remedy: None,
        }
    }

    #[tokio::test(start_paused = true)]
    async fn missing_claims_are_read_at_growing_intervals_and_a_failed_read_changes_nothing() {
        let key = || ("shop".to_owned(), "data".to_owned());
        let mut content = ClaimCacheContent::default();
        content.record_read(key(), Err(missing(MissingReason::Unreadable)));
        assert!(content.claims.is_empty());
        let why = ClaimState::Pending("PersistentVolumeClaim shop/data does not exist".to_owned());
        let refused =
            ClaimState::Unsupported("PersistentVolumeClaim shop/data does not exist".to_owned());
        for (read, state, pause) in [
            (
                Err(missing(MissingReason::Missing)),
                &why,
                RETRY_INTERVAL * 2,
            ),
            (
                Err(missing(MissingReason::Unreadable)),
                &why,
                RETRY_INTERVAL * 4,
            ),
            (Ok(Ok(())), &ClaimState::Mountable, RECHECK_INTERVAL),
            (Err(missing(MissingReason::Missing)), &why, RETRY_INTERVAL),
            (
                Err(missing(MissingReason::Forbidden)),
                &refused,
                RETRY_INTERVAL * 2,
            ),
        ] {
            content.record_read(key(), read);
            assert_eq!(&content.claims["shop"]["data"], state);
            assert_eq!(
                content.schedules[&key()].next_read,
                Some(Instant::now() + pause)
            );
        }
        for _ in 0..9 {
            content.record_read(key(), Err(missing(MissingReason::Missing)));
        }
        assert_eq!(content.schedules[&key()].backoff, Some(MAX_RETRY_INTERVAL));
    }
}
