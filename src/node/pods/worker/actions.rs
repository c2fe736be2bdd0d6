//! Executes the next action of one pod, and records the answer.
//!
//! In: an action of [`pod_plan`](crate::node::pod_plan). Out: a call to Azure, and what its answer changes in
//! [`PodState`](crate::node::pod_plan::PodState) and in the pod's status.

use std::time::Duration;

use jiff::Timestamp;
use serde_json::Value;

use super::PodWorker;
use super::attempts::AttemptKind;
use crate::aci::client::GroupDeletion;
use crate::aci::error::Error;
use crate::aci::failure::{FailureClass, FailureVerdict};
use crate::aci::image::CREATE_CONTAINER_CONFIG_ERROR;
use crate::aci::response::ContainerGroup as View;
use crate::aci::translate::{self, Group as Body, Unsupported};
use crate::api::LossSet;
use crate::burst::facts::pod::accepted_losses;
use crate::node::absence_proof::EvidenceSource;
use crate::node::environment;
use crate::node::pod_plan::PodAction;

/// How long a pod waits for a `ConfigMap`, a Secret or a permission that is missing. A kubelet tries again about as
/// often.
const REFERENCE_RETRY_INTERVAL: Duration = Duration::from_secs(10);

/// Reason of the Event about a pod whose group may not be deleted: a kubelet's.
const NOT_DELETED: &str = "FailedKillPod";

impl PodWorker {
    /// Executes `action`; returns `true` when the pod and its group are gone.
    pub async fn execute(&mut self, action: PodAction) -> bool {
        // Each call is boxed: nearly all workers wait, and a waiting worker must not be as large as one that acts.
        match action {
            PodAction::Create => Box::pin(self.create_group()).await,
            PodAction::RunHooks => Box::pin(self.run_hooks()).await,
            PodAction::Delete => Box::pin(self.delete_group()).await,
            PodAction::Remove => return Box::pin(self.remove_pod()).await,
            PodAction::Discover | PodAction::Refresh | PodAction::Wait => {}
        }
        false
    }

    /// What the pod may lose: what its grant accepts, which later edits of the pool do not change. Nothing if the node's
    /// pool has not granted it.
    pub(super) fn accepted_losses(&self) -> LossSet {
        accepted_losses(self.state.pod(), &self.context.owner.pool)
    }

    /// The container group to create; `None` if it cannot be created now. The pod's status and an Event then say
    /// why.
    async fn build_group(&mut self) -> Option<Box<Body>> {
        let context = self.context.clone();
        let services = context.services.all();
        let settings = context.settings();
        let (pod, kube_proxy) = (self.state.pod(), settings.kube_proxy.as_ref());
        let read = environment::resolve(&context.client, pod, &services, kube_proxy).await;
        let mut resolved = match read {
            Ok(environment) => {
                for missing in environment.warnings {
                    self.warn("FailedToRetrieveImagePullSecret", &missing.to_string());
                }
                environment.resolved
            }
            Err(missing) => {
                self.pause_create();
                let messages: Vec<String> = missing.iter().map(ToString::to_string).collect();
                let message = messages.join("; ");
                self.state
                    .set_waiting(CREATE_CONTAINER_CONFIG_ERROR, &message);
                self.warn("FailedMount", &message);
                return None;
            }
        };
        if !self.read_images(&mut resolved).await {
            return None;
        }
        let accepted = self.accepted_losses();
        let placement = context.translation_target(&settings, &accepted);
        let (pod, unknown) = (self.state.pod(), self.state.unknown_fields());
        match translate::translate(pod, unknown, &resolved, &context.owner, &placement) {
            Ok(group) => Some(Box::new(group)),
            Err(unsupported) => {
                let own = translate::eligible(pod, unknown, &placement).err();
                let (is_final, unsupported) = (own.is_some(), own.unwrap_or(unsupported));
                let messages: Vec<String> = unsupported
                    .iter()
                    .map(Unsupported::without_remedy)
                    .collect();
                let message = messages.join("; ");
                if is_final {
                    self.state.mark_unsupported(unsupported);
                } else {
                    // The spec is eligible, so the content of a Secret, a ConfigMap or an image is at fault; a user
                    // may correct it.
                    self.pause_create();
                    self.state
                        .set_waiting(CREATE_CONTAINER_CONFIG_ERROR, &message);
                }
                self.warn("Unsupported", &message);
                None
            }
        }
    }

    /// Delays the create until an object that is missing may exist, or a user may have corrected it.
    fn pause_create(&mut self) {
        let now = Timestamp::now();
        self.state
            .pause_action(PodAction::Create, REFERENCE_RETRY_INTERVAL, now);
    }

    async fn create_group(&mut self) {
        let group = match self.state.take_unanswered_put() {
            Some(group) => group,
            None => match Box::pin(self.build_group()).await {
                Some(group) => group,
                None => return,
            },
        };
        let context = self.context.clone();
        let _permit = context.group_write_permits.acquire().await;
        // The pod may have been deleted while the worker waited for the permit.
        self.drain_updates();
        if self.state.is_leaving() {
            return;
        }
        let sent_at = Timestamp::now();
        tracing::info!("creating a container group");
        match context
            .azure
            .put(&context.scope, self.group_name.as_str(), &*group)
            .await
        {
            Ok(answer) => {
                self.state.put_accepted(View::from_value(&answer), sent_at);
                context.record_group_change(&self.group_name, true);
                self.mark_group_deleted(false);
            }
            Err(error) => self.create_failed(&error, (sent_at, group)),
        }
    }

    fn create_failed(&mut self, error: &Error, (sent_at, group): (Timestamp, Box<Body>)) {
        let verdict = error.verdict();
        tracing::warn!(error = %error.error_chain(), "cannot create a container group");
        self.start_failed(AttemptKind::Create, &verdict);
        self.state.put_failed(error, &verdict, (sent_at, group));
        self.warn(verdict.reason, &verdict.message);
    }

    /// Azure did not create the group, or could not start it: the region is checked, and the placement's controller
    /// gets the result.
    fn start_failed(&mut self, attempt: AttemptKind, verdict: &FailureVerdict) {
        self.state
            .record_failure(attempt, verdict, Timestamp::now());
        self.context.azure_failed.notify_one();
        self.context
            .record_create_result(Some(verdict.class), &verdict.message);
    }

    /// Reads the group, or finds out whether there is one.
    pub async fn read_group(&mut self, action: PodAction) {
        let context = self.context.clone();
        let sent_at = Timestamp::now();
        let request = context.azure.get(&context.scope, self.group_name.as_str());
        match Box::pin(request).await {
            Ok(answer) => self.group_found(&answer, sent_at),
            // A missing resource group counts only for a pod that is being deleted: the resource group's container
            // groups are gone with it, and the pod must not stay Terminating.
            Err(error)
                if is_gone(&error)
                    || self.state.is_leaving() && error.means_nothing_to_delete() =>
            {
                self.state.read_answered();
                self.group_not_found(sent_at);
            }
            Err(error) => {
                self.call_failed(AttemptKind::Read, &error);
                if action == PodAction::Discover {
                    let verdict = error.verdict();
                    self.state.set_waiting(verdict.reason, &verdict.message);
                }
            }
        }
    }

    /// Records what a GET shows of the group. The first GET that shows a start also records how long the start took.
    pub fn group_found(&mut self, answer: &Value, sent_at: Timestamp) {
        let now = Timestamp::now();
        let Some(view) = View::from_value(answer) else {
            return self.answer_unreadable();
        };
        if !self.context.owner.owns(&view.tags) {
            return self.mark_foreign();
        }
        self.state.group_owned();
        self.observe_events(&view);
        let outcome = self.state.group_read(view, sent_at, now);
        if let Some((since, started)) = outcome.started {
            self.record_start_latency(since, started);
            self.context.record_create_result(None, "");
        }
        if outcome.is_first {
            // The pod's images may have changed while no operator ran.
            self.warn_outdated_images();
        }
        if let Some(verdict) = outcome.start_failure {
            tracing::warn!(message = %verdict.message, "a container group did not start");
            self.start_failed(AttemptKind::Start, &verdict);
            self.state.replace_group();
        }
    }

    fn record_start_latency(&self, since: Timestamp, started: Timestamp) {
        // Azure's clock may be ahead: a start counts as at most as long as the time until it was observed.
        let started = started.min(Timestamp::now());
        // The error case: a group that was adopted after a restart may have started before `since`.
        if let Ok(took) = Duration::try_from(started.duration_since(since)) {
            self.context.start_latencies().record(took);
        }
    }

    /// Records that a read or a delete failed: the back-off changes, the pod's status does not.
    pub fn call_failed(&mut self, attempt: AttemptKind, error: &Error) {
        let operation = match attempt {
            AttemptKind::Delete => "cannot delete a container group",
            _ => "cannot read a container group",
        };
        tracing::warn!(error = %error.error_chain(), "{operation}");
        self.context.azure_failed.notify_one();
        if self.state.is_leaving() && error.failure().is_some_and(|failure| failure.status == 403) {
            self.warn_stays_terminating(error);
        }
        self.state
            .call_failed(attempt, &error.verdict(), Timestamp::now());
    }

    /// Queues an Event that says why the pod stays Terminating, and what ends that. Azure also answers 403 for a
    /// deleted resource group if the operator's role was assigned there.
    fn warn_stays_terminating(&mut self, error: &Error) {
        let metadata = &self.state.pod().metadata;
        let (pod, namespace) = (metadata.name.as_deref(), metadata.namespace.as_deref());
        let (pod, namespace) = (pod.unwrap_or_default(), namespace.unwrap_or_default());
        let (name, group) = (&self.group_name, &self.context.scope.resource_group);
        let message = format!(
            "burstpool may not delete container group {name}, so the pod stays: assign the operator's role on \
             resource group {group} (if {group} was deleted, create it again first). If the container group is \
             certainly gone: kubectl delete pod {pod} -n {namespace} --force --grace-period=0. Azure: {}",
            error.verdict().message
        );
        self.warn(NOT_DELETED, &message);
    }

    fn answer_unreadable(&mut self) {
        let message = "Azure's answer cannot be read".to_owned();
        let verdict = FailureVerdict::new(FailureClass::Transient, None, message);
        self.state
            .record_failure(AttemptKind::Read, &verdict, Timestamp::now());
    }

    /// Records whether the group is being deleted: the kubelet API ends its sessions then.
    fn mark_group_deleted(&self, is_deleted: bool) {
        let uid = self.state.pod().metadata.uid.as_deref().unwrap_or_default();
        self.context.pod_index.set_group_deleted(uid, is_deleted);
    }

    async fn delete_group(&mut self) {
        let context = self.context.clone();
        let _permit = context.group_write_permits.acquire().await;
        self.leave_hooks();
        let sent_at = Timestamp::now();
        tracing::info!("deleting a container group");
        self.mark_group_deleted(true);
        match context
            .azure
            .delete(&context.scope, self.group_name.as_str())
            .await
        {
            Ok(deletion) => {
                let now = Timestamp::now();
                self.state.delete_answered(deletion, sent_at, now);
                let absence = &self.state.pod_state().absence;
                match deletion {
                    GroupDeletion::NotFound | GroupDeletion::Deleted => {
                        self.group_not_found(sent_at);
                    }
                    // Until the group is deleted, a LIST can still show it, and so end Azure's lag.
                    GroupDeletion::Started if absence.is_within_lag(EvidenceSource::List, now) => {
                        context.read_queue.request_list();
                    }
                    GroupDeletion::Started => {}
                }
            }
            Err(error) => self.call_failed(AttemptKind::Delete, &error),
        }
    }
}

/// Whether Azure says that the group does not exist. A missing resource group or subscription says nothing about
/// the group.
fn is_gone(error: &Error) -> bool {
    error.verdict().class == FailureClass::NotFound
}
