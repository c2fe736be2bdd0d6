//! Writes the deletion cost and tolerations on a pod after it is bound ([`post_bind_patch`]).
//!
//! In: a pod from the watch. Out: one accepted patch, and another each time the pod's tolerations are lost
//! (`kubectl apply` of a pod replaces the whole list). The patch runs beside the pod's worker and delays nothing:
//! it waits while container groups are created or deleted, and takes the semaphore for writes that are not urgent.
//! After it has restored the tolerations [`MAX_RESTORES`] times it gives up, because another controller writes the
//! list. The back-off for patches that the API server rejects grows up to ten minutes ([`rejected::MAX_PAUSE`]).
//!
//! The patch has its own field manager. The list of tolerations is atomic, so its last writer owns all of it, and a
//! user who applies the pod again gets a conflict. Users apply only pods without a controller: for those the
//! operator removes its entry from the managed fields after the patch.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::time::Duration;

use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ManagedFieldsEntry;
use kube::Api;
use kube::api::{Patch, PatchParams};
use serde_json::json;

use super::context::MAX_CONCURRENT_GROUP_WRITES;
use super::{PodsContext, is_permanent_rejection};
use crate::k8s::call;
use crate::k8s::rejected;
use crate::node::post_bind_patch;

/// After this many rejections, which take half a minute, a warning is logged: a conflict with a change of the pod
/// explains a few rejections, but not this many.
const MAX_REJECTIONS: u32 = 8;
/// How often, and at most how many times, to check whether groups are being created or deleted. Without this wait,
/// the PUTs of a hundred pods that were bound together took twice as long (measured).
const BUSY_POLL_INTERVAL: Duration = Duration::from_millis(250);
const MAX_BUSY_POLLS: u32 = 120;
/// Timeout of one call.
const CALL_TIMEOUT: Duration = Duration::from_secs(15);
/// The first back-off is short, because the pod's status is being written at the same time, which can make the
/// patch fail; the longest applies to calls without a usable answer.
const MIN_RETRY_INTERVAL: Duration = Duration::from_millis(200);
const MAX_RETRY_INTERVAL: Duration = Duration::from_secs(60);

/// Logged when the API server keeps rejecting the patch.
const NOT_WRITTEN: &str = "a pod's deletion cost and tolerations cannot be written, so the pod will not \
    survive an outage of the operator: allow the operator to patch pods";

/// The field manager of the patch.
const FIELD_MANAGER: &str = "burstpool-binding";
/// How often lost tolerations are restored, for each pod.
const MAX_RESTORES: u32 = 5;
/// The delay before the first restore; each later restore waits four times as long as the one before.
const RESTORE_DELAY: Duration = Duration::from_secs(1);
/// How many times to try to remove the operator's entry from the managed fields.
const MAX_RELEASE_ATTEMPTS: u32 = 4;

/// The state of the patch of one pod.
#[derive(Debug, Default)]
pub(super) struct PostBindState {
    is_in_progress: AtomicBool,
    /// How many patches were accepted.
    accepted_patches: AtomicU32,
}

/// The result of a patch.
enum PatchResult {
    /// The API server accepted it; the pod afterwards.
    Applied(Box<Pod>),
    /// The pod does not exist.
    Gone,
    /// The API server rejected it; its message.
    Rejected(String),
    /// There was no answer, or an error that says nothing about the patch.
    Failed(String),
}

/// One pod to patch.
struct PostBindPod {
    context: Arc<PodsContext>,
    state: Arc<PostBindState>,
    pods: Api<Pod>,
    name: String,
    uid: Option<String>,
}

/// Patches the pod if it needs a patch; `None` if it needs none, or a patch is under way. The future holds only
/// what the patch needs of the pod, and boxes the calls: without that, each of a thousand waiting pods takes 6 KB
/// (measured).
pub(super) fn patch_pod(
    context: &Arc<PodsContext>,
    state: &Arc<PostBindState>,
    pod: &Pod,
) -> Option<impl Future<Output = ()> + use<>> {
    let accepted = state.accepted_patches.load(Ordering::Relaxed);
    if accepted > MAX_RESTORES {
        return None;
    }
    let patch = needed_patch(context, accepted, pod)?;
    if state.is_in_progress.swap(true, Ordering::Relaxed) {
        return None;
    }
    let metadata = &pod.metadata;
    let namespace = metadata.namespace.as_deref().unwrap_or_default();
    let target = PostBindPod {
        context: context.clone(),
        state: state.clone(),
        pods: Api::namespaced(context.client.clone(), namespace),
        name: metadata.name.clone().unwrap_or_default(),
        uid: metadata.uid.clone(),
    };
    Some(async move {
        target
            .write_until_applied((accepted == 0).then_some(patch))
            .await;
        target.state.is_in_progress.store(false, Ordering::Relaxed);
    })
}

/// The patch that the pod needs after `accepted` accepted patches.
fn needed_patch(context: &PodsContext, accepted: u32, pod: &Pod) -> Option<json_patch::Patch> {
    if accepted == 0 {
        post_bind_patch::patch(pod, context.settings().deletion_cost)
    } else {
        post_bind_patch::tolerations_patch(pod)
    }
}

impl PostBindPod {
    /// Sends the patch; without one, waits, and sends the patch that the pod needs then.
    async fn write_until_applied(&self, mut patch: Option<json_patch::Patch>) {
        let accepted = self.state.accepted_patches.load(Ordering::Relaxed);
        if accepted > 0 {
            tokio::time::sleep(RESTORE_DELAY * 4_u32.pow(accepted - 1)).await;
        }
        let (mut pause, mut rejections) = (MIN_RETRY_INTERVAL, 0);
        loop {
            let Some(sent) = &patch else {
                // The watch may be behind the API server.
                match Box::pin(self.still_needed_patch(accepted)).await {
                    Ok(Some(needed)) => patch = Some(needed),
                    Ok(None) => return,
                    Err(()) => tokio::time::sleep(MAX_RETRY_INTERVAL).await,
                }
                continue;
            };
            wait_until_idle(&self.context).await;
            let permit = self.context.low_priority_write_permit.acquire().await;
            let result = Box::pin(self.send(sent)).await;
            drop(permit);
            let (why, max_pause) = match result {
                PatchResult::Applied(pod) => {
                    return Box::pin(self.patch_applied(accepted, pod)).await;
                }
                PatchResult::Gone => return,
                PatchResult::Failed(why) => (why, MAX_RETRY_INTERVAL),
                PatchResult::Rejected(why) => {
                    rejections += 1;
                    (why, rejected::MAX_PAUSE)
                }
            };
            if rejections == MAX_REJECTIONS {
                tracing::warn!(why, "{NOT_WRITTEN}");
            }
            tracing::debug!(why, "cannot write a deletion cost and tolerations");
            tokio::time::sleep(pause).await;
            if self.is_forgotten() {
                return;
            }
            pause = max_pause.min(pause * 2);
            // If the pod cannot be read, the same patch is sent again.
            match Box::pin(self.still_needed_patch(accepted)).await {
                Ok(Some(needed)) => patch = Some(needed),
                Ok(None) => return,
                Err(()) => {}
            }
        }
    }

    /// Whether the watch has meanwhile reported that the pod is gone: the pod controller drops its copy then.
    fn is_forgotten(&self) -> bool {
        Arc::strong_count(&self.state) == 1
    }

    /// The API server accepted the patch.
    async fn patch_applied(&self, accepted: u32, pod: Box<Pod>) {
        self.state
            .accepted_patches
            .store(accepted + 1, Ordering::Relaxed);
        if accepted == MAX_RESTORES {
            tracing::warn!(
                "another client keeps removing the pod's tolerations: it will not survive an outage"
            );
        }
        let mut owners = pod.metadata.owner_references.iter().flatten();
        if owners.all(|owner| owner.controller != Some(true)) {
            self.release_ownership(*pod).await;
        }
    }

    /// Removes the operator's entry from the managed fields, so that a user can apply the pod again.
    async fn release_ownership(&self, pod: Pod) {
        let mut pod = Some(pod);
        for _ in 0..MAX_RELEASE_ATTEMPTS {
            let Some(patch) = pod.as_ref().and_then(release_patch) else {
                return;
            };
            let _permit = self.context.low_priority_write_permit.acquire().await;
            if let PatchResult::Applied(_) | PatchResult::Gone = self.send(&patch).await {
                return;
            }
            // The API server rejected it, probably because another client wrote the pod meanwhile.
            pod = self.current_pod().await.ok().flatten();
        }
    }

    /// The patch that the pod needs as it is now.
    async fn still_needed_patch(&self, accepted: u32) -> Result<Option<json_patch::Patch>, ()> {
        let pod = self.current_pod().await?;
        Ok(pod.and_then(|pod| needed_patch(&self.context, accepted, &pod)))
    }

    /// Reads the pod; `None` if it is gone.
    async fn current_pod(&self) -> Result<Option<Pod>, ()> {
        let found = call::find(CALL_TIMEOUT, &self.pods, &self.name).await;
        let same = |pod: &Pod| pod.metadata.uid == self.uid;
        found.map(|pod| pod.filter(same)).map_err(|_| ())
    }

    async fn send(&self, patch: &json_patch::Patch) -> PatchResult {
        let params = PatchParams {
            field_manager: Some(FIELD_MANAGER.to_owned()),
            ..PatchParams::default()
        };
        let patch = Patch::Json::<()>(patch.clone());
        match call::with_timeout(CALL_TIMEOUT, self.pods.patch(&self.name, &params, &patch)).await {
            Ok(pod) => PatchResult::Applied(Box::new(pod)),
            Err(kube::Error::Api(status)) if call::is_object_not_found(&status) => {
                PatchResult::Gone
            }
            Err(kube::Error::Api(status)) if is_permanent_rejection(&status) => {
                PatchResult::Rejected(status.message)
            }
            Err(error) => PatchResult::Failed(error.to_string()),
        }
    }
}

/// The patch that removes the operator's entry from the managed fields; `None` if there is no entry.
fn release_patch(pod: &Pod) -> Option<json_patch::Patch> {
    let entries = pod.metadata.managed_fields.as_ref()?;
    let ours = |entry: &ManagedFieldsEntry| entry.manager.as_deref() == Some(FIELD_MANAGER);
    let path = format!("/metadata/managedFields/{}", entries.iter().position(ours)?);
    let patch = json!([
        {"op": "test", "path": "/metadata/uid", "value": pod.metadata.uid},
        {"op": "test", "path": format!("{path}/manager"), "value": FIELD_MANAGER},
        {"op": "remove", "path": path},
    ]);
    Some(serde_json::from_value(patch).expect("the operations above are a JSON Patch"))
}

/// Returns when no group of the node is being created or deleted, or after [`MAX_BUSY_POLLS`] checks (30 s).
async fn wait_until_idle(context: &PodsContext) {
    for _ in 0..MAX_BUSY_POLLS {
        tokio::time::sleep(BUSY_POLL_INTERVAL).await;
        if context.group_write_permits.available_permits() == MAX_CONCURRENT_GROUP_WRITES {
            return;
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::AtomicU16;

    use kube::client::Body;

    use super::super::fixtures::context;
    use super::*;

    /// A pod that lacks a deletion cost and tolerations, a context whose API server answers a patch of it with
    /// `code`, and the number of patches that were sent.
    fn rejecting(code: &Arc<AtomicU16>) -> (Pod, Arc<PodsContext>, Arc<AtomicU16>) {
        let pod = json!({
            "metadata": {"namespace": "shop", "name": "web", "uid": "1"},
            "spec": {"containers": []},
        });
        let (code, sent) = (code.clone(), Arc::new(AtomicU16::new(0)));
        let (counted, answered) = (sent.clone(), pod.clone());
        let service = tower::service_fn(move |request: http::Request<Body>| {
            let code = if request.method() == http::Method::PATCH {
                counted.fetch_add(1, Ordering::Relaxed);
                code.load(Ordering::Relaxed)
            } else {
                200
            };
            let status = json!({"kind": "Status", "status": "Failure", "reason": "", "message": "no", "code": code});
            let body = if code < 400 { &answered } else { &status };
            let answer = http::Response::builder().status(code);
            std::future::ready(answer.body(Body::from(body.to_string().into_bytes())))
        });
        let client = kube::Client::new(service, "default");
        let pod = serde_json::from_value(pod).expect("a pod");
        (pod, Arc::new(context(client)), sent)
    }

    #[tokio::test(start_paused = true)]
    async fn a_denied_patch_is_sent_less_and_less_often_until_it_is_allowed() {
        let code = Arc::new(AtomicU16::new(403));
        let (pod, context, sent) = rejecting(&code);
        let state = Arc::default();
        let patching = patch_pod(&context, &state, &pod).expect("it lacks something");
        let patching = tokio::spawn(patching);
        let minutes = |minutes: u64| tokio::time::sleep(Duration::from_secs(60 * minutes));
        minutes(60).await;
        let in_an_hour = sent.swap(0, Ordering::Relaxed);
        assert!((8..=20).contains(&in_an_hour), "{in_an_hour}");
        assert!(
            patch_pod(&context, &state, &pod).is_none(),
            "it is under way"
        );
        code.store(200, Ordering::Relaxed);
        minutes(15).await;
        assert!(patching.is_finished());
        assert!(sent.load(Ordering::Relaxed) >= 1);
    }

    #[tokio::test(start_paused = true)]
    async fn no_patch_is_sent_after_the_pod_is_gone() {
        let (pod, context, sent) = rejecting(&Arc::new(AtomicU16::new(403)));
        let state = Arc::default();
        let patching = patch_pod(&context, &state, &pod).expect("it lacks something");
        let patching = tokio::spawn(patching);
        tokio::time::sleep(Duration::from_secs(2)).await;
        assert!(sent.swap(0, Ordering::Relaxed) > 0);
        drop(state);
        tokio::time::sleep(Duration::from_secs(1200)).await;
        assert!(patching.is_finished());
        assert_eq!(sent.load(Ordering::Relaxed), 0);
    }

    fn size<F>(
        _: impl for<'a> FnOnce(&'a Arc<PodsContext>, &'a Arc<PostBindState>, &'a Pod) -> Option<F>,
    ) -> usize {
        size_of::<F>()
    }

    #[test]
    fn a_pod_that_waits_for_its_patch_is_small() {
        let bytes = size(patch_pod);
        assert!(bytes < 1024, "{bytes} bytes for each pod");
    }
}
