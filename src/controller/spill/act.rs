//! Carrying out a plan: claim, count, reserve, then grant (design D1 and D1a).
//!
//! In: a [`Plan`]. Out: writes to the pool's status and to pods, and their answers, told to [`Memory`]
//! and to the stores. Nothing is decided here; what was not done is planned again.

use std::time::Duration;

use futures::StreamExt as _;
use jiff::Timestamp;
use k8s_openapi::api::core::v1::Pod;
use kube::Api;
use kube::api::{DeleteParams, ListParams, Patch, PatchParams, Preconditions};
use serde_json::json;

use super::stores::{Stores, View};
use super::{Pool, grant};
use crate::api::names::POOL_LABEL;
use crate::api::{BurstPool, Reservation};
use crate::burst::plan::{First, Stamp};
use crate::burst::rescue::{Action, Rescue};
use crate::burst::{Answer, Decision, Plan, PodFacts, PodRef};

/// The field manager of what a leader writes to be sure of itself.
const FIELD_MANAGER: &str = "burstpool-leader";
/// How many pods are patched at once.
const AT_ONCE: usize = 16;
/// How long a call may take.
const PATIENCE: Duration = Duration::from_secs(5);

/// What is needed to act for one pool.
pub(super) struct Act<'a> {
    pub client: &'a kube::Client,
    pub stores: &'a Stores,
    pub view: &'a View,
    pub pool: &'a BurstPool,
    pub name: &'a str,
    pub identity: &'a str,
}

impl Act<'_> {
    /// Carries out `plan`. `true` if what was done calls for another plan at once.
    pub async fn carry_out(&self, plan: &Plan, state: &mut Pool) -> bool {
        match plan.first {
            First::Claim => {
                state.is_claimed |= self.reserve(&plan.reservations).await;
                return state.is_claimed;
            }
            First::Count => {
                state.is_counted |= self.count().await;
                return state.is_counted;
            }
            First::Nothing => {}
        }
        if plan.must_reserve && !self.reserve(&plan.reservations).await {
            // Somebody has written the pool: it is looked at again, and nothing is granted meanwhile.
            return true;
        }
        self.look(&plan.unseen, state).await;
        if plan.is_dry_run {
            return false;
        }
        let granted = self.grant(plan, state).await;
        self.stamp(&plan.stamps).await;
        self.rescue(&plan.rescues).await;
        granted
    }

    /// Writes who leads and what is reserved, if the pool is still of the version that was planned with.
    async fn reserve(&self, reservations: &[Reservation]) -> bool {
        let pools: Api<BurstPool> = Api::all(self.client.clone());
        let patch = json!({
            "metadata": {"resourceVersion": self.pool.metadata.resource_version},
            "status": {"leader": self.identity, "reservations": reservations},
        });
        let manager = PatchParams {
            field_manager: Some(FIELD_MANAGER.to_owned()),
            ..PatchParams::default()
        };
        let patch = Patch::Merge(&patch);
        let written = pools.patch_status(self.name, &manager, &patch);
        match tokio::time::timeout(PATIENCE, written).await {
            Ok(Ok(pool)) => {
                self.stores.learn_pool(pool);
                true
            }
            Ok(Err(kube::Error::Api(status))) if status.is_conflict() || status.is_not_found() => {
                false
            }
            Ok(Err(error)) => {
                tracing::warn!(pool = self.name, %error, "reserving");
                false
            }
            Err(_) => {
                tracing::warn!(pool = self.name, "reserving: no answer");
                false
            }
        }
    }

    /// Lists the pods with the pool's label, as they are and not as a cache has them.
    async fn count(&self) -> bool {
        let pods: Api<Pod> = Api::all(self.client.clone());
        let ours = ListParams::default().labels(&format!("{POOL_LABEL}={}", self.name));
        match tokio::time::timeout(PATIENCE.saturating_mul(4), pods.list(&ours)).await {
            Ok(Ok(pods)) => {
                for pod in pods.items {
                    self.stores.learn_pod(pod);
                }
                true
            }
            Ok(Err(error)) => {
                tracing::warn!(pool = self.name, %error, "counting the pool's pods");
                false
            }
            Err(_) => false,
        }
    }

    /// Reads reserved pods by name that are in no watch.
    async fn look(&self, unseen: &[Reservation], state: &mut Pool) {
        for entry in unseen {
            let pods: Api<Pod> = Api::namespaced(self.client.clone(), &entry.namespace);
            if let Ok(Ok(found)) = tokio::time::timeout(PATIENCE, pods.get_opt(&entry.name)).await {
                let facts = found.as_ref().and_then(PodFacts::of);
                state.memory.looked(&entry.uid, facts.as_ref());
                if let Some(pod) = found {
                    self.stores.learn_pod(pod);
                }
            }
        }
    }

    /// Grants what is to be granted. `true` if there was anything.
    async fn grant(&self, plan: &Plan, state: &mut Pool) -> bool {
        let grants: Vec<&Decision> = plan.grants().collect();
        for decision in &grants {
            state.memory.sending(&decision.pod);
        }
        let answers = futures::stream::iter(&grants)
            .map(async |decision| (&decision.pod, self.send(decision).await))
            .buffer_unordered(AT_ONCE);
        let answers: Vec<(&PodRef, Answer)> = answers.collect().await;
        for (pod, answer) in answers {
            tracing::info!(
                pool = self.name,
                pod = %format!("{}/{}", pod.namespace, pod.name),
                ?answer,
                "granting"
            );
            state.memory.answered(pod, answer, Timestamp::now());
        }
        !grants.is_empty()
    }

    async fn send(&self, decision: &Decision) -> Answer {
        let id = &decision.pod;
        let waiting = self.view.waiting.get(&id.uid);
        let Some(pod) = waiting.and_then(super::stores::Waiting::pod) else {
            return Answer::Conflict;
        };
        let version = &id.resource_version;
        let (workload, now) = (&decision.workload, Timestamp::now());
        let patch = grant::grant(&pod, version, self.name, workload, now);
        self.patch(id, &patch).await
    }

    async fn patch(&self, id: &PodRef, patch: &Patch<()>) -> Answer {
        let pods: Api<Pod> = Api::namespaced(self.client.clone(), &id.namespace);
        let manager = PatchParams {
            field_manager: Some(FIELD_MANAGER.to_owned()),
            ..PatchParams::default()
        };
        let sent = pods.patch(&id.name, &manager, patch);
        match tokio::time::timeout(PATIENCE, sent).await {
            Ok(Ok(pod)) => {
                self.stores.learn_pod(pod);
                Answer::Granted
            }
            Ok(Err(kube::Error::Api(status))) => match status.code {
                404 => Answer::Gone,
                // Too many requests: it was not done, and will be tried again.
                409 | 429 => Answer::Conflict,
                400..=499 => Answer::Denied(status.message),
                _ => Answer::Lost,
            },
            Ok(Err(_)) | Err(_) => Answer::Lost,
        }
    }

    async fn stamp(&self, stamps: &[Stamp]) {
        let sent = futures::stream::iter(stamps).map(async |stamp| {
            let waiting = self.view.waiting.get(&stamp.pod.uid);
            let Some(pod) = waiting.and_then(super::stores::Waiting::pod) else {
                return;
            };
            let patch = grant::stamp(&pod, &stamp.pod.resource_version, stamp.since);
            // One that was not written is remembered, and lost only by a restart before the next.
            self.patch(&stamp.pod, &patch).await;
        });
        sent.buffer_unordered(AT_ONCE).collect::<()>().await;
    }

    async fn rescue(&self, rescues: &[Rescue]) {
        for rescue in rescues.iter().filter(|one| one.action == Action::Delete) {
            let pods: Api<Pod> = Api::namespaced(self.client.clone(), &rescue.pod.namespace);
            let still_this_one = DeleteParams {
                preconditions: Some(Preconditions {
                    uid: Some(rescue.pod.uid.clone()),
                    resource_version: None,
                }),
                ..DeleteParams::default()
            };
            let name = &rescue.pod.name;
            tracing::info!(pool = self.name, pod = %name, why = %rescue.why, "deleting a pod that never started");
            let deleted = pods.delete(name, &still_this_one);
            if let Ok(Err(error)) = tokio::time::timeout(PATIENCE, deleted).await {
                tracing::debug!(pod = %name, %error, "deleting a pod that never started");
            }
        }
    }
}
