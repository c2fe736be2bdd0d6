//! Writes of pods: patches in the version that the plan was made from.
//!
//! In: a pod and a patch. Out: the API server's answer, as a [`PodWriteResult`]; the patched pod goes to the cache.

use futures::StreamExt as _;
use k8s_openapi::api::core::v1::Pod;
use kube::Api;
use kube::api::{Patch, PatchParams};
use kube::core::Status;

use super::{CALL_TIMEOUT, Executor, ExecutorParts, MAX_CONCURRENT_CALLS};
use crate::api::names::{GRANTED_UID_ANNOTATION, LEADER_FIELD_MANAGER, POOL_LABEL};
use crate::burst::facts::pod::provider_taint;
use crate::burst::{PodFacts, PodReference, PodWriteResult};
use crate::k8s::call;
use crate::k8s::refused::is_refused;

impl Executor {
    /// Sends each pending pod of `targets` the patch that `patch` makes for it. Returns the targets with the API
    /// server's answers; a pod that is no longer pending counts as a conflict.
    pub(super) async fn patch_waiting<'t, T: Sync>(
        &self,
        targets: &'t [T],
        id: fn(&T) -> &PodReference,
        patch: impl Fn(&Pod, &T) -> Patch<()> + Sync,
    ) -> Vec<(&'t T, PodWriteResult)> {
        let sent = futures::stream::iter(targets).map(async |target| {
            let id = id(target);
            let Some(pod) = self.snapshot.waiting_pod(&id.uid) else {
                return (target, PodWriteResult::Conflict);
            };
            let patch = patch(&pod, target);
            (target, patch_pod(&self.parts, id, &patch).await)
        });
        sent.buffer_unordered(MAX_CONCURRENT_CALLS).collect().await
    }
}

/// Patches a pod, and updates the cache with the answer.
async fn patch_pod(parts: &ExecutorParts, id: &PodReference, patch: &Patch<()>) -> PodWriteResult {
    match send_patch(parts, id, patch).await {
        Ok(pod) => {
            parts.cache.update_pod(pod);
            PodWriteResult::Granted
        }
        Err(answer) => answer,
    }
}

/// Patches a pod with a grant of `pool`. The answer shows what mutating admission policies and webhooks left of
/// the patch.
pub(in crate::controller::grants) async fn grant_pod(
    parts: &ExecutorParts,
    id: &PodReference,
    patch: &Patch<()>,
    pool: &str,
) -> PodWriteResult {
    let pod = match send_patch(parts, id, patch).await {
        Ok(pod) => pod,
        Err(answer) => return answer,
    };
    let facts = PodFacts::from_pod(&pod);
    parts.cache.update_pod(pod);
    match facts {
        Some(facts) if !facts.is_granted_by(pool) => incomplete_grant(&facts, pool),
        _ => PodWriteResult::Granted,
    }
}

/// The result of a grant that the API server applied only in part.
fn incomplete_grant(facts: &PodFacts, pool: &str) -> PodWriteResult {
    let removed = |what: &str| {
        format!(
            "a mutating admission policy or webhook removed {what} from the grant: exempt from it what \
             burstpool's service account writes"
        )
    };
    if facts.node_constraints.tolerates(&provider_taint(pool)) {
        let marks = format!("the label {POOL_LABEL} or the annotation {GRANTED_UID_ANNOTATION}");
        PodWriteResult::Unmarked(removed(&marks))
    } else {
        PodWriteResult::Denied(removed("the toleration"))
    }
}

async fn send_patch(
    parts: &ExecutorParts,
    id: &PodReference,
    patch: &Patch<()>,
) -> Result<Pod, PodWriteResult> {
    let pods: Api<Pod> = Api::namespaced(parts.client.clone(), &id.namespace);
    let manager = leader_patch_params();
    let sent = pods.patch(&id.name, &manager, patch);
    match tokio::time::timeout(CALL_TIMEOUT, sent).await {
        Ok(Ok(pod)) => Ok(pod),
        Ok(Err(kube::Error::Api(status))) => Err(answer_for_error(*status)),
        Ok(Err(_)) | Err(_) => Err(PodWriteResult::Lost),
    }
}

pub(super) fn leader_patch_params() -> PatchParams {
    PatchParams {
        field_manager: Some(LEADER_FIELD_MANAGER.to_owned()),
        ..PatchParams::default()
    }
}

/// Converts the error of a patch. A 404 from a proxy says nothing about the pod.
pub(in crate::controller::grants) fn answer_for_error(status: Status) -> PodWriteResult {
    match status.code {
        404 if call::is_object_not_found(&status) => PodWriteResult::Gone,
        404 => PodWriteResult::Lost,
        409 => PodWriteResult::Conflict,
        _ if is_refused(&status) => PodWriteResult::Denied(status.message),
        _ => PodWriteResult::Lost,
    }
}
