//! The status writer: a pod's status, its Events and the removal of its object.
//!
//! In: what the worker knows of its pod. Out: patches of the pod's status, Events, and a DELETE of the pod. A
//! failed write is tried again later; the worker does not wait for it.

use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Event, EventSource, ObjectReference, Pod, PodStatus};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, Time};
use kube::Api;
use kube::api::{Patch, PatchParams};

use super::PodWorker;
use crate::aci::events::{self, PodEvent};
use crate::aci::response::ContainerGroup as View;
use crate::aci::status::{
    self, DEADLINE_EXCEEDED, DEADLINE_EXCEEDED_MESSAGE, GroupObservation, NodeFacts,
};
use crate::k8s::call;
use crate::k8s::call::{DeletionOutcome, ObjectTarget};
use crate::k8s::{self, rejected};
use crate::node::pod_plan::{self, PodAction};
use crate::node::pods::is_permanent_rejection;

/// The field manager of pod statuses.
const FIELD_MANAGER: &str = "burstpool-pod";
/// The reporting component of Events.
const REPORTING_COMPONENT: &str = "burstpool";
/// Timeout of one call.
const CALL_TIMEOUT: Duration = Duration::from_secs(15);

/// The back-off after a status write that got no answer.
const WRITE_RETRY_INTERVAL: Duration = Duration::from_secs(2);
/// The back-off after a failed removal of a pod.
const REMOVE_RETRY_INTERVAL: Duration = Duration::from_secs(1);
/// The back-off after a status write that the API server accepted but whose answer does not contain the status:
/// another client or a webhook reverts it, and writing again at once only adds load.
const REVERTED_RETRY_INTERVAL: Duration = Duration::from_secs(10);
/// The longest back-off after writes of the pod that the API server rejected. It is short: once the writes are
/// allowed, a pod that has finished or is Ready must not look otherwise for long.
const MAX_REJECTED_INTERVAL: Duration = Duration::from_secs(60);

/// The next write to the API server.
#[derive(Debug)]
pub(super) enum PendingWrite {
    /// There is nothing to write.
    Nothing,
    /// A status that is urgent: it changes the phase, the readiness or an address.
    UrgentStatus(Box<PodStatus>),
    /// A status that is not urgent.
    Status(Box<PodStatus>),
    /// An Event.
    Event,
}

impl PendingWrite {
    /// Whether there is anything to write.
    pub fn is_pending(&self) -> bool {
        !matches!(self, Self::Nothing)
    }
}

impl PodWorker {
    /// The next write: what the pod's live status does not show yet, then Events.
    pub(super) fn pending_write(&self, now: Timestamp) -> PendingWrite {
        if !self.state.exists() {
            return PendingWrite::Nothing;
        }
        // Writing a status would replace a status that could not be decoded, or end a pod that may still run.
        if !self.state.is_readable() || self.state.keeps_last_status() {
            let is_due = self.next_write_at.is_none_or(|at| at <= now);
            return if is_due && !self.events.is_empty() {
                PendingWrite::Event
            } else {
                PendingWrite::Nothing
            };
        }
        let (pod, observation) = (self.state.pod(), self.state.observation());
        let wanted = status::pod_status(pod, &observation, &self.node_facts(), now);
        let may_write = self.next_write_at.is_none_or(|at| at <= now);
        if may_write && !has_status(pod, &wanted) {
            let (empty, wanted) = (PodStatus::default(), Box::new(wanted));
            let live = pod.status.as_ref().unwrap_or(&empty);
            return if status::is_urgent(live, &wanted) {
                PendingWrite::UrgentStatus(wanted)
            } else {
                PendingWrite::Status(wanted)
            };
        }
        if may_write && !self.events.is_empty() {
            PendingWrite::Event
        } else {
            PendingWrite::Nothing
        }
    }

    /// Writes the pod's status now if it has changed, unless the last write failed a moment ago.
    pub(super) async fn write_status_now(&mut self) {
        if let PendingWrite::UrgentStatus(status) | PendingWrite::Status(status) =
            self.pending_write(Timestamp::now())
        {
            self.write_status(&status).await;
        }
    }

    /// Makes a write that is not urgent.
    pub(super) async fn write_pending(&mut self, write: PendingWrite) {
        match write {
            PendingWrite::Nothing => {}
            PendingWrite::UrgentStatus(status) | PendingWrite::Status(status) => {
                self.write_status(&status).await;
            }
            PendingWrite::Event => {
                if let Some(event) = self.events.pop()
                    && !self.publish_event(&event).await
                {
                    // The Event is written when the API server answers again.
                    self.events.put_back(event);
                    self.next_write_at = Timestamp::now().checked_add(WRITE_RETRY_INTERVAL).ok();
                }
            }
        }
    }

    /// Queues the Events that Azure reports for the group; each is written once.
    pub fn observe_events(&mut self, view: &View) {
        let now = Timestamp::now();
        self.events
            .observe_azure_events(events::pod_events(self.state.pod(), view), now);
    }

    /// Removes the pod: writes the end of its containers to its status, then deletes its object. Returns `true`
    /// when it is gone.
    pub async fn remove_pod(&mut self) -> bool {
        let Some(pod) = self.state.existing_pod() else {
            return true;
        };
        let observation = GroupObservation::Deleted(self.state.group_view());
        let wanted = status::pod_status(pod, &observation, &self.node_facts(), Timestamp::now());
        if self.state.is_readable() && !has_status(pod, &wanted) {
            self.write_status(&wanted).await;
        }
        let Some(target) = ObjectTarget::from_metadata(&self.state.pod().metadata) else {
            return true;
        };
        if self.state.was_never_owned() {
            self.warn_group_stays().await;
        }
        match call::delete(CALL_TIMEOUT, &self.pods_api(), &target, Some(0)).await {
            // The pod is gone, or another pod has its name.
            Ok(DeletionOutcome::Started | DeletionOutcome::NotFound) => true,
            Err(error) if call::is_timeout(&error) => false,
            Err(error) => {
                tracing::warn!(%error, "cannot remove a pod");
                let pause = self.write_rejected(&error).unwrap_or(REMOVE_RETRY_INTERVAL);
                let now = Timestamp::now();
                self.state.pause_action(PodAction::Remove, pause, now);
                false
            }
        }
    }

    /// Queues a Warning Event of the operator about the pod.
    pub fn warn(&mut self, reason: &str, message: &str) {
        let event = self.event("Warning", reason, message);
        self.events.add(event);
    }

    /// Writes a Warning Event now, if the API server answers.
    pub async fn publish_warning(&mut self, reason: &str, message: &str) {
        let event = self.event("Warning", reason, message);
        self.publish_event(&event).await;
    }

    /// An Event of the operator about the pod, which happens now.
    fn event(&self, event_type: &'static str, reason: &str, message: &str) -> PodEvent {
        self.event_about(None, event_type, reason, message)
    }

    /// An Event of the operator about a container of the pod, or about the pod, which happens now.
    pub(super) fn event_about(
        &self,
        container: Option<&str>,
        event_type: &'static str,
        reason: &str,
        message: &str,
    ) -> PodEvent {
        let metadata = &self.state.pod().metadata;
        let about = container.unwrap_or_default();
        let unique = uuid::Uuid::new_v5(
            &uuid::Uuid::NAMESPACE_OID,
            format!("{:?}{about}{reason}{message}", metadata.uid).as_bytes(),
        );
        let name = metadata.name.as_deref().unwrap_or("pod");
        let now = Timestamp::now();
        PodEvent {
            name: k8s::events::event_name(name, &unique.simple().to_string()[..16]),
            reason: k8s::events::truncate_reason(reason),
            message: k8s::events::truncate_note(message),
            event_type,
            first_timestamp: Some(now),
            last_timestamp: Some(now),
            count: 1,
            field_path: container.map(|name| format!("spec.containers{{{name}}}")),
        }
    }

    /// Writes a status. The answer is the new live pod.
    pub async fn write_status(&mut self, wanted: &PodStatus) {
        let patch = status::status_patch(self.state.pod(), wanted);
        let params = PatchParams {
            field_manager: Some(FIELD_MANAGER.to_owned()),
            ..PatchParams::default()
        };
        let (pods, patch) = (self.pods_api(), Patch::Strategic(&patch));
        let name = self.state.pod().metadata.name.clone().unwrap_or_default();
        let context = self.context.clone();
        let _permit = context.status_write_permits.acquire().await;
        let request = Box::pin(pods.patch_status(&name, &params, &patch));
        let pause = match tokio::time::timeout(CALL_TIMEOUT, request).await {
            Ok(Ok(mut pod)) => {
                pod.metadata.managed_fields = None;
                let is_kept = has_status(&pod, wanted);
                self.rejections = 0;
                // The answer can contain a change of the spec that the watch has not delivered yet.
                let old_generation = self.state.pod().metadata.generation;
                let was_exceeded = pod_plan::has_exceeded_deadline(self.state.pod());
                self.state.pod_written(pod);
                if !was_exceeded && pod_plan::has_exceeded_deadline(self.state.pod()) {
                    let (reason, message) = (DEADLINE_EXCEEDED, DEADLINE_EXCEEDED_MESSAGE);
                    // A kubelet's Event about it is no warning either.
                    let event = self.event("Normal", reason, message);
                    self.events.add(event);
                }
                self.note_changes(old_generation);
                (!is_kept).then_some(REVERTED_RETRY_INTERVAL)
            }
            // The pod is gone, or another pod has its name: the watch will report it.
            Ok(Err(kube::Error::Api(status)))
                if call::is_object_not_found(&status) || status.is_conflict() =>
            {
                Some(WRITE_RETRY_INTERVAL)
            }
            Ok(Err(error)) => {
                tracing::warn!(%error, "cannot write a pod's status");
                Some(self.write_rejected(&error).unwrap_or(WRITE_RETRY_INTERVAL))
            }
            Err(_) => {
                tracing::warn!("cannot write a pod's status: the API server did not answer");
                Some(WRITE_RETRY_INTERVAL)
            }
        };
        self.next_write_at = pause.and_then(|pause| Timestamp::now().checked_add(pause).ok());
    }

    /// The back-off if the API server rejected a write of the pod; it grows with each rejection in a row.
    fn write_rejected(&mut self, error: &kube::Error) -> Option<Duration> {
        let kube::Error::Api(status) = error else {
            return None;
        };
        rejected::is_rejected(status).then(|| {
            self.rejections = self.rejections.saturating_add(1);
            rejected::pause(self.rejections - 1).min(MAX_REJECTED_INTERVAL)
        })
    }

    /// Writes an Event. Returns `false` if the API server did not answer or is overloaded: the Event is written
    /// again later. An Event that it rejects is dropped.
    pub(super) async fn publish_event(&mut self, event: &PodEvent) -> bool {
        let namespace = self
            .state
            .pod()
            .metadata
            .namespace
            .clone()
            .unwrap_or_default();
        let events: Api<Event> = Api::namespaced(self.context.client.clone(), &namespace);
        let object = self.event_object(event);
        let apply = PatchParams::apply(REPORTING_COMPONENT).force();
        let patch = Patch::Apply(&object);
        let sent = Box::pin(events.patch(&event.name, &apply, &patch));
        match tokio::time::timeout(CALL_TIMEOUT, sent).await {
            Ok(Ok(_)) => true,
            Ok(Err(error)) => {
                tracing::debug!(%error, "cannot write an Event");
                matches!(&error, kube::Error::Api(status) if is_permanent_rejection(status))
            }
            Err(_) => false,
        }
    }

    fn event_object(&self, event: &PodEvent) -> Event {
        let metadata = &self.state.pod().metadata;
        Event {
            metadata: ObjectMeta {
                name: Some(event.name.clone()),
                namespace: metadata.namespace.clone(),
                ..ObjectMeta::default()
            },
            involved_object: ObjectReference {
                api_version: Some("v1".to_owned()),
                kind: Some("Pod".to_owned()),
                name: metadata.name.clone(),
                namespace: metadata.namespace.clone(),
                uid: metadata.uid.clone(),
                field_path: event.field_path.clone(),
                ..ObjectReference::default()
            },
            reason: Some(event.reason.clone()),
            message: Some(event.message.clone()),
            type_: Some(event.event_type.to_owned()),
            first_timestamp: event.first_timestamp.map(Time),
            last_timestamp: event.last_timestamp.map(Time),
            count: Some(event.count),
            source: Some(EventSource {
                component: Some(REPORTING_COMPONENT.to_owned()),
                host: Some(self.context.owner.node.clone()),
            }),
            reporting_component: Some(REPORTING_COMPONENT.to_owned()),
            reporting_instance: Some(self.context.owner.node.clone()),
            ..Event::default()
        }
    }

    fn node_facts(&self) -> NodeFacts<'_> {
        NodeFacts {
            host_ip: self.context.address.parse().ok(),
            readiness: self.probes.report(),
            pre_stop: self.hooks.progress(),
        }
    }

    fn pods_api(&self) -> Api<Pod> {
        let namespace = self
            .state
            .pod()
            .metadata
            .namespace
            .as_deref()
            .unwrap_or_default();
        Api::namespaced(self.context.client.clone(), namespace)
    }
}

/// Whether the pod's status already contains what is wanted.
fn has_status(pod: &Pod, wanted: &PodStatus) -> bool {
    let empty = PodStatus::default();
    status::is_same_status(pod.status.as_ref().unwrap_or(&empty), wanted)
}

#[cfg(test)]
mod tests;
