//! Writing on a pod, once, what belongs on one that is bound here ([`binding`]).
//!
//! In: a pod as it was first seen. Out: at most one accepted patch. It runs beside the pod's keeper and
//! delays nothing: it gives way to groups and waits in the quiet lane. It ends when the API server has
//! taken the patch, whatever becomes of it then: what somebody else takes away is not fought for.

use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::api::core::v1::Pod;
use kube::Api;
use kube::api::{Patch, PatchParams};

use super::{AT_ONCE, Context, is_refused};
use crate::node::binding;

/// How often the API server may refuse, which takes half a minute: the pod may have changed meanwhile, but
/// not every time.
const REFUSALS: u32 = 8;
/// Groups come first: how often it is looked whether any are being created or deleted, and how often at
/// most. A hundred pods at once had their PUTs twice as late without (measured).
const LOOK_AGAIN: Duration = Duration::from_millis(250);
const LOOKS: u32 = 120;
/// How long one call may take.
const PATIENCE: Duration = Duration::from_secs(15);
/// The pauses between tries.
const FIRST_PAUSE: Duration = Duration::from_millis(200);
const LONGEST_PAUSE: Duration = Duration::from_secs(60);

/// What is logged when the API server goes on refusing.
const GIVEN_UP: &str = "a pod's deletion cost and tolerations cannot be written, so it will not outlive \
    an outage of the operator: the operator must be allowed to patch pods";

/// What became of a patch.
enum Outcome {
    /// It was taken, or there is no such pod any more.
    Done,
    /// The API server does not want it.
    Refused(String),
    /// There was no answer, or none that says anything about the patch.
    Failed(String),
}

/// Settling the pod; nothing if it needs nothing. Of the pod only what is to be written is kept, and a call
/// is on the heap only while it is made: a thousand that wait at once are small, 6 KB each else (measured).
pub(super) fn settle(
    context: &Arc<Context>,
    pod: &Pod,
) -> Option<impl Future<Output = ()> + use<>> {
    let patch = binding::patch(pod, context.deletion_cost)?;
    let (context, metadata) = (context.clone(), &pod.metadata);
    let namespace = metadata.namespace.clone().unwrap_or_default();
    let (name, uid) = (
        metadata.name.clone().unwrap_or_default(),
        metadata.uid.clone(),
    );
    Some(async move {
        let pods: Api<Pod> = Api::namespaced(context.client.clone(), &namespace);
        let (mut patch, mut pause, mut refusals) = (patch, FIRST_PAUSE, 0);
        loop {
            give_way(&context).await;
            let turn = context.quiet.acquire().await;
            let outcome = Box::pin(send(&pods, &name, &patch)).await;
            drop(turn);
            let why = match outcome {
                Outcome::Done => return,
                Outcome::Failed(why) => why,
                Outcome::Refused(why) => {
                    refusals += 1;
                    why
                }
            };
            let pod = format!("{namespace}/{name}");
            if refusals == REFUSALS {
                return tracing::warn!(pod, why, "{GIVEN_UP}");
            }
            tracing::debug!(pod, why, "writing a deletion cost and tolerations");
            tokio::time::sleep(pause).await;
            pause = LONGEST_PAUSE.min(pause * 2);
            let fresh = tokio::time::timeout(PATIENCE, Box::pin(pods.get_opt(&name))).await;
            // If nobody knows how the pod is, what was to be written is tried again.
            let Ok(Ok(fresh)) = fresh else { continue };
            let same = fresh.filter(|fresh| fresh.metadata.uid == uid);
            match same.and_then(|pod| binding::patch(&pod, context.deletion_cost)) {
                Some(needed) => patch = needed,
                None => return,
            }
        }
    })
}

/// Returns when no group is being created or deleted, or when that does not come to an end.
async fn give_way(context: &Context) {
    for _ in 0..LOOKS {
        tokio::time::sleep(LOOK_AGAIN).await;
        if context.turns.available_permits() == AT_ONCE {
            return;
        }
    }
}

async fn send(pods: &Api<Pod>, name: &str, patch: &json_patch::Patch) -> Outcome {
    let (params, patch) = (PatchParams::default(), Patch::Json::<()>(patch.clone()));
    let sent = pods.patch(name, &params, &patch);
    match tokio::time::timeout(PATIENCE, sent).await {
        Ok(Ok(_)) => Outcome::Done,
        Ok(Err(kube::Error::Api(status))) if status.is_not_found() => Outcome::Done,
        Ok(Err(kube::Error::Api(status))) if is_refused(&status) => {
            Outcome::Refused(status.message)
        }
        Ok(Err(error)) => Outcome::Failed(error.to_string()),
        Err(_) => Outcome::Failed("no answer".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn size<F>(_: impl for<'a> FnOnce(&'a Arc<Context>, &'a Pod) -> Option<F>) -> usize {
        size_of::<F>()
    }

    #[test]
    fn a_pod_that_waits_to_be_settled_is_small() {
        let bytes = size(settle);
        assert!(bytes < 1024, "{bytes} bytes for each pod");
    }
}
