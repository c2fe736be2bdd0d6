//! A container group that has a pod's name and the tags of another owner.
//!
//! In: a LIST or a GET that shows such a group. Out: an Event and a status with the remedy. The group is neither
//! changed nor deleted. Its name contains a hash of the pod's UID, so most likely it is the pod's own and its tags
//! were changed by hand, but nothing proves that. Once the tags are restored, the worker uses the group again, and
//! deletes it with the pod; if the pod is gone by then, garbage collection does.

use jiff::Timestamp;

use super::PodWorker;

/// Reason of the Event.
const REASON: &str = "ContainerGroupNotOwned";

impl PodWorker {
    /// Records that the tags of the pod's group name another owner: the worker neither writes nor deletes it.
    pub fn mark_foreign(&mut self) {
        let message = self.foreign_message("burstpool does not touch it");
        self.warn(REASON, &message);
        self.state.group_foreign(&message, Timestamp::now());
    }

    /// Publishes an Event that the pod is removed while its group stays.
    pub async fn warn_group_stays(&mut self) {
        let message =
            self.foreign_message("it stays in Azure, and is billed, after the pod is removed");
        tracing::warn!("{message}");
        // Published without a retry: the pod is removed in any case.
        self.publish_warning(REASON, &message).await;
    }

    /// A message with the remedy; `consequence` says what happens to the group.
    fn foreign_message(&self, consequence: &str) -> String {
        let tags = self.context.owner.tags(self.state.pod());
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
    use std::sync::Arc;
    use std::sync::atomic::AtomicU16;

    use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
    use kube::client::Body;
    use parking_lot::Mutex;
    use serde_json::json;

    use super::super::fixtures::{kubernetes, listed_worker};
    use super::super::state::GroupProblem;
    use super::super::status_writer::PendingWrite;
    use super::*;
    use crate::aci::poll_interval::StartLatencies;
    use crate::node::pod_plan::{self, GroupPresence, PodAction};
    use crate::node::pods::group_list::ListedState;

    fn decided(worker: &PodWorker) -> PodAction {
        let starts = StartLatencies::default();
        let (pod, state) = (worker.state.existing_pod(), worker.state.pod_state());
        pod_plan::next_action(pod, state, &starts, Timestamp::now()).action
    }

    fn foreign(phase: &str) -> PodWorker {
        let client = kubernetes(&Arc::new(AtomicU16::new(201)));
        let mut worker = listed_worker(client, ListedState::Foreign);
        worker.state.pod_mut().status =
            serde_json::from_value(json!({"phase": phase})).expect("a status");
        worker.apply_listing(&ListedState::Foreign);
        worker
    }

    #[tokio::test]
    async fn the_event_about_a_foreign_group_names_the_group_and_the_tags_to_restore() {
        let mut worker = foreign("Pending");
        let event = worker.events.pop().expect("an Event");
        assert_eq!(event.reason, REASON);
        let GroupProblem::Waiting { message, .. } = worker.state.problem() else {
            unreachable!("the status says why");
        };
        for text in [&event.message, message] {
            assert!(text.contains(worker.group_name.as_str()), "{text}");
            for (tag, value) in worker.context.owner.tags(worker.state.pod()) {
                assert!(text.contains(&format!("{tag}={value}")), "{text}");
            }
        }
        assert_eq!(decided(&worker), PodAction::Wait);
        assert!(matches!(
            worker.pending_write(Timestamp::now()),
            PendingWrite::Status(_) | PendingWrite::UrgentStatus(_)
        ));
    }

    #[tokio::test]
    async fn the_status_of_a_pod_that_runs_stays_while_its_group_has_other_tags() {
        let mut worker = foreign("Running");
        assert!(matches!(
            worker.pending_write(Timestamp::now()),
            PendingWrite::Event
        ));
        worker.events.pop();
        assert!(matches!(
            worker.pending_write(Timestamp::now()),
            PendingWrite::Nothing
        ));
    }

    #[tokio::test]
    async fn a_group_that_a_read_shows_with_other_tags_is_not_used_deleted_or_read_at_once() {
        let now = Timestamp::now();
        for was_there in [false, true] {
            let mut worker = listed_worker(
                kubernetes(&Arc::new(AtomicU16::new(201))),
                ListedState::Unlisted,
            );
            if was_there {
                worker
                    .state
                    .pod_state_mut()
                    .put_accepted(Timestamp::UNIX_EPOCH);
            }
            let tags = json!({"team": "x"});
            let group = json!({"name": worker.group_name.as_str(), "tags": tags, "properties": {"containers": []}});
            worker.group_found(&group, now);
            assert!(worker.state.is_foreign() && worker.state.group_view().is_none());
            if was_there {
                let starts = StartLatencies::default();
                let next = pod_plan::next_action(
                    worker.state.existing_pod(),
                    worker.state.pod_state(),
                    &starts,
                    now,
                );
                assert!(next.at.duration_since(now).as_secs() > 30, "{next:?}");
            } else {
                assert_eq!(decided(&worker), PodAction::Wait);
                worker.state.pod_mut().metadata.deletion_timestamp = Some(Time(now));
                assert_eq!(decided(&worker), PodAction::Remove, "without a DELETE");
            }
        }
    }

    #[tokio::test]
    async fn a_pod_whose_group_has_other_tags_is_removed_after_an_event_about_the_group() {
        let calls: Arc<Mutex<Vec<String>>> = Arc::default();
        let called = calls.clone();
        let service = tower::service_fn(move |request: http::Request<Body>| {
            let (path, method) = (request.uri().path(), request.method());
            let call = format!("{method} {}", path.rsplit('/').nth(1).unwrap_or_default());
            called.lock().push(call);
            let metadata = json!({"namespace": "shop", "name": "web", "uid": "1"});
            let body = json!({"metadata": metadata, "involvedObject": {}});
            let body = Body::from(body.to_string().into_bytes());
            std::future::ready(Ok::<_, http::Error>(http::Response::new(body)))
        });
        let mut worker = listed_worker(kube::Client::new(service, "default"), ListedState::Foreign);
        worker.apply_listing(&ListedState::Foreign);
        assert!(worker.remove_pod().await);
        let calls = calls.lock();
        assert_eq!(calls[calls.len() - 2..], ["PATCH events", "DELETE pods"]);
    }

    #[tokio::test]
    async fn a_404_from_before_a_group_had_other_tags_does_not_count() {
        let now = Timestamp::now();
        let mut worker = listed_worker(
            kubernetes(&Arc::new(AtomicU16::new(201))),
            ListedState::Foreign,
        );
        worker.state.pod_mut().status =
            serde_json::from_value(json!({"phase": "Running"})).expect("a status");
        for seconds in [20, 10] {
            worker.group_not_found(now - jiff::SignedDuration::from_secs(seconds));
        }
        worker.apply_listing(&ListedState::Foreign);
        worker.apply_listing(&ListedState::Absent { requested_at: now });
        assert_eq!(worker.state.pod_state().group, GroupPresence::Unknown);
    }

    #[tokio::test]
    async fn a_group_with_other_tags_that_is_deleted_by_hand_is_looked_for_again() {
        for phase in ["Pending", "Running"] {
            let mut worker = foreign(phase);
            worker.apply_listing(&ListedState::Foreign);
            assert_eq!(decided(&worker), PodAction::Wait, "{phase}");
            let requested_at = Timestamp::now();
            worker.apply_listing(&ListedState::Absent { requested_at });
            assert!(
                !worker.state.is_foreign() && !worker.state.pod_state().is_create_blocked,
                "{phase}"
            );
            assert_ne!(decided(&worker), PodAction::Wait, "{phase}");
        }
    }

    #[tokio::test]
    async fn a_group_whose_tags_were_restored_is_used_again_and_deleted_with_its_pod() {
        let mut worker = foreign("Running");
        let now = Timestamp::now();
        worker.state.pod_state_mut().group_listed(now, now);
        assert_eq!(decided(&worker), PodAction::Discover);
        let tags = worker.context.owner.tags(worker.state.pod());
        let group = json!({"name": worker.group_name.as_str(), "tags": tags, "properties": {"containers": []}});
        worker.group_found(&group, now);
        assert!(matches!(
            worker.state.pod_state().group,
            GroupPresence::Exists { .. }
        ));
        assert!(!worker.state.pod_state().is_create_blocked && !worker.state.keeps_last_status());
        let deleted =
            json!({"deletionTimestamp": "2026-07-01T00:00:00Z", "deletionGracePeriodSeconds": 0});
        let deleted: k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta =
            serde_json::from_value(deleted).expect("metadata");
        worker.state.pod_mut().metadata.deletion_timestamp = deleted.deletion_timestamp;
        assert_eq!(decided(&worker), PodAction::Delete);
    }
}
