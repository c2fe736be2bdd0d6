//! Writes of pods: patches in the version that the plan was made from.
//!
//! In: a pod and a patch. Out: the API server's answer, as a [`PodWriteResult`]; the patched pod goes to the cache.

use futures::StreamExt as _;
use k8s_openapi::api::core::v1::Pod;
use kube::Api;
use kube::api::{Patch, PatchParams};
use kube::core::Status;

use super::{CALL_TIMEOUT, Executor, ExecutorParts, MAX_CONCURRENT_CALLS};
use crate::api::names::{
    GRANTED_UID_ANNOTATION, LEADER_FIELD_MANAGER, NOT_KEPT_ANNOTATION, POOL_LABEL,
};
use crate::burst::facts::pod::provider_taint;
use crate::burst::{PodFacts, PodReference, PodWriteResult};
use crate::controller::grants::patches::GrantContent;
use crate::k8s::call;
use crate::k8s::rejected::is_rejected;

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

/// Patches a pod with `grant`. The answer shows what mutating admission policies and webhooks left of
/// the patch.
pub(in crate::controller::grants) async fn grant_pod(
    parts: &ExecutorParts,
    id: &PodReference,
    patch: &Patch<()>,
    grant: GrantContent<'_>,
) -> PodWriteResult {
    let pod = match send_patch(parts, id, patch).await {
        Ok(pod) => pod,
        Err(answer) => return answer,
    };
    let facts = PodFacts::from_pod(&pod);
    parts.cache.update_pod(pod);
    facts.map_or(PodWriteResult::Granted, |facts| applied(&facts, grant))
}

/// The result of a grant that left the pod with these facts.
fn applied(facts: &PodFacts, grant: GrantContent<'_>) -> PodWriteResult {
    let removed = |what: &str| {
        format!(
            "a mutating admission policy or webhook removed {what} from the grant: exempt from it what \
             burstpool's service account writes"
        )
    };
    let seen = facts.grant.as_ref().filter(|seen| seen.pool == grant.pool);
    if let Some(seen) = seen {
        if seen.not_kept == *grant.not_kept {
            return PodWriteResult::Granted;
        }
        let mark = format!("the annotation {NOT_KEPT_ANNOTATION}, or changed it,");
        PodWriteResult::Unmarked(removed(&mark))
    } else if facts
        .node_constraints
        .tolerates(&provider_taint(grant.pool))
    {
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
        _ if is_rejected(&status) => PodWriteResult::Denied(status.message),
        _ => PodWriteResult::Lost,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::api::LossSet;

    /// What is left of a grant that loses `fsGroup`, with this annotation of losses.
    fn left(not_kept: &Value) -> PodWriteResult {
        let mut pod = json!({
            "metadata": {"namespace": "shop", "name": "web", "uid": "u", "resourceVersion": "7",
                "creationTimestamp": "2026-01-01T00:00:00Z",
                "labels": {"burstpool.io/pool": "peak"},
                "annotations": {"burstpool.io/granted-uid": "u", "burstpool.io/workload": "web"}},
            "spec": {"containers": [], "tolerations": [
                {"key": "virtual-kubelet.io/provider", "value": "peak", "effect": "NoSchedule"}]},
        });
        if !not_kept.is_null() {
            pod["metadata"]["annotations"]["burstpool.io/not-kept"] = not_kept.clone();
        }
        let pod: Pod = serde_json::from_value(pod).expect("a pod");
        let facts = PodFacts::from_pod(&pod).expect("facts");
        let losses = LossSet::from_annotation("fsGroup");
        let grant = GrantContent {
            pool: "peak",
            workload: "web",
            not_kept: &losses,
            now: jiff::Timestamp::UNIX_EPOCH,
        };
        applied(&facts, grant)
    }

    #[test]
    fn a_grant_without_its_losses_is_incomplete() {
        assert_eq!(left(&json!("fsGroup")), PodWriteResult::Granted);
        for changed in [json!(null), json!("fsGroup,seccomp")] {
            let result = left(&changed);
            let names_it = |why: &str| why.contains("burstpool.io/not-kept");
            assert!(
                matches!(&result, PodWriteResult::Unmarked(why) if names_it(why)),
                "{result:?}"
            );
        }
    }
}
