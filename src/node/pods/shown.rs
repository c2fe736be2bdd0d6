//! What LISTs show of the groups, and whom it concerns.
//!
//! In: one LIST. Out: to every keeper, what it shows of its own group, if that is news.

use std::collections::{HashMap, HashSet};
use std::net::IpAddr;
use std::sync::Arc;

use jiff::Timestamp;
use tokio::sync::watch;

use super::{Context, lock};
use crate::aci::names::GroupName;
use crate::aci::view::{Group as View, Provisioning};
use crate::node::plan::Group;

/// What a LIST showed.
#[derive(Debug)]
pub(super) struct Listing {
    /// When it was asked for: it knows of nothing that came later.
    pub asked: Timestamp,
    /// The node's groups by name.
    pub groups: HashMap<String, Brief>,
    /// The names of everybody else's.
    pub foreign: HashSet<String>,
}

/// What a LIST says of a group.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Brief {
    pub provisioning: Option<Provisioning>,
    pub ip: Option<IpAddr>,
}

/// What the last LIST showed of one group.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) enum Shown {
    /// There was no LIST yet.
    #[default]
    Nothing,
    /// That there is none.
    Absent {
        /// When the LIST was asked for.
        asked: Timestamp,
    },
    /// That somebody else has a group of this name.
    Foreign,
    /// The group.
    There {
        /// When the LIST was asked for.
        asked: Timestamp,
        brief: Brief,
    },
}

impl Brief {
    pub fn of(group: &View) -> Self {
        Self {
            provisioning: group.provisioning().cloned(),
            ip: group.ip(),
        }
    }

    /// Whether the containers of a group of a service run, as far as a LIST can say: provisioning has
    /// succeeded once they were started.
    pub fn has_started(&self) -> bool {
        self.provisioning == Some(Provisioning::Succeeded)
    }

    /// Whether this tells more than what is known of a group that is there, `asked` for at that time.
    ///
    /// That a start has succeeded does, also if the group was read meanwhile: no start is ever behind
    /// that again, and a GET that was answered first may be remembered later. A LIST's news come once.
    pub fn is_newer(&self, asked: Timestamp, group: &Group) -> bool {
        let Group::There { since, read, ran } = group else {
            return false;
        };
        let is_start = !ran && self.has_started();
        read.filter(|_| !is_start).unwrap_or(*since) < asked
    }
}

impl Listing {
    fn of(&self, name: &str) -> Shown {
        let asked = self.asked;
        match self.groups.get(name) {
            Some(brief) => Shown::There {
                asked,
                brief: brief.clone(),
            },
            None if self.foreign.contains(name) => Shown::Foreign,
            None => Shown::Absent { asked },
        }
    }
}

impl Shown {
    /// Whether a keeper has to hear of this after `before`. Another LIST without the group is news:
    /// only one that was asked for after the PUT means that it vanished.
    fn is_news(&self, before: &Self) -> bool {
        match (before, self) {
            (Self::There { brief: before, .. }, Self::There { brief: now, .. }) => before != now,
            _ => true,
        }
    }
}

/// Which groups have come and gone, as keepers learned, and when: since the last LIST was asked for, which
/// knows of all before.
#[derive(Debug, Default)]
pub(super) struct Since(HashMap<String, (Timestamp, bool)>);

impl Since {
    fn learn(&mut self, name: &str, is_there: bool, now: Timestamp) {
        self.0.insert(name.to_owned(), (now, is_there));
    }

    fn forget(&mut self, asked: Timestamp) {
        self.0.retain(|_, (learned, _)| *learned >= asked);
    }

    /// Whether there is a group of this name, by a LIST and by what was learned since.
    pub fn is_there(&self, name: &str, listing: Option<&Listing>) -> bool {
        let listed = || listing.is_some_and(|listing| listing.groups.contains_key(name));
        let learned = self.0.get(name).map(|(_, is_there)| *is_there);
        learned.unwrap_or_else(listed)
    }

    /// How many there are, by a LIST and by what was learned since.
    fn count(&self, listing: &Listing) -> usize {
        let listed = listing.groups.keys();
        let unchanged = listed.filter(|name| !self.0.contains_key(*name)).count();
        unchanged + self.0.values().filter(|(_, is_there)| *is_there).count()
    }
}

impl Context {
    /// How many groups the node has, as far as anybody knows; nothing before the first LIST.
    pub fn groups(&self) -> Option<usize> {
        let listed = self.listed.borrow();
        let listing = listed.as_ref()?;
        Some(lock(&self.since).count(listing))
    }

    /// A keeper has learned that its group is there, or is not.
    pub(super) fn learn(&self, name: &GroupName, is_there: bool) {
        lock(&self.since).learn(name.as_str(), is_there, Timestamp::now());
    }

    /// Tells the keepers what a LIST showed.
    pub(super) fn show(&self, listing: Listing) {
        let listing = Arc::new(listing);
        lock(&self.since).forget(listing.asked);
        let kept = self.kept();
        self.listed.send_replace(Some(listing.clone()));
        for (name, shown) in kept.values() {
            let now = listing.of(name.as_str());
            shown.send_if_modified(|shown| {
                let is_news = now.is_news(shown);
                *shown = now;
                is_news
            });
        }
    }

    /// Follows what LISTs show of a group from now on, for the keeper of the pod with this UID.
    pub(super) fn follow(&self, uid: &str, name: &GroupName) -> watch::Receiver<Shown> {
        let mut kept = self.kept();
        let listing = self.listed.borrow().clone();
        let shown = listing.map_or(Shown::Nothing, |listing| listing.of(name.as_str()));
        let (sender, receiver) = watch::channel(shown);
        kept.insert(uid.to_owned(), (name.clone(), sender));
        receiver
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn groups_that_have_come_and_gone_since_the_last_list_are_counted() {
        let at = |second| Timestamp::from_second(second).expect("a time");
        let listing = |asked, names: &[&str]| Listing {
            asked: at(asked),
            groups: names
                .iter()
                .map(|name| ((*name).to_owned(), Brief::default()))
                .collect(),
            foreign: HashSet::new(),
        };
        let mut since = Since::default();
        let first = listing(10, &["a", "b"]);
        assert_eq!(since.count(&first), 2);
        since.learn("b", false, at(11));
        since.learn("c", true, at(12));
        let there = |name| since.is_there(name, Some(&first));
        assert_eq!(["a", "b", "c", "x"].map(there), [true, false, true, false]);
        since.learn("d", true, at(12));
        since.learn("a", true, at(13));
        assert_eq!(since.count(&first), 3);
        // Asked for before the last two, and before they were there.
        let second = listing(12, &["a", "c"]);
        since.forget(second.asked);
        assert_eq!(since.count(&second), 3);
        since.forget(at(20));
        assert_eq!(since.count(&listing(20, &["e"])), 1);
    }

    #[test]
    fn a_list_that_was_asked_before_the_last_read_tells_nothing_but_that_the_start_has_succeeded() {
        let at = |second| Timestamp::from_second(second).expect("a time");
        let brief = |provisioning| Brief {
            provisioning: Some(provisioning),
            ip: None,
        };
        let group = |read: Option<i64>, ran| Group::There {
            since: at(10),
            read: read.map(at),
            ran,
        };
        let tells = |word, asked, group: &Group| brief(word).is_newer(at(asked), group);
        let (creating, succeeded) = (Provisioning::Creating, Provisioning::Succeeded);
        // After the PUT, and before or after the last read.
        assert!(!tells(succeeded.clone(), 9, &group(None, false)));
        assert!(tells(creating.clone(), 11, &group(None, false)));
        assert!(tells(creating.clone(), 13, &group(Some(12), false)));
        assert!(!tells(creating, 11, &group(Some(12), false)));
        assert!(tells(succeeded.clone(), 11, &group(Some(12), false)));
        assert!(!tells(succeeded.clone(), 9, &group(Some(12), false)));
        assert!(!tells(succeeded.clone(), 11, &group(Some(12), true)));
        assert!(!tells(succeeded, 11, &Group::Unknown));
    }
}
