//! The pod controller of a node: it starts a worker for each pod.
//!
//! In: the watch of the node's pods. Out: a running worker per pod, which receives each change of its pod and the
//! removal of its object.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use futures::StreamExt as _;
use k8s_openapi::api::core::v1::Pod;
use kube::runtime::{WatchStreamExt as _, watcher};
use kube::{Api, ResourceExt as _};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tracing::{Instrument as _, Span};

use super::post_bind::PostBindState;
use super::worker::PodWorker;
use super::{PodInfo, PodsContext, post_bind};
use crate::aci::names::GroupName;
use crate::burst::PodFacts;
use crate::k8s::watch_health::report_errors;
use crate::node::watched_pod::WatchedPod;
use crate::telemetry;

/// An update of a pod. The worker takes it out of the channel, so that each pod is in memory once.
#[derive(Debug, Default)]
pub(super) enum PodUpdate {
    /// No update.
    #[default]
    None,
    /// The pod changed; this is its new state.
    Changed(Box<WatchedPod>),
    /// The pod's object is gone.
    Deleted,
}

/// Starts and informs the workers of the node's pods. The workers are kept by pod UID.
pub(super) struct PodController {
    pub context: Arc<PodsContext>,
    pub cancel: CancellationToken,
    pub tasks: TaskTracker,
    pub workers: HashMap<String, Arc<watch::Sender<PodUpdate>>>,
    /// The state of the patch after binding, by pod UID.
    pub post_bind_states: HashMap<String, Arc<PostBindState>>,
}

impl PodController {
    /// Watches the node's pods, and starts and informs their workers. Runs until the watch ends, which is never.
    pub async fn run(&mut self) {
        self.context.services.wait_until_ready().await;
        let pods: Api<WatchedPod> = Api::all(self.context.client.clone());
        let on_this_node = format!("spec.nodeName={}", self.context.owner.node);
        let config = watcher::Config::default().fields(&on_this_node);
        let events = watcher(pods, config).default_backoff();
        let mut events = Box::pin(report_errors("a node's pods", events));
        let mut listed: HashSet<String> = HashSet::new();
        while let Some(event) = events.next().await {
            match event {
                Ok(watcher::Event::Init) => listed.clear(),
                Ok(watcher::Event::InitApply(pod)) => {
                    listed.extend(pod.pod.metadata.uid.clone());
                    self.pod_applied(pod);
                }
                Ok(watcher::Event::InitDone) => {
                    let gone = self.workers.keys().filter(|uid| !listed.contains(*uid));
                    for uid in gone.cloned().collect::<Vec<_>>() {
                        self.pod_deleted(&uid);
                    }
                    self.context
                        .pod_facts
                        .lock()
                        .retain(|uid, _| listed.contains(uid));
                    self.post_bind_states.retain(|uid, _| listed.contains(uid));
                    self.context.pods_listed.send_replace(true);
                }
                Ok(watcher::Event::Apply(pod)) => self.pod_applied(pod),
                Ok(watcher::Event::Delete(pod)) => {
                    if let Some(uid) = &pod.pod.metadata.uid {
                        self.pod_deleted(uid);
                    }
                }
                Err(_) => continue,
            }
            self.context.pods_changed.notify_one();
        }
    }

    fn pod_applied(&mut self, observed: WatchedPod) {
        let Some(uid) = observed.pod.metadata.uid.clone() else {
            return;
        };
        if let Some(error) = &observed.decode_error {
            telemetry::record_unreadable("Pod", &namespaced_name(&observed.pod), error);
        } else {
            self.start_post_bind(&uid, &observed.pod);
        }
        let cluster = &self.context.owner.cluster;
        if let Some(info) = PodInfo::from_pod(cluster, &observed.pod) {
            self.context.pod_index.insert(info);
        }
        if let Some(facts) = PodFacts::from_pod(&observed.pod) {
            self.context
                .pod_facts
                .lock()
                .insert(uid.clone(), Arc::new(facts));
        }
        match self.workers.get(&uid) {
            Some(updates) if !updates.is_closed() => {
                updates.send_replace(PodUpdate::Changed(Box::new(observed)));
            }
            _ => self.start_worker(uid, observed),
        }
    }

    fn start_worker(&mut self, uid: String, observed: WatchedPod) {
        self.workers.retain(|_, updates| !updates.is_closed());
        let (sender, receiver) = watch::channel(PodUpdate::None);
        let sender = Arc::new(sender);
        let name = GroupName::from_pod(&self.context.owner.cluster, &observed.pod);
        let listed = self.context.watch_group(&uid, &name);
        let (context, span) = (self.context.clone(), pod_span(&observed.pod, &name));
        let updates = (sender.clone(), receiver);
        let worker = Box::new(PodWorker::new(context, observed, name, updates, listed));
        let (run, cancel) = (worker.run().instrument(span), self.cancel.clone());
        self.tasks
            .spawn(async move { cancel.run_until_cancelled(run).await });
        self.workers.insert(uid, sender);
    }

    /// Writes the deletion cost and the tolerations on the pod, in a task of its own.
    fn start_post_bind(&mut self, uid: &str, pod: &Pod) {
        let state = self.post_bind_states.entry(uid.to_owned()).or_default();
        if let Some(patch) = post_bind::patch_pod(&self.context, state, pod) {
            let name = GroupName::from_pod(&self.context.owner.cluster, pod);
            let (patch, cancel) = (patch.instrument(pod_span(pod, &name)), self.cancel.clone());
            self.tasks
                .spawn(async move { cancel.run_until_cancelled(patch).await });
        }
    }

    /// Records that the pod's object is gone. Its worker ends when its group is gone, too.
    fn pod_deleted(&mut self, uid: &str) {
        self.context.pod_index.remove(uid);
        self.post_bind_states.remove(uid);
        self.context.pod_facts.lock().remove(uid);
        if let Some(updates) = self.workers.get(uid) {
            updates.send_replace(PodUpdate::Deleted);
        }
    }
}

/// The pod as `namespace/name`.
fn namespaced_name(pod: &Pod) -> String {
    format!("{}/{}", pod.namespace().unwrap_or_default(), pod.name_any())
}

/// The span of a pod's log lines.
fn pod_span(pod: &Pod, group: &GroupName) -> Span {
    let (pod, group) = (namespaced_name(pod), group.as_str());
    tracing::error_span!("pod", pod, group)
}
