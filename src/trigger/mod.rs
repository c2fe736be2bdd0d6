//! Whether there is a peak: what Prometheus, a schedule or an alert says, and what follows. Pure.
//!
//! In: answers, payloads and the time, from `controller::triggers`, which does the calls. Out: a
//! [`Standing`] for each trigger, which says whether it is active, and how many replicas it wishes. No
//! clock and no client: `now` is an argument.
//!
//! ```text
//! body ─▶ answer ─▶ Reading or why not ─▶ decide ─┐
//! spec ─▶ cron, window ───────────────────────────┼─▶ Standing ─▶ hold, scale, status
//! body ─▶ alert ─▶ Firing ────────────────────────┘
//! ```
//!
//! | file | decides |
//! | --- | --- |
//! | [`answer`] | what Prometheus' answer says, and why it says nothing |
//! | [`decide`] | what a trigger is, while its value is known and while it is not |
//! | [`cron`], [`window`] | when a window is open |
//! | [`alert`] | which alerts fire |
//!
//! Several triggers together (three values in all): a pool's hold is short while any is active. One
//! whose value is not known counts as what it was, for as long as `onError.keepFor` says, then as
//! `onError.then`; before it was ever known it counts as inactive.

pub mod alert;
pub mod answer;
pub mod cron;
pub mod decide;
pub mod window;

use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

use crate::api::{FiringAlert, TriggerStatus};

/// What a trigger says of replicas.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub enum Wish {
    /// None: it is not active.
    #[default]
    Quiet,
    /// It is active, and its spec says nothing of replicas.
    Unsaid,
    /// Not fewer than there are: nobody knows its value.
    Keep,
    /// So many.
    Replicas(i32),
    /// So many that each bears at most `threshold` of `value`.
    PerReplica {
        /// The query's value.
        value: f64,
        /// What one replica bears.
        threshold: f64,
    },
}

/// Why a query has no value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum QueryError {
    /// Prometheus gave no usable answer; the next query may get one.
    Unknown(String),
    /// Prometheus is not asked until the object that the message names is edited.
    Mistake(String),
}

impl From<String> for QueryError {
    fn from(why: String) -> Self {
        Self::Unknown(why)
    }
}

/// What a trigger is at a time.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Standing {
    /// Whether it is active.
    pub active: bool,
    /// What it wishes.
    pub wish: Wish,
    /// The last value of its query.
    pub value: Option<f64>,
    /// Since when it is active, or is not.
    pub since: Option<Timestamp>,
    /// Since when nobody knows its value.
    pub unknown_since: Option<Timestamp>,
    /// The alerts that fire.
    pub alerts: Vec<FiringAlert>,
    /// What there is to know.
    pub message: String,
    /// What must be edited before its value can be known.
    pub mistake: Option<String>,
}

impl Standing {
    /// What a status has kept of it: how a new leader begins.
    pub fn restored(status: &TriggerStatus) -> Self {
        Self {
            active: status.active,
            wish: Wish::Keep,
            value: status.value.as_ref().and_then(|value| value.parse().ok()),
            since: status.since.as_ref().map(|time| time.0),
            unknown_since: status.unknown_since.as_ref().map(|time| time.0),
            alerts: status.alerts.clone(),
            message: status.message.clone(),
            mistake: None,
        }
    }

    /// The same as a status has it.
    pub fn status(&self, name: &str) -> TriggerStatus {
        TriggerStatus {
            name: name.to_owned(),
            active: self.active,
            value: self.value.map(|value| value.to_string()),
            since: self.since.map(whole),
            unknown_since: self.unknown_since.map(whole),
            alerts: self.alerts.clone(),
            message: self.mistake.clone().unwrap_or_else(|| self.message.clone()),
        }
    }

    /// A trigger whose spec is wrong: never active. It takes no replicas away either, as an autoscaler does
    /// not on a metric that it cannot read.
    pub fn mistaken(why: String, before: &Self, now: Timestamp) -> Self {
        Self {
            mistake: Some(why),
            wish: Wish::Keep,
            ..Self::default()
        }
        .after(before, now)
    }

    /// The same, while nothing can be heard of it, since then.
    #[must_use]
    pub fn unheard(self, why: String, since: Timestamp) -> Self {
        Self {
            unknown_since: Some(since),
            message: why,
            ..self
        }
    }

    /// Whether its value is known.
    pub fn is_known(&self) -> bool {
        self.unknown_since.is_none() && self.mistake.is_none()
    }

    /// The same, with the time since when it is so.
    #[must_use]
    fn after(mut self, before: &Self, now: Timestamp) -> Self {
        let same = self.active == before.active;
        self.since = before.since.filter(|_| same).or(Some(now));
        self
    }
}

/// A time as statuses have it: they know no parts of a second, and a status must be equal to itself
/// when it is read again.
fn whole(time: Timestamp) -> Time {
    Time(Timestamp::from_second(time.as_second()).unwrap_or(time))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_status_keeps_is_what_a_new_leader_begins_with() {
        let at = |second| Timestamp::from_second(second).expect("in range");
        let before = Standing {
            active: true,
            wish: Wish::Keep,
            value: Some(1520.5),
            since: Some(at(5)),
            unknown_since: Some(at(9)),
            alerts: vec![FiringAlert {
                fingerprint: "f".to_owned(),
                expires: Time(at(90)),
            }],
            message: "no answer".to_owned(),
            mistake: None,
        };
        let status = before.status("requests");
        assert_eq!(status.value.as_deref(), Some("1520.5"));
        assert_eq!(Standing::restored(&status), before);
    }
}
