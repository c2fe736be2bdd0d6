//! Which parts of the stores have been listed, and why others have not, in words for people.
//!
//! In: the ends of lists, and the errors of watches. Out: what is missing, for `/readyz`, and whether waiting
//! can help, for a command that a person waits for. An error's words are the API server's own, which name
//! the right that is missing.

use std::collections::{HashMap, HashSet};

use kube::runtime::watcher;
use tokio::sync::watch;

use crate::telemetry::whole;

/// The parts of a view.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum Part {
    Pools,
    Waiting,
    Labelled,
    Nodes,
    Namespaces,
}

const PARTS: [(Part, &str); 5] = [
    (Part::Pools, "BurstPools"),
    (Part::Waiting, "pods that wait"),
    (Part::Labelled, "granted pods"),
    (Part::Nodes, "virtual nodes"),
    (Part::Namespaces, "namespaces"),
];

impl Part {
    /// As messages name it.
    pub(super) fn name(self) -> &'static str {
        let found = PARTS.iter().find(|(part, _)| *part == self);
        found.map_or("", |(_, name)| name)
    }
}

/// What a 404 of a list means.
const NOT_SERVED: &str = "the API server does not serve this resource; is it installed?";

/// Which parts have been listed, and why others have not.
#[derive(Debug, Default)]
pub struct Listing {
    listed: watch::Sender<HashSet<Part>>,
    failed: watch::Sender<HashMap<Part, Failure>>,
}

impl Listing {
    /// Takes in that a list of this part has come to its end.
    pub(super) fn listed(&self, part: Part) {
        self.listed.send_modify(|parts| {
            parts.insert(part);
        });
    }

    /// Whether this part has been listed to the end at least once.
    pub(super) fn is_listed(&self, part: Part) -> bool {
        self.listed.borrow().contains(&part)
    }

    /// Takes in that a part could not be listed or watched.
    pub(super) fn failed(&self, part: Part, error: &watcher::Error) {
        let failure = Failure::of(part.name(), error);
        self.failed.send_modify(|failed| {
            failed.insert(part, failure);
        });
    }

    /// Why parts that have not been listed yet could not be when that was last tried.
    pub fn failures(&self) -> Vec<Failure> {
        let (listed, failed) = (self.listed.borrow(), self.failed.borrow());
        let open = PARTS.iter().filter(|(part, _)| !listed.contains(part));
        open.filter_map(|(part, _)| failed.get(part).cloned())
            .collect()
    }

    /// What has not been listed yet, and why where that is known: a sentence for each.
    pub fn missing(&self) -> Vec<String> {
        let (listed, failed) = (self.listed.borrow(), self.failed.borrow());
        let missing = PARTS.iter().filter(|(part, _)| !listed.contains(part));
        let words = missing.map(|(part, name)| match failed.get(part) {
            Some(failure) => format!("{name} have not been listed yet: {}", failure.why),
            None => format!("{name} have not been listed yet"),
        });
        words.collect()
    }

    /// Waits until everything has been listed once.
    pub async fn wait_until_ready(&self) {
        let mut listed = self.listed.subscribe();
        // The sender is ours: it is not dropped.
        let _ = listed.wait_for(|listed| listed.len() == PARTS.len()).await;
    }

    /// Waits until a part is refused for good, and every other has been listed or has failed, too.
    pub async fn wait_until_hopeless(&self) {
        let (mut listed, mut failed) = (self.listed.subscribe(), self.failed.subscribe());
        loop {
            let failures = self.failures();
            let is_final = failures.iter().any(|one| one.trouble != Trouble::Passing);
            if is_final && failures.len() == self.missing().len() {
                return;
            }
            // The senders are ours: they are not dropped.
            tokio::select! {
                _ = listed.changed() => {}
                _ = failed.changed() => {}
            }
        }
    }
}

/// Why a part could not be listed or watched.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failure {
    /// What could not be.
    pub what: &'static str,
    /// Whether trying again can help.
    pub trouble: Trouble,
    /// The API server's words, or the client's.
    pub why: String,
}

/// What kind of failure it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Trouble {
    /// The user lacks the right (403).
    Forbidden,
    /// The user or the resource is unknown to the API server (401, 404).
    Unknown,
    /// Trying again may help.
    Passing,
}

impl Failure {
    fn of(what: &'static str, error: &watcher::Error) -> Self {
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
            trouble: match status.map(|status| status.code) {
                Some(403) => Trouble::Forbidden,
                Some(401 | 404) => Trouble::Unknown,
                _ => Trouble::Passing,
            },
            why: match status {
                // The server's own words are no more than "404 page not found".
                Some(status) if status.code == 404 => NOT_SERVED.to_owned(),
                Some(status) => status.message.clone(),
                None => whole(error),
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
    fn a_missing_right_and_a_missing_resource_stay_and_a_busy_server_passes() {
        for (code, trouble) in [
            (403, Trouble::Forbidden),
            (401, Trouble::Unknown),
            (404, Trouble::Unknown),
            (429, Trouble::Passing),
            (500, Trouble::Passing),
        ] {
            let why = if code == 404 {
                NOT_SERVED
            } else {
                "pods is forbidden"
            };
            let expected = Failure {
                what: "namespaces",
                trouble,
                why: why.to_owned(),
            };
            assert_eq!(
                Failure::of("namespaces", &refused(code)),
                expected,
                "{code}"
            );
        }
        let failure = Failure::of("namespaces", &watcher::Error::NoResourceVersion);
        assert_eq!(failure.trouble, Trouble::Passing);
        assert!(failure.why.contains("resourceVersion"), "{}", failure.why);
    }

    #[tokio::test]
    async fn it_is_hopeless_only_once_every_part_has_answered_and_one_is_refused() {
        let listing = Listing::default();
        let is_hopeless = || {
            let mut waiting = Box::pin(listing.wait_until_hopeless());
            let mut context = std::task::Context::from_waker(std::task::Waker::noop());
            waiting.as_mut().poll(&mut context).is_ready()
        };
        for part in [Part::Pools, Part::Waiting, Part::Nodes] {
            listing.listed(part);
        }
        listing.failed(Part::Namespaces, &refused(403));
        assert!(!is_hopeless(), "granted pods have not answered yet");
        listing.failed(Part::Labelled, &refused(500));
        assert!(is_hopeless());
        let what: Vec<&str> = listing.failures().iter().map(|one| one.what).collect();
        assert_eq!(what, ["granted pods", "namespaces"]);
        listing.listed(Part::Namespaces);
        assert!(!is_hopeless(), "what was refused for good has been given");
        let left = format!(
            "granted pods have not been listed yet: {}",
            "pods is forbidden"
        );
        assert_eq!(listing.missing(), [left]);
    }
}
