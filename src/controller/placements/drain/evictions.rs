//! The evictions of a placement's pods.
//!
//! In: the pods on its node, and its [`EvictionPacer`]. Out: calls of the Eviction API for the pods that are due;
//! the pods that are left, as text.

use std::collections::HashMap;
use std::time::Duration;

use k8s_openapi::api::core::v1::Pod;
use kube::{Api, ResourceExt as _};
use tokio::time::Instant;

use super::PlacementDrain;
use crate::controller::placements::PlacementId;
use crate::controller::placements::drain_pace::{EvictionPacer, EvictionRejection};
use crate::k8s::call;
use crate::k8s::call::ObjectTarget;

/// The timeout of an eviction: the API server reads and writes the `PodDisruptionBudget` and the pod.
const CALL_TIMEOUT: Duration = Duration::from_secs(15);

/// The API server's answer to an eviction.
enum EvictionAnswer {
    /// The pod is being deleted.
    Accepted,
    /// The pod does not exist now.
    NotFound,
    /// The pod stays, for this reason, with this message.
    Rejected(EvictionRejection, String),
}

impl PlacementDrain {
    /// Evicts those of a placement's pods that are due. Returns what is left of them, as text.
    pub(super) async fn evict_pods(&self, id: &PlacementId, pods: &[Pod]) -> Vec<String> {
        // A placement without tasks has no record of evictions, and no pod worker that would delete the container
        // groups of evicted pods.
        let Some(pacer) = self.registry.eviction_pacer(id).await else {
            return pods.iter().map(describe_pod).collect();
        };
        let mut pacer = pacer.lock().await;
        let not_found = self.evict_due_pods(pods, &mut pacer).await;
        let left = pods.iter().filter(|pod| {
            let uid = pod.metadata.uid.as_deref();
            uid.is_none_or(|uid| !not_found.contains(&uid))
        });
        let left = left.map(|pod| {
            let uid = pod.metadata.uid.as_deref();
            match uid.and_then(|uid| pacer.rejection_message(uid)) {
                Some(message) => format!("{} ({message})", describe_pod(pod)),
                None => describe_pod(pod),
            }
        });
        left.collect()
    }

    /// Evicts the pods that are due, each at most once: after a slow answer the first one would be due again.
    /// Returns the UIDs of pods that do not exist now.
    async fn evict_due_pods<'a>(&self, pods: &'a [Pod], pacer: &mut EvictionPacer) -> Vec<&'a str> {
        let uids: Vec<&str> = pods
            .iter()
            .filter_map(|pod| pod.metadata.uid.as_deref())
            .collect();
        let mut evictable: HashMap<&str, (&Pod, ObjectTarget)> = pods
            .iter()
            .filter(|pod| pod.metadata.deletion_timestamp.is_none())
            .filter_map(|pod| {
                let target = ObjectTarget::from_metadata(&pod.metadata)?;
                Some((pod.metadata.uid.as_deref()?, (pod, target)))
            })
            .collect();
        pacer.retain(|uid| evictable.contains_key(uid));
        let mut not_found = Vec::new();
        loop {
            let untried = uids.iter().copied();
            let untried: Vec<&str> = untried.filter(|uid| evictable.contains_key(uid)).collect();
            let due = pacer.next_due(&untried, Instant::now());
            let Some((uid, (pod, target))) = due.and_then(|uid| evictable.remove_entry(uid)) else {
                return not_found;
            };
            match self.evict(pod, &target).await {
                EvictionAnswer::Accepted => pacer.record_accepted(uid),
                EvictionAnswer::NotFound => not_found.push(uid),
                EvictionAnswer::Rejected(cause, message) => {
                    pacer.record_rejected(uid, cause, message, Instant::now());
                }
            }
        }
    }

    async fn evict(&self, pod: &Pod, target: &ObjectTarget) -> EvictionAnswer {
        let namespace = pod.namespace().unwrap_or_default();
        let api: Api<Pod> = Api::namespaced(self.client_no_retry.clone(), &namespace);
        match call::evict(CALL_TIMEOUT, &api, target).await {
            Ok(()) => EvictionAnswer::Accepted,
            Err(kube::Error::Api(status)) if call::is_object_not_found(&status) => {
                EvictionAnswer::NotFound
            }
            Err(kube::Error::Api(status)) => {
                let cause = EvictionRejection::from_status(&status, &namespace);
                EvictionAnswer::Rejected(cause, status.message.clone())
            }
            Err(error) => EvictionAnswer::Rejected(EvictionRejection::Other, error.to_string()),
        }
    }
}

fn describe_pod(pod: &Pod) -> String {
    let (namespace, name) = (pod.namespace().unwrap_or_default(), pod.name_any());
    format!("pod {namespace}/{name}")
}
