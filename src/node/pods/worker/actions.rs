//! Executes the next action of one pod, and records the answer.
//!
//! In: an action of [`pod_plan`](crate::node::pod_plan). Out: a call to Azure, and what its answer changes in
//! [`PodState`](crate::node::pod_plan::PodState) and in the pod's status.

use std::time::Duration;

use jiff::Timestamp;
use serde_json::Value;

use super::worker::{AttemptKind, CreateProblem, PodWorker};
use crate::aci::client::GroupDeletion;
use crate::aci::error::Error;
use crate::aci::failure::{FailureClass, FailureVerdict};
use crate::aci::response::ContainerGroup as View;
use crate::aci::translate::{self, Group as Body};
use crate::node::absence::EvidenceSource;
use crate::node::environment;
use crate::node::pod_plan::{GroupPresence, GroupReading, PodAction, is_deleting, never_restarts};

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
            PodAction::Delete => Box::pin(self.delete_group()).await,
            PodAction::Remove => return Box::pin(self.remove_pod()).await,
            PodAction::Discover | PodAction::Refresh | PodAction::Wait => {}
        }
        false
    }

    /// The container group to create; `None` if it cannot be created now. The pod's status and an Event then say
    /// why.
    async fn build_group(&mut self) -> Option<Box<Body>> {
        let context = self.context.clone();
        let services = context.services.state();
        let settings = context.settings();
        let kube_proxy = settings.kube_proxy.as_ref();
        let read = environment::resolve(&context.client, &self.pod, &services, kube_proxy).await;
        let resolved = match read {
            Ok(environment) => {
                for missing in environment.warnings {
                    self.warn("FailedToRetrieveImagePullSecret", &missing.to_string());
                }
                environment.resolved
            }
            Err(missing) => {
                self.pause_action(PodAction::Create, REFERENCE_RETRY_INTERVAL);
                let messages: Vec<String> = missing.iter().map(ToString::to_string).collect();
                let message = messages.join("; ");
                self.set_waiting("CreateContainerConfigError", &message);
                self.warn("FailedMount", &message);
                return None;
            }
        };
        let placement = context.translation_target(&settings);
        let (pod, unknown) = (&self.pod, &self.unknown_fields);
        match translate::translate(pod, unknown, &resolved, &context.owner, &placement) {
            Ok(group) => Some(Box::new(group)),
            Err(refusals) => {
                let messages: Vec<String> = refusals.iter().map(ToString::to_string).collect();
                let message = messages.join("; ");
                if translate::eligible(pod, unknown, &placement).is_ok() {
                    // The spec is eligible, so the content of a Secret or a ConfigMap is at fault; a user may
                    // correct it.
                    self.pause_action(PodAction::Create, REFERENCE_RETRY_INTERVAL);
                    self.set_waiting("CreateContainerConfigError", &message);
                } else {
                    self.refuse(refusals);
                }
                self.warn("Unsupported", &message);
                None
            }
        }
    }

    async fn create_group(&mut self) {
        // A PUT without an answer may have created the group. A new body contains a new token, so sending it would
        // start the group a second time.
        let group = match self.unanswered_put.take() {
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
        if !self.exists || is_deleting(&self.pod) {
            return;
        }
        let sent_at = Timestamp::now();
        tracing::info!(pod = %self.pod_name(), group = %self.group_name, "creating a container group");
        match context
            .azure
            .put(&context.scope, self.group_name.as_str(), &*group)
            .await
        {
            Ok(answer) => {
                self.record_success(AttemptKind::Create);
                self.problem = CreateProblem::None;
                context.record_group_change(&self.group_name, true);
                self.state.put_accepted(sent_at);
                self.mark_group_deleted(false);
                self.group_view = View::from_value(&answer).map(View::without_tags);
            }
            Err(error) => self.create_failed(&error, (sent_at, group)),
        }
    }

    fn create_failed(&mut self, error: &Error, (sent_at, group): (Timestamp, Box<Body>)) {
        let verdict = error.verdict();
        tracing::warn!(pod = %self.pod_name(), error = %error.error_chain(), "creating a container group");
        self.start_failed(AttemptKind::Create, &verdict);
        let may_exist = match error {
            Error::NoAnswer { .. } | Error::Unreadable { .. } => true,
            // A 5xx or 408 from a gateway says nothing about the service behind it.
            Error::Refused { failure, .. } => failure.status >= 500 || failure.status == 408,
            Error::Waiting { .. } | Error::Credential { .. } => false,
        };
        if may_exist {
            self.state.put_unanswered(sent_at);
        } else if verdict.class == FailureClass::Transitioning {
            self.state.put_too_early(sent_at);
        } else {
            self.state.put_refused();
        }
        self.unanswered_put = self.state.has_unanswered_put.then_some(group);
        self.warn(verdict.reason, &verdict.message);
    }

    /// Azure did not create the group, or could not start it: the region is checked, and the placement's controller
    /// gets the result.
    fn start_failed(&mut self, attempt: AttemptKind, verdict: &FailureVerdict) {
        self.record_failure(attempt, verdict);
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
                if is_gone(&error) || self.is_leaving() && error.means_nothing_to_delete() =>
            {
                self.failures.reset(AttemptKind::Read);
                self.group_denied(sent_at);
            }
            Err(error) => {
                self.call_failed(AttemptKind::Read, &error);
                if action == PodAction::Discover {
                    let verdict = error.verdict();
                    self.set_waiting(verdict.reason, &verdict.message);
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
        self.mark_owned();
        let is_being_deleted = view.is_being_deleted();
        let started = started_at(&view);
        let previous = self.state.group.clone();
        let was_being_deleted = matches!(previous, GroupPresence::Deleting { .. });
        if let (
            GroupPresence::Exists {
                since,
                has_run: false,
                ..
            },
            Some(started),
        ) = (&previous, started)
            && !is_being_deleted
        {
            self.record_start_latency(*since, started);
            self.context.record_create_result(None, "");
        }
        self.unanswered_put = None;
        let reading = GroupReading {
            sent_at,
            is_deleting: is_being_deleted,
            has_started: started.is_some(),
        };
        self.state.group_seen(reading, now);
        self.record_success(AttemptKind::Read);
        // While the group is being deleted so that another can replace it, the reason and the back-off for the next
        // create stay.
        if !was_being_deleted {
            self.record_success(AttemptKind::Create);
            self.problem = CreateProblem::None;
        }
        if started.is_some() {
            self.failures.reset(AttemptKind::Start);
        }
        // Between two runs of a container the group looks as if it had ended.
        let runs_again = never_restarts(&self.pod) && view.was_restarted();
        self.state.is_alive = runs_again || !view.is_terminal();
        let failed =
            FailureVerdict::from_group(&view).filter(|_| started.is_none() && !was_being_deleted);
        self.observe_events(&view);
        // A pod that waits for a replacement group shows the reason until it has one.
        let is_replaced = was_being_deleted && self.exists && !is_deleting(&self.pod);
        if !is_replaced || self.problem == CreateProblem::None {
            self.group_view = Some(view.without_tags());
        }
        if previous == GroupPresence::Unknown {
            // The pod's images may have changed while no operator ran.
            self.warn_outdated_images();
        }
        if let Some(verdict) = failed {
            tracing::warn!(pod = %self.pod_name(), message = %verdict.message, "a container group did not start");
            self.start_failed(AttemptKind::Start, &verdict);
            self.state.has_failed_to_start = true;
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
            AttemptKind::Delete => "deleting a container group",
            _ => "reading a container group",
        };
        tracing::warn!(pod = %self.pod_name(), error = %error.error_chain(), "{operation}");
        self.context.azure_failed.notify_one();
        if self.is_leaving() && error.failure().is_some_and(|failure| failure.status == 403) {
            self.warn_stays_terminating(error);
        }
        let (problem, is_refused) = (self.problem.clone(), self.state.is_refused);
        // Also after an error that no retry can cure: the operator must not forget a group.
        self.pause_action(attempt.action(), REFERENCE_RETRY_INTERVAL);
        self.record_failure(attempt, &error.verdict());
        (self.problem, self.state.is_refused) = (problem, is_refused);
    }

    /// Queues an Event that says why the pod stays Terminating, and what ends that. Azure also answers 403 for a
    /// deleted resource group if the operator's role was assigned there.
    fn warn_stays_terminating(&mut self, error: &Error) {
        let metadata = &self.pod.metadata;
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
        self.record_failure(AttemptKind::Read, &verdict);
    }

    /// Records whether the group is being deleted: the kubelet API ends its sessions then.
    fn mark_group_deleted(&self, is_deleted: bool) {
        let uid = self.pod.metadata.uid.as_deref().unwrap_or_default();
        self.context.pod_index.set_group_deleted(uid, is_deleted);
    }

    async fn delete_group(&mut self) {
        let context = self.context.clone();
        let _permit = context.group_write_permits.acquire().await;
        let sent_at = Timestamp::now();
        tracing::info!(pod = %self.pod_name(), group = %self.group_name, "deleting a container group");
        self.mark_group_deleted(true);
        match context
            .azure
            .delete(&context.scope, self.group_name.as_str())
            .await
        {
            Ok(deletion) => {
                self.record_success(AttemptKind::Delete);
                self.state.is_stale = false;
                if self.state.has_failed_to_start {
                    // The worker creates a replacement when its back-off is over; until then the pod shows the
                    // reason.
                    (self.state.has_failed_to_start, self.group_view) = (false, None);
                } else {
                    self.problem = CreateProblem::None;
                }
                match deletion {
                    GroupDeletion::NotFound => self.group_denied(sent_at),
                    GroupDeletion::Deleted => {
                        self.state.delete_accepted(sent_at, Timestamp::now());
                        self.group_denied(sent_at);
                    }
                    GroupDeletion::Started => {
                        self.state.delete_accepted(sent_at, Timestamp::now());
                        if self
                            .state
                            .absence
                            .is_within_lag(EvidenceSource::List, Timestamp::now())
                        {
                            // Until the group is deleted, a LIST can still show it, and so end Azure's lag.
                            context.read_queue.request_list();
                        }
                    }
                }
            }
            Err(error) => self.call_failed(AttemptKind::Delete, &error),
        }
    }

    /// Whether the pod is being deleted, or its object is gone.
    fn is_leaving(&self) -> bool {
        !self.exists || is_deleting(&self.pod)
    }

    /// The pod as namespace/name, for logs.
    pub fn pod_name(&self) -> String {
        let text = |text: &Option<String>| text.clone().unwrap_or_default();
        format!(
            "{}/{}",
            text(&self.pod.metadata.namespace),
            text(&self.pod.metadata.name)
        )
    }
}

/// Whether Azure says that the group does not exist. A missing resource group or subscription says nothing about
/// the group.
fn is_gone(error: &Error) -> bool {
    error.verdict().class == FailureClass::Gone
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
