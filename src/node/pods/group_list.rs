//! The container group list: what LISTs show, and which pod workers must receive it.
//!
//! In: one LIST. Out: to each pod worker, what the LIST shows of its group, if that is new to the worker.

use std::collections::{HashMap, HashSet};
use std::net::IpAddr;
use std::sync::Arc;

use jiff::Timestamp;
use tokio::sync::watch;

use super::PodsContext;
use crate::aci::names::GroupName;
use crate::aci::response::{ContainerGroup as View, Provisioning};
use crate::node::pod_plan::GroupPresence;

/// The result of one LIST.
#[derive(Debug)]
pub(super) struct GroupListing {
    /// When the LIST was sent: it shows no later change.
    pub requested_at: Timestamp,
    /// The node's groups by name.
    pub groups: HashMap<String, ListedGroup>,
    /// The names of all other groups in the answer.
    pub foreign: HashSet<String>,
}

/// What a LIST shows of one group.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct ListedGroup {
    pub provisioning: Option<Provisioning>,
    pub ip: Option<IpAddr>,
}

/// What the last LIST showed of one group.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) enum ListedState {
    /// There was no LIST yet.
    #[default]
    NotListed,
    /// There is still no LIST that answers for all groups: Azure rejects it, or an element in it cannot be
    /// decoded. Each worker asks for its own group.
    Unlisted,
    /// The group does not exist.
    Absent {
        /// When the LIST was sent.
        requested_at: Timestamp,
    },
    /// A group of this name has another owner.
    Foreign,
    /// The group exists.
    Exists {
        /// When the LIST was sent.
        requested_at: Timestamp,
        group: ListedGroup,
    },
}

impl ListedGroup {
    pub fn from_group(group: &View) -> Self {
        Self {
            provisioning: group.provisioning().cloned(),
            ip: group.ip(),
        }
    }

    /// Whether all containers of a group of a pod with `restartPolicy: Always` run, as far as a LIST can show:
    /// Azure reports that provisioning has succeeded once they were started.
    pub fn has_started(&self) -> bool {
        self.provisioning == Some(Provisioning::Succeeded)
    }

    /// Whether this LIST, sent at `sent_at`, shows more than what is known of a group that exists.
    ///
    /// A start that succeeded is always new, even if a GET read the group after the LIST was sent: a group never
    /// returns to the state before its start, and an earlier GET may be processed after this. Each state of a LIST
    /// is delivered only once.
    pub fn is_newer(&self, sent_at: Timestamp, group: &GroupPresence) -> bool {
        let GroupPresence::Exists {
            since,
            last_read,
            has_run,
        } = group
        else {
            return false;
        };
        let is_start = !has_run && self.has_started();
        last_read.filter(|_| !is_start).unwrap_or(*since) < sent_at
    }
}

impl GroupListing {
    /// The result of a LIST sent at `requested_at`: `groups` of the node, and all other groups in the answer.
    pub fn new(requested_at: Timestamp, groups: &[View], foreign: Vec<View>) -> Self {
        let groups = groups
            .iter()
            .filter_map(|view| Some((view.name.clone()?, ListedGroup::from_group(view))));
        Self {
            requested_at,
            groups: groups.collect(),
            foreign: foreign.into_iter().filter_map(|view| view.name).collect(),
        }
    }

    fn state_of(&self, name: &str) -> ListedState {
        let requested_at = self.requested_at;
        match self.groups.get(name) {
            Some(group) => ListedState::Exists {
                requested_at,
                group: group.clone(),
            },
            None if self.foreign.contains(name) => ListedState::Foreign,
            None => ListedState::Absent { requested_at },
        }
    }
}

impl ListedState {
    /// Whether a worker must receive this after `before`. Every LIST without the group counts: only one that was sent
    /// after the PUT shows that the group vanished.
    fn is_change_from(&self, before: &Self) -> bool {
        match (before, self) {
            (Self::Exists { group: before, .. }, Self::Exists { group: now, .. }) => before != now,
            _ => true,
        }
    }
}

/// The groups that workers found created or gone since the last LIST was sent, each with the time. The LIST shows all
/// earlier changes.
#[derive(Debug, Default)]
pub(super) struct GroupChanges(HashMap<String, (Timestamp, bool)>);

impl GroupChanges {
    fn record(&mut self, name: &str, exists: bool, now: Timestamp) {
        self.0.insert(name.to_owned(), (now, exists));
    }

    fn forget_before(&mut self, requested_at: Timestamp) {
        self.0
            .retain(|_, (changed_at, _)| *changed_at >= requested_at);
    }

    /// Whether a group of this name exists, by the last LIST and later changes.
    pub fn exists(&self, name: &str, listing: Option<&GroupListing>) -> bool {
        let listed = || listing.is_some_and(|listing| listing.groups.contains_key(name));
        let changed = self.0.get(name).map(|(_, exists_now)| *exists_now);
        changed.unwrap_or_else(listed)
    }

    /// How many groups exist, by the last LIST and later changes.
    fn count(&self, listing: &GroupListing) -> usize {
        let listed = listing.groups.keys();
        let unchanged = listed.filter(|name| !self.0.contains_key(*name)).count();
        unchanged + self.0.values().filter(|(_, exists)| *exists).count()
    }
}

impl PodsContext {
    /// How many groups the node has, as far as is known; `None` before the first LIST.
    pub fn group_count(&self) -> Option<usize> {
        let last_listing = self.last_listing.borrow();
        let listing = last_listing.as_ref()?;
        Some(self.changes_since_list.lock().count(listing))
    }

    /// Records that a worker found its group to exist, or not to exist.
    pub(super) fn record_group_change(&self, name: &GroupName, exists: bool) {
        self.changes_since_list
            .lock()
            .record(name.as_str(), exists, Timestamp::now());
    }

    /// Sends each worker what a LIST showed of its group.
    pub(super) fn apply_listing(&self, listing: GroupListing) {
        let listing = Arc::new(listing);
        self.changes_since_list
            .lock()
            .forget_before(listing.requested_at);
        let workers = self.workers();
        self.last_listing.send_replace(Some(listing.clone()));
        for (name, listed) in workers.values() {
            let new = listing.state_of(name.as_str());
            listed.send_if_modified(|state| {
                let is_change = new.is_change_from(state);
                *state = new;
                is_change
            });
        }
    }

    /// Changes the state of each worker that waits for the first LIST to [`ListedState::Unlisted`], so that the
    /// worker reads its own group.
    pub(super) fn mark_unlisted(&self) {
        for (_, listed) in self.workers().values() {
            listed.send_if_modified(|state| {
                let is_change = *state == ListedState::NotListed;
                if is_change {
                    *state = ListedState::Unlisted;
                }
                is_change
            });
        }
    }

    /// Subscribes the worker of the pod with this UID to what LISTs show of its group.
    pub(super) fn watch_group(&self, uid: &str, name: &GroupName) -> watch::Receiver<ListedState> {
        let mut workers = self.workers();
        let listing = self.last_listing.borrow().clone();
        let state = listing.map_or(ListedState::NotListed, |listing| {
            listing.state_of(name.as_str())
        });
        let (sender, receiver) = watch::channel(state);
        workers.insert(uid.to_owned(), (name.clone(), sender));
        receiver
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn groups_created_and_deleted_since_the_last_list_are_counted() {
        let at = |second| Timestamp::from_second(second).expect("a time");
        let listing = |sent_at, names: &[&str]| GroupListing {
            requested_at: at(sent_at),
            groups: names
                .iter()
                .map(|name| ((*name).to_owned(), ListedGroup::default()))
                .collect(),
            foreign: HashSet::new(),
        };
        let mut changes = GroupChanges::default();
        let first = listing(10, &["a", "b"]);
        assert_eq!(changes.count(&first), 2);
        changes.record("b", false, at(11));
        changes.record("c", true, at(12));
        let exists = |name| changes.exists(name, Some(&first));
        assert_eq!(["a", "b", "c", "x"].map(exists), [true, false, true, false]);
        changes.record("d", true, at(12));
        changes.record("a", true, at(13));
        assert_eq!(changes.count(&first), 3);
        // Sent at 12: the changes from 12 on stay, because the LIST may not show them.
        let second = listing(12, &["a", "c"]);
        changes.forget_before(second.requested_at);
        assert_eq!(changes.count(&second), 3);
        changes.forget_before(at(20));
        assert_eq!(changes.count(&listing(20, &["e"])), 1);
    }

    #[test]
    fn a_list_sent_before_the_last_read_counts_only_if_it_is_the_first_to_show_the_start() {
        let at = |second| Timestamp::from_second(second).expect("a time");
        let listed = |provisioning| ListedGroup {
            provisioning: Some(provisioning),
            ip: None,
        };
        let group = |last_read: Option<i64>, has_run| GroupPresence::Exists {
            since: at(10),
            last_read: last_read.map(at),
            has_run,
        };
        let is_newer = |provisioning, sent_at, group: &GroupPresence| {
            listed(provisioning).is_newer(at(sent_at), group)
        };
        let (creating, succeeded) = (Provisioning::Creating, Provisioning::Succeeded);
        // After the PUT, and before or after the last read.
        assert!(!is_newer(succeeded.clone(), 9, &group(None, false)));
        assert!(is_newer(creating.clone(), 11, &group(None, false)));
        assert!(is_newer(creating.clone(), 13, &group(Some(12), false)));
        assert!(!is_newer(creating, 11, &group(Some(12), false)));
        assert!(is_newer(succeeded.clone(), 11, &group(Some(12), false)));
        assert!(!is_newer(succeeded.clone(), 9, &group(Some(12), false)));
        assert!(!is_newer(succeeded.clone(), 11, &group(Some(12), true)));
        assert!(!is_newer(succeeded, 11, &GroupPresence::Unknown));
    }
}
