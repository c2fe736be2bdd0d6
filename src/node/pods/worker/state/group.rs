//! What Azure's answers change in what a pod worker knows of its container group.
//!
//! In: an answer, and when its request was sent. Out: the new state, and what the worker does because of it.

use std::time::Duration;

use jiff::Timestamp;

use super::{AttemptKind, GroupProblem, WorkerState};
use crate::aci::client::GroupDeletion;
use crate::aci::error::Error;
use crate::aci::failure::{FailureClass, FailureVerdict};
use crate::aci::response::ContainerGroup as View;
use crate::aci::translate::Group as Body;
use crate::node::absence_proof::AbsenceEvidence;
use crate::node::pod_plan::{self, GroupPresence, GroupReading, PodAction};
use crate::node::pods::group_list::ListedGroup;

/// How long a group with the tags of another owner is not read again.
const FOREIGN_RETRY_INTERVAL: Duration = Duration::from_secs(60);

/// What a GET changed in what is known of the group.
#[derive(Debug)]
pub(in super::super) struct GroupReadOutcome {
    /// Whether nothing was known of the group before.
    pub is_first: bool,
    /// If this is the first GET after the start of all containers: since when the group exists, and when the last
    /// of the containers started.
    pub started: Option<(Timestamp, Timestamp)>,
    /// Why Azure could not start the group.
    pub start_failure: Option<FailureVerdict>,
}

/// What a GET, DELETE or LIST without the group proves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in super::super) enum AbsenceOutcome {
    /// The group may exist.
    Unproven,
    /// The group is gone, as it should be, or it was never created.
    Gone,
    /// The group is gone although the pod should run.
    Vanished,
}

/// The container group.
impl WorkerState {
    /// The body of the PUT that got no answer, which is sent again: it may have created the group, and a new body
    /// contains a new token, so sending that would start the group a second time.
    pub fn take_unanswered_put(&mut self) -> Option<Box<Body>> {
        self.unanswered_put.take()
    }

    /// Records that Azure accepted a PUT sent at `sent_at`, and the group in its answer.
    pub fn put_accepted(&mut self, view: Option<View>, sent_at: Timestamp) {
        self.record_success(AttemptKind::Create);
        self.problem = GroupProblem::None;
        self.pod_state.put_accepted(sent_at);
        self.group_view = view.map(View::without_tags);
    }

    /// Records that a PUT of `group`, sent at `sent_at`, failed.
    pub fn put_failed(
        &mut self,
        error: &Error,
        verdict: &FailureVerdict,
        (sent_at, group): (Timestamp, Box<Body>),
    ) {
        let may_exist = match error {
            Error::NoAnswer { .. } | Error::Unreadable { .. } => true,
            // A 5xx or 408 from a gateway says nothing about the service behind it.
            Error::Refused { failure, .. } => failure.status >= 500 || failure.status == 408,
            Error::Waiting { .. } | Error::Credential { .. } => false,
        };
        if may_exist {
            self.pod_state.put_unanswered(sent_at);
        } else if verdict.class == FailureClass::Transitioning {
            self.pod_state.put_too_early(sent_at);
        } else {
            self.pod_state.put_rejected();
        }
        self.unanswered_put = self.pod_state.has_unanswered_put.then_some(group);
    }

    /// Records what a GET sent at `sent_at` shows of the group.
    pub fn group_read(
        &mut self,
        view: View,
        sent_at: Timestamp,
        now: Timestamp,
    ) -> GroupReadOutcome {
        let started_at = started_at(&view);
        let previous = self.pod_state.group.clone();
        let was_being_deleted = matches!(previous, GroupPresence::Deleting { .. });
        let reading = GroupReading {
            sent_at,
            is_deleting: view.is_being_deleted(),
            has_started: started_at.is_some(),
        };
        self.unanswered_put = None;
        self.pod_state.group_seen(reading, now);
        self.record_success(AttemptKind::Read);
        // While the group is being deleted so that another can replace it, the reason and the back-off for the next
        // create stay.
        if !was_being_deleted {
            self.record_success(AttemptKind::Create);
            self.problem = GroupProblem::None;
        }
        if started_at.is_some() {
            self.failures.reset(AttemptKind::Start);
        }
        // Between two runs of a container the group looks as if it had ended.
        let runs_again = pod_plan::never_restarts(&self.pod) && view.was_restarted();
        self.pod_state.is_alive = runs_again || !view.is_terminal();
        let start_failure = FailureVerdict::from_group(&view)
            .filter(|_| started_at.is_none() && !was_being_deleted);
        // A pod that waits for a replacement group shows the reason until it has one.
        let is_replaced = was_being_deleted && !self.is_leaving();
        if !is_replaced || self.problem == GroupProblem::None {
            self.group_view = Some(view.without_tags());
        }
        GroupReadOutcome {
            is_first: previous == GroupPresence::Unknown,
            started: new_start(&previous, started_at.filter(|_| !reading.is_deleting)),
            start_failure,
        }
    }

    /// Records that a GET was answered, whatever it shows.
    pub fn read_answered(&mut self) {
        self.failures.reset(AttemptKind::Read);
    }

    /// Records that the group must be deleted and created again: it did not start, or it lacks a changed image.
    pub fn replace_group(&mut self) {
        self.pod_state.has_failed_to_start = true;
    }

    /// Records that Azure answered a DELETE sent at `sent_at`.
    pub fn delete_answered(&mut self, deletion: GroupDeletion, sent_at: Timestamp, now: Timestamp) {
        self.record_success(AttemptKind::Delete);
        self.pod_state.is_stale = false;
        if self.pod_state.has_failed_to_start {
            // The worker creates a replacement when its back-off is over; until then the pod shows the reason.
            (self.pod_state.has_failed_to_start, self.group_view) = (false, None);
        } else {
            self.problem = GroupProblem::None;
        }
        match deletion {
            GroupDeletion::NotFound => {}
            GroupDeletion::Deleted | GroupDeletion::Started => {
                self.pod_state.delete_accepted(sent_at, now);
            }
        }
    }

    /// Records that a LIST sent at `sent_at` shows the group, with its provisioning state and address. Until the
    /// containers have run, the pod's status shows them, and a GET follows once provisioning has succeeded; after
    /// that, any difference from the last GET makes the group stale, so that a GET follows.
    pub fn group_listed(&mut self, listed: &ListedGroup, sent_at: Timestamp, now: Timestamp) {
        let group = &self.pod_state.group;
        let has_run = matches!(group, GroupPresence::Exists { has_run: true, .. });
        let is_newer = listed.is_newer(sent_at, group);
        self.pod_state.group_listed(sent_at, now);
        let last_seen = self.group_view.as_ref().map(ListedGroup::from_group);
        if !is_newer || last_seen.as_ref() == Some(listed) {
            return;
        }
        if has_run {
            self.pod_state.is_stale |= last_seen.is_some();
            return;
        }
        self.pod_state.is_stale |= listed.has_started();
        let view = self.group_view.get_or_insert_default();
        view.apply_listed(listed.provisioning.clone(), listed.ip);
    }

    /// Records that a LIST sent at `sent_at` does not contain the group.
    pub fn group_not_listed(&mut self, sent_at: Timestamp) -> AbsenceOutcome {
        let previous = self.pod_state.group.clone();
        let pod = (!self.is_deleted).then_some(&self.pod);
        let is_gone = self.pod_state.group_not_listed(pod, sent_at);
        self.absence_outcome(is_gone, &previous)
    }

    /// Records that a GET or a DELETE sent at `sent_at` found no group, although the LIST sent at
    /// `listed` shows it.
    pub fn group_not_found(
        &mut self,
        listed: Option<Timestamp>,
        sent_at: Timestamp,
    ) -> AbsenceOutcome {
        let previous = self.pod_state.group.clone();
        let pod = (!self.is_deleted).then_some(&self.pod);
        let is_gone = self.pod_state.group_not_found(pod, listed, sent_at);
        self.absence_outcome(is_gone, &previous)
    }

    fn absence_outcome(&mut self, is_gone: bool, previous: &GroupPresence) -> AbsenceOutcome {
        if !is_gone {
            return AbsenceOutcome::Unproven;
        }
        self.unanswered_put = None;
        if !matches!(previous, GroupPresence::Exists { .. }) || self.is_leaving() {
            return AbsenceOutcome::Gone;
        }
        if !self.pod_state.has_failed_to_start {
            self.problem = GroupProblem::None;
        }
        (self.pod_state.has_failed_to_start, self.group_view) = (false, None);
        AbsenceOutcome::Vanished
    }
}

/// A group with the tags of another owner.
impl WorkerState {
    /// Records that the tags of the pod's group name another owner; `message` says so, with the remedy.
    pub fn group_foreign(&mut self, message: &str, now: Timestamp) {
        if self.pod_state.group == GroupPresence::Unknown {
            self.pod_state.group = GroupPresence::Absent { existed: false };
        }
        self.is_foreign = true;
        self.pause_action(PodAction::Refresh, FOREIGN_RETRY_INTERVAL, now);
        let verdict = FailureVerdict::new(FailureClass::InvalidRequest, None, message.to_owned());
        self.record_failure(AttemptKind::Create, &verdict, now);
    }

    /// Records that the group has the right tags again, or is gone.
    pub fn group_owned(&mut self) {
        if self.was_never_owned() {
            self.pod_state.group = GroupPresence::Unknown;
            self.pod_state.absence = AbsenceEvidence::default();
        }
        if std::mem::take(&mut self.is_foreign) && !self.is_unreadable {
            self.allow_create();
        }
    }

    /// Whether the group has had the tags of another owner for as long as this process knows it: the process has
    /// neither created it nor read it with the right tags.
    pub fn was_never_owned(&self) -> bool {
        self.is_foreign && self.pod_state.group == GroupPresence::Absent { existed: false }
    }

    /// Whether the pod's status must stay as it is: the pod has run, and its group may still run with the tags of
    /// another owner, so the state of its containers is not known.
    pub fn keeps_last_status(&self) -> bool {
        self.was_never_owned() && pod_plan::has_run(&self.pod)
    }
}

/// The first start that a GET shows: since when the group exists, and when its containers had started.
fn new_start(
    previous: &GroupPresence,
    started_at: Option<Timestamp>,
) -> Option<(Timestamp, Timestamp)> {
    match previous {
        GroupPresence::Exists {
            since,
            has_run: false,
            ..
        } => Some((*since, started_at?)),
        _ => None,
    }
}

/// When the last of the group's containers started, once all of them have started.
fn started_at(view: &View) -> Option<Timestamp> {
    let containers = &view.properties.containers;
    let times = containers.iter().map(|container| {
        let state = container.instance_view()?.current_state.as_ref()?;
        state.start_time
    });
    let times: Option<Vec<Timestamp>> = times.collect();
    times?.into_iter().max()
}
