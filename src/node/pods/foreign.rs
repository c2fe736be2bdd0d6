//! A container group that has a pod's name and the tags of another owner.
//!
//! In: a LIST or a GET that shows such a group. Out: an Event and a status with the remedy. The group is neither
//! changed nor deleted. Its name contains a hash of the pod's UID, so most likely it is the pod's own and its tags
//! were changed by hand, but nothing proves that. Once the tags are restored, the worker uses the group again, and
//! deletes it with the pod; if the pod is gone by then, garbage collection does.

use std::time::Duration;

use super::worker::{AttemptKind, CreateProblem, PodWorker};
use crate::aci::failure::{FailureClass, FailureVerdict};
use crate::node::absence::AbsenceEvidence;
use crate::node::pod_plan::{self, GroupPresence, PodAction};

/// How long such a group is not read again.
const RETRY_INTERVAL: Duration = Duration::from_secs(60);
/// Reason of the Event.
const REASON: &str = "ContainerGroupNotOwned";

impl PodWorker {
    /// Records that the tags of the pod's group name another owner: the worker neither writes nor deletes it.
    pub fn mark_foreign(&mut self) {
        if self.state.group == GroupPresence::Unknown {
            self.state.group = GroupPresence::Absent { existed: false };
        }
        self.is_foreign = true;
        self.pause_action(PodAction::Refresh, RETRY_INTERVAL);
        let message = self.foreign_message("burstpool does not touch it");
        self.warn(REASON, &message);
        self.record_failure(
            AttemptKind::Create,
            &FailureVerdict::new(FailureClass::Permanent, None, message),
        );
    }

    /// Records that the group has the right tags again, or is gone.
    pub fn mark_owned(&mut self) {
        if self.was_never_owned() {
            self.state.group = GroupPresence::Unknown;
            self.state.absence = AbsenceEvidence::default();
        }
        if std::mem::take(&mut self.is_foreign) && self.is_readable {
            (self.state.is_refused, self.problem) = (false, CreateProblem::None);
        }
    }

    /// Whether the group has had the tags of another owner for as long as this process knows it: the process has
    /// neither created it nor read it with the right tags.
    pub fn was_never_owned(&self) -> bool {
        self.is_foreign && self.state.group == GroupPresence::Absent { existed: false }
    }

    /// Whether the pod's status must stay as it is: the pod has run, and its group may still run with the tags of
    /// another owner, so the state of its containers is not known.
    pub fn keeps_last_status(&self) -> bool {
        self.was_never_owned() && pod_plan::has_run(&self.pod)
    }

    /// Publishes an Event that the pod is removed while its group stays.
    pub async fn warn_group_stays(&mut self) {
        let message =
            self.foreign_message("it stays in Azure, and is billed, after the pod is removed");
        tracing::warn!(pod = %self.pod_name(), group = %self.group_name, "{message}");
        // Published without a retry: the pod is removed in any case.
        self.publish_warning(REASON, &message).await;
    }

    /// A message with the remedy; `consequence` says what happens to the group.
    fn foreign_message(&self, consequence: &str) -> String {
        let tags = self.context.owner.tags(&self.pod);
        let tags = tags.iter().map(|(tag, value)| format!("{tag}={value}"));
        let tags: Vec<String> = tags.collect();
        let (name, group) = (&self.group_name, &self.context.scope.resource_group);
        format!(
            "the tags of container group {name} in resource group {group} name another owner: {consequence}. If \
             the group belongs to this pod, set its tags {}; otherwise delete it",
            tags.join(", ")
        )
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::AtomicU16;
    use std::sync::{Arc, Mutex};

    use jiff::Timestamp;
    use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
    use kube::client::Body;
    use serde_json::json;

    use super::super::group_list::ListedState;
    use super::super::status_writer::PendingWrite;
    use super::super::status_writer::tests::{keeper_shown, kubernetes};
    use super::*;
    use crate::aci::poll_interval::StartLatencies;

    fn decided(keeper: &PodWorker) -> PodAction {
        let starts = StartLatencies::default();
        pod_plan::next_action(Some(&keeper.pod), &keeper.state, &starts, Timestamp::now()).action
    }

    fn foreign(phase: &str) -> PodWorker {
        let client = kubernetes(&Arc::new(AtomicU16::new(201)));
        let mut keeper = keeper_shown(client, ListedState::Foreign);
        keeper.pod.status = serde_json::from_value(json!({"phase": phase})).expect("a status");
        keeper.apply_listing(&ListedState::Foreign);
        keeper
    }

    #[tokio::test]
    async fn a_group_whose_tags_were_changed_is_named_with_the_tags_that_make_it_the_pods_again() {
        let mut keeper = foreign("Pending");
        let event = keeper.events.pop().expect("an Event");
        assert_eq!(event.reason, REASON);
        let CreateProblem::Waiting { message, .. } = &keeper.problem else {
            unreachable!("the status says why");
        };
        for text in [&event.message, message] {
            assert!(text.contains(keeper.group_name.as_str()), "{text}");
            for (tag, value) in keeper.context.owner.tags(&keeper.pod) {
                assert!(text.contains(&format!("{tag}={value}")), "{text}");
            }
        }
        assert_eq!(decided(&keeper), PodAction::Wait);
        assert!(matches!(
            keeper.pending_write(Timestamp::now()),
            PendingWrite::Status(_) | PendingWrite::UrgentStatus(_)
        ));
    }

    #[tokio::test]
    async fn the_status_of_a_pod_that_runs_stays_while_its_group_has_other_tags() {
        let mut keeper = foreign("Running");
        assert!(matches!(
            keeper.pending_write(Timestamp::now()),
            PendingWrite::Event
        ));
        keeper.events.pop();
        assert!(matches!(
            keeper.pending_write(Timestamp::now()),
            PendingWrite::Nothing
        ));
    }

    #[tokio::test]
    async fn a_group_that_a_read_shows_with_other_tags_is_neither_used_nor_deleted_nor_read_in_a_loop()
     {
        let now = Timestamp::now();
        for was_there in [false, true] {
            let mut keeper = keeper_shown(
                kubernetes(&Arc::new(AtomicU16::new(201))),
                ListedState::Unlisted,
            );
            if was_there {
                keeper.state.put_accepted(Timestamp::UNIX_EPOCH);
            }
            let tags = json!({"team": "x"});
            let group = json!({"name": keeper.group_name.as_str(), "tags": tags, "properties": {"containers": []}});
            keeper.group_found(&group, now);
            assert!(keeper.is_foreign && keeper.group_view.is_none());
            if was_there {
                let starts = StartLatencies::default();
                let next = pod_plan::next_action(Some(&keeper.pod), &keeper.state, &starts, now);
                assert!(next.at.duration_since(now).as_secs() > 30, "{next:?}");
            } else {
                assert_eq!(decided(&keeper), PodAction::Wait);
                keeper.pod.metadata.deletion_timestamp = Some(Time(now));
                assert_eq!(decided(&keeper), PodAction::Remove, "without a DELETE");
            }
        }
    }

    #[tokio::test]
    async fn a_pod_whose_group_has_other_tags_goes_after_an_event_that_the_group_stays() {
        let calls: Arc<Mutex<Vec<String>>> = Arc::default();
        let called = calls.clone();
        let service = tower::service_fn(move |request: http::Request<Body>| {
            let (path, method) = (request.uri().path(), request.method());
            let call = format!("{method} {}", path.rsplit('/').nth(1).unwrap_or_default());
            called.lock().expect("calls").push(call);
            let metadata = json!({"namespace": "shop", "name": "web", "uid": "1"});
            let body = json!({"metadata": metadata, "involvedObject": {}});
            let body = Body::from(body.to_string().into_bytes());
            std::future::ready(Ok::<_, http::Error>(http::Response::new(body)))
        });
        let mut keeper = keeper_shown(kube::Client::new(service, "default"), ListedState::Foreign);
        keeper.apply_listing(&ListedState::Foreign);
        assert!(keeper.remove_pod().await);
        let calls = calls.lock().expect("calls");
        assert_eq!(calls[calls.len() - 2..], ["PATCH events", "DELETE pods"]);
    }

    #[tokio::test]
    async fn a_group_that_was_denied_before_it_had_other_tags_is_not_gone_after_one_more_denial() {
        let now = Timestamp::now();
        let mut keeper = keeper_shown(
            kubernetes(&Arc::new(AtomicU16::new(201))),
            ListedState::Foreign,
        );
        keeper.pod.status = serde_json::from_value(json!({"phase": "Running"})).expect("a status");
        for seconds in [20, 10] {
            keeper.group_denied(now - jiff::SignedDuration::from_secs(seconds));
        }
        keeper.apply_listing(&ListedState::Foreign);
        keeper.apply_listing(&ListedState::Absent { requested_at: now });
        assert_eq!(keeper.state.group, GroupPresence::Unknown);
    }

    #[tokio::test]
    async fn a_group_with_other_tags_that_is_deleted_by_hand_is_looked_for_again() {
        for phase in ["Pending", "Running"] {
            let mut keeper = foreign(phase);
            keeper.apply_listing(&ListedState::Foreign);
            assert_eq!(decided(&keeper), PodAction::Wait, "{phase}");
            let requested_at = Timestamp::now();
            keeper.apply_listing(&ListedState::Absent { requested_at });
            assert!(!keeper.is_foreign && !keeper.state.is_refused, "{phase}");
            assert_ne!(decided(&keeper), PodAction::Wait, "{phase}");
        }
    }

    #[tokio::test]
    async fn a_group_whose_tags_were_restored_is_used_again_and_deleted_with_its_pod() {
        let mut keeper = foreign("Running");
        let now = Timestamp::now();
        keeper.state.group_listed(now, now);
        assert_eq!(decided(&keeper), PodAction::Discover);
        let tags = keeper.context.owner.tags(&keeper.pod);
        let group = json!({"name": keeper.group_name.as_str(), "tags": tags, "properties": {"containers": []}});
        keeper.group_found(&group, now);
        assert!(matches!(keeper.state.group, GroupPresence::Exists { .. }));
        assert!(!keeper.state.is_refused && !keeper.keeps_last_status());
        let deleted =
            json!({"deletionTimestamp": "2026-07-01T00:00:00Z", "deletionGracePeriodSeconds": 0});
        let deleted: k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta =
            serde_json::from_value(deleted).expect("metadata");
        keeper.pod.metadata.deletion_timestamp = deleted.deletion_timestamp;
        assert_eq!(decided(&keeper), PodAction::Delete);
    }
}
