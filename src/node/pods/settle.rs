//! Writing on a pod, once, what belongs on one that is bound here ([`binding`]).
//!
//! In: a pod as it was first seen. Out: at most one accepted patch. It runs beside the pod's keeper and
//! delays nothing. It ends when the API server has taken the patch, whatever becomes of it then: what
//! somebody else takes away again is not fought for.

use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::api::core::v1::Pod;
use kube::Api;
use kube::api::{Patch, PatchParams};

use super::Context;
use crate::node::binding;

/// How many pods are written to at once: their groups' creation goes first.
pub(super) const AT_ONCE: usize = 8;
/// How often the API server may refuse: the pod may have changed meanwhile, but not every time.
const REFUSALS: u32 = 5;
/// How long one call may take.
const PATIENCE: Duration = Duration::from_secs(15);
/// The pauses between tries.
const FIRST_PAUSE: Duration = Duration::from_millis(200);
const LONGEST_PAUSE: Duration = Duration::from_secs(60);

/// What became of a patch.
enum Outcome {
    /// It was taken, or there is no such pod any more.
    Done,
    /// The API server does not want it.
    Refused(String),
    /// There was no answer, or none that says anything about the patch.
    Failed(String),
}

/// Settles the pod.
pub(super) async fn settle(context: Arc<Context>, mut pod: Pod) {
    let (namespace, name) = (pod.metadata.namespace.clone(), pod.metadata.name.clone());
    let (namespace, name) = (namespace.unwrap_or_default(), name.unwrap_or_default());
    let pods: Api<Pod> = Api::namespaced(context.client.clone(), &namespace);
    let (mut pause, mut refusals) = (FIRST_PAUSE, 0);
    while let Some(patch) = binding::patch(&pod, context.deletion_cost) {
        let turn = context.settling.acquire().await;
        let outcome = send(&pods, &name, patch).await;
        drop(turn);
        let why = match outcome {
            Outcome::Done => return,
            Outcome::Refused(why) => {
                refusals += 1;
                why
            }
            Outcome::Failed(why) => why,
        };
        if refusals == REFUSALS {
            tracing::warn!(
                pod = %format!("{namespace}/{name}"), why,
                "a pod's deletion cost and tolerations cannot be written: it will not outlive an \
                 outage of the operator; the operator must be allowed to patch pods"
            );
            return;
        }
        tracing::debug!(pod = %format!("{namespace}/{name}"), why, "settling a pod");
        tokio::time::sleep(pause).await;
        pause = LONGEST_PAUSE.min(pause * 2);
        match tokio::time::timeout(PATIENCE, pods.get_opt(&name)).await {
            Ok(Ok(Some(fresh))) if fresh.metadata.uid == pod.metadata.uid => pod = fresh,
            Ok(Ok(_)) => return,
            // Not known: what was seen last is tried again.
            Ok(Err(_)) | Err(_) => {}
        }
    }
}

async fn send(pods: &Api<Pod>, name: &str, patch: json_patch::Patch) -> Outcome {
    let (params, patch) = (PatchParams::default(), Patch::Json::<()>(patch));
    let sent = pods.patch(name, &params, &patch);
    match tokio::time::timeout(PATIENCE, sent).await {
        Ok(Ok(_)) => Outcome::Done,
        Ok(Err(kube::Error::Api(status))) if status.is_not_found() => Outcome::Done,
        Ok(Err(kube::Error::Api(status))) if (400..429).contains(&status.code) => {
            Outcome::Refused(status.message)
        }
        Ok(Err(error)) => Outcome::Failed(error.to_string()),
        Err(_) => Outcome::Failed("no answer".to_owned()),
    }
}
