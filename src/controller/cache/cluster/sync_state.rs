//! The sync state of the cache: which parts have been listed, and why others have not, as text for users.
//!
//! In: the ends of lists, and the errors of watches. Out: the missing parts, for `/readyz`; and whether a retry
//! can help, for `burstpool explain`. The text of an error is the API server's, which names the missing
//! permission.

use std::collections::{HashMap, HashSet};

use kube::runtime::watcher;
use tokio::sync::watch;

use crate::telemetry::error_chain;

/// The parts of a [`Snapshot`](crate::controller::cache::cluster::Snapshot).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum CachePart {
    Pools,
    Waiting,
    Labelled,
    Nodes,
    Namespaces,
}

const PARTS: [(CachePart, &str); 5] = [
    (CachePart::Pools, "BurstPools"),
    (CachePart::Waiting, "pending pods"),
    (CachePart::Labelled, "granted pods"),
    (CachePart::Nodes, "virtual nodes"),
    (CachePart::Namespaces, "namespaces"),
];

impl CachePart {
    /// The name of the part in messages.
    pub(super) fn name(self) -> &'static str {
        let found = PARTS.iter().find(|(part, _)| *part == self);
        found.map_or("", |(_, name)| name)
    }
}

/// The text for a 404 answer to a LIST.
const NOT_SERVED: &str = "the API server does not serve this resource; is it installed?";

/// Which parts have been listed, and why others have not.
#[derive(Debug, Default)]
pub struct SyncState {
    listed: watch::Sender<HashSet<CachePart>>,
    failed: watch::Sender<HashMap<CachePart, SyncFailure>>,
}

impl SyncState {
    /// Records that a list of this part is complete.
    pub(super) fn record_listed(&self, part: CachePart) {
        self.listed.send_modify(|parts| {
            parts.insert(part);
        });
    }

    /// Whether this part has been listed completely at least once.
    pub(super) fn is_listed(&self, part: CachePart) -> bool {
        self.listed.borrow().contains(&part)
    }

    /// Records that a part could not be listed or watched.
    pub(super) fn record_failed(&self, part: CachePart, error: &watcher::Error) {
        let failure = SyncFailure::from_error(part.name(), error);
        self.failed.send_modify(|failed| {
            failed.insert(part, failure);
        });
    }

    /// For each part that has not been listed yet, the last error, if there was one.
    pub fn failures(&self) -> Vec<SyncFailure> {
        let (listed, failed) = (self.listed.borrow(), self.failed.borrow());
        let missing = PARTS.iter().filter(|(part, _)| !listed.contains(part));
        missing
            .filter_map(|(part, _)| failed.get(part).cloned())
            .collect()
    }

    /// The parts that have not been listed yet: one sentence for each, with the reason if it is known.
    pub fn not_synced(&self) -> Vec<String> {
        let (listed, failed) = (self.listed.borrow(), self.failed.borrow());
        let missing = PARTS.iter().filter(|(part, _)| !listed.contains(part));
        let sentences = missing.map(|(part, name)| match failed.get(part) {
            Some(failure) => format!("{name} have not been listed yet: {}", failure.why),
            None => format!("{name} have not been listed yet"),
        });
        sentences.collect()
    }

    /// Waits until every part has been listed once.
    pub async fn wait_until_synced(&self) {
        let mut listed = self.listed.subscribe();
        // `self` holds the sender, so the channel stays open.
        let _ = listed.wait_for(|listed| listed.len() == PARTS.len()).await;
    }

    /// Waits until a part has failed with an error that a retry cannot fix, and every other part has been
    /// listed or has failed as well.
    pub async fn wait_until_failed(&self) {
        let (mut listed, mut failed) = (self.listed.subscribe(), self.failed.subscribe());
        loop {
            let failures = self.failures();
            let is_final = failures
                .iter()
                .any(|failure| failure.kind != FailureKind::Transient);
            if is_final && failures.len() == self.not_synced().len() {
                return;
            }
            // `self` holds the senders, so the channels stay open.
            tokio::select! {
                _ = listed.changed() => {}
                _ = failed.changed() => {}
            }
        }
    }
}

/// Why a part could not be listed or watched.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SyncFailure {
    /// The name of the part.
    pub what: &'static str,
    /// Whether a retry can help.
    pub kind: FailureKind,
    /// The error message of the API server or of the client.
    pub why: String,
}

/// The kind of a failure.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FailureKind {
    /// The user lacks the permission (403).
    Forbidden,
    /// The API server does not know the user or the resource (401, 404).
    Unknown,
    /// A retry may help.
    Transient,
}

impl SyncFailure {
    fn from_error(what: &'static str, error: &watcher::Error) -> Self {
        use watcher::Error::{InitialListFailed, WatchError, WatchFailed, WatchStartFailed};
        let status = match error {
            WatchError(status)
            | InitialListFailed(kube::Error::Api(status))
            | WatchStartFailed(kube::Error::Api(status))
            | WatchFailed(kube::Error::Api(status)) => Some(status),
            _ => None,
        };
        Self {
            what,
            kind: match status.map(|status| status.code) {
                Some(403) => FailureKind::Forbidden,
                Some(401 | 404) => FailureKind::Unknown,
                _ => FailureKind::Transient,
            },
            why: match status {
                // The server's own message is only "404 page not found".
                Some(status) if status.code == 404 => NOT_SERVED.to_owned(),
                Some(status) => status.message.clone(),
                None => error_chain(error),
            },
        }
    }
}

#[cfg(test)]
mod tests {
    use kube::core::Status;

    use super::*;

    fn refused(code: u16) -> watcher::Error {
        let status = Status::failure("pods is forbidden", "").with_code(code);
        watcher::Error::InitialListFailed(kube::Error::Api(Box::new(status)))
    }

    #[test]
    fn missing_permissions_and_resources_are_permanent_and_a_busy_server_is_transient() {
        for (code, kind) in [
            (403, FailureKind::Forbidden),
            (401, FailureKind::Unknown),
            (404, FailureKind::Unknown),
            (429, FailureKind::Transient),
            (500, FailureKind::Transient),
        ] {
            let why = if code == 404 {
                NOT_SERVED
            } else {
                "pods is forbidden"
            };
            let expected = SyncFailure {
                what: "namespaces",
                kind,
                why: why.to_owned(),
            };
            assert_eq!(
                SyncFailure::from_error("namespaces", &refused(code)),
                expected,
                "{code}"
            );
        }
        let failure = SyncFailure::from_error("namespaces", &watcher::Error::NoResourceVersion);
        assert_eq!(failure.kind, FailureKind::Transient);
        assert!(failure.why.contains("resourceVersion"), "{}", failure.why);
    }

    #[tokio::test]
    async fn a_sync_has_failed_only_when_every_part_has_answered_and_one_is_forbidden() {
        let sync_state = SyncState::default();
        let has_failed = || {
            let mut waiting = Box::pin(sync_state.wait_until_failed());
            let mut context = std::task::Context::from_waker(std::task::Waker::noop());
            waiting.as_mut().poll(&mut context).is_ready()
        };
        for part in [CachePart::Pools, CachePart::Waiting, CachePart::Nodes] {
            sync_state.record_listed(part);
        }
        sync_state.record_failed(CachePart::Namespaces, &refused(403));
        assert!(!has_failed(), "granted pods have not answered yet");
        sync_state.record_failed(CachePart::Labelled, &refused(500));
        assert!(has_failed());
        let what: Vec<&str> = sync_state
            .failures()
            .iter()
            .map(|failure| failure.what)
            .collect();
        assert_eq!(what, ["granted pods", "namespaces"]);
        sync_state.record_listed(CachePart::Namespaces);
        assert!(!has_failed(), "the missing permission has been granted");
        let left = format!(
            "granted pods have not been listed yet: {}",
            "pods is forbidden"
        );
        assert_eq!(sync_state.not_synced(), [left]);
    }
}
