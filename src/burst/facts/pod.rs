//! The fields of a pod that matter for bursting. They are few, because thousands of pods may be pending.
//!
//! In: a pod from a watch. Out: [`PodFacts`], computed once for each event. The caller need not keep the pod.

mod grant;
mod stage;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Pod, PodSpec, Taint};

use super::node_constraints::NodeConstraints;
use super::resource_amounts;
use super::resource_amounts::ResourceAmounts;
use super::topology_rules::TopologyRules;
use crate::api::names::{PROVIDER_TAINT, REFUSED_SINCE_ANNOTATION};

pub use grant::{GrantRecord, SCHEDULED_FIELD, accepted_losses, refusal_written};
pub use stage::{BoundPod, PodStage};

/// Identifies a pod at one version.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PodReference {
    /// Its namespace.
    pub namespace: String,
    /// Its name.
    pub name: String,
    /// Its UID, because a later pod may have the same name.
    pub uid: String,
    /// The version that was evaluated. A patch contains it, so it fails with 409 if the pod has changed.
    pub resource_version: String,
}

/// The fields of a pod that matter for bursting.
#[derive(Clone, Debug, PartialEq)]
pub struct PodFacts {
    /// The pod, at the version that was evaluated.
    pub id: PodReference,
    /// Its labels. Workloads select pods by them.
    pub labels: BTreeMap<String, String>,
    /// Its controller.
    pub owner: Option<PodOwner>,
    /// When it was created.
    pub created: Timestamp,
    /// Whether `metadata.generation` is 1: its spec has not changed since it was created.
    pub is_first_generation: bool,
    /// Whether it is being deleted.
    pub is_deleting: bool,
    /// Its scheduler, if it is not the default one.
    pub scheduler: Option<String>,
    /// Whether it is nominated: the scheduler preempts other pods on a node for it.
    pub is_nominated: bool,
    /// Its stage between creation and completion.
    pub stage: PodStage,
    /// The grant in its label and annotations, if it tolerates that pool's nodes.
    pub grant: Option<GrantRecord>,
    /// The pool in its label if the grant was not given to this pod: its template was copied from a granted
    /// pod, or a user wrote the label and the toleration.
    pub foreign_grant: Option<String>,
    /// When it was first seen refused, from the annotation that the operator wrote.
    pub refused_since: Option<Timestamp>,
    /// Its requests, as the scheduler counts them.
    pub requests: ResourceAmounts,
    /// The size of its container group, as ACI counts it.
    pub group_requests: ResourceAmounts,
    /// Its node selector, node affinity and tolerations.
    pub node_constraints: NodeConstraints,
    /// Its required constraints on other pods (affinity, anti-affinity, topology spread), if it has any.
    pub rules: Option<Box<TopologyRules>>,
    /// The names of its persistent volume claims, each with the index of its volume.
    pub claims: Vec<(usize, String)>,
}

/// The controller of a pod.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct PodOwner {
    /// What the controller does when the pod is deleted.
    pub kind: OwnerKind,
    /// Its name.
    pub name: String,
    /// Its UID.
    pub uid: String,
    /// Its UID, a slash, and the pod's `controller-revision-hash` label if it has one. Identifies the pod
    /// template.
    pub template: String,
}

/// What a controller does when one of its pods is deleted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum OwnerKind {
    /// A `ReplicaSet` or `StatefulSet`: replaces the pod, and counts no failure.
    ReplicaController,
    /// A Job: counts a failure unless its pod failure policy ignores disruptions, and replaces the pod within
    /// its limits.
    Job,
    /// A `DaemonSet`: burstpool runs no container groups for its pods.
    DaemonSet,
    /// Any other controller.
    Other,
}

impl PodFacts {
    /// Extracts the facts from `pod`. `None` if fields are missing that the API server sets when it creates a
    /// pod.
    pub fn from_pod(pod: &Pod) -> Option<Self> {
        let meta = &pod.metadata;
        let spec = pod.spec.as_ref()?;
        let constraints = NodeConstraints::from_pod_spec(spec);
        let labels = meta.labels.clone().unwrap_or_default();
        let refused_since = annotation(pod, REFUSED_SINCE_ANNOTATION);
        let requests = resource_amounts::pod_requests(spec);
        let (grant, foreign_grant) = grant::of_pod(pod, &labels, &constraints);
        Some(Self {
            id: PodReference {
                namespace: meta.namespace.clone()?,
                name: meta.name.clone()?,
                uid: meta.uid.clone()?,
                resource_version: meta.resource_version.clone()?,
            },
            owner: owner(pod, &labels),
            created: meta.creation_timestamp.as_ref()?.0,
            is_first_generation: meta.generation == Some(1),
            is_deleting: meta.deletion_timestamp.is_some(),
            scheduler: spec
                .scheduler_name
                .clone()
                .filter(|name| name != "default-scheduler"),
            is_nominated: pod
                .status
                .as_ref()
                .is_some_and(|status| status.nominated_node_name.is_some()),
            stage: stage::of_pod(pod, spec),
            grant,
            foreign_grant,
            refused_since: refused_since.and_then(|at| at.parse().ok()),
            requests,
            group_requests: resource_amounts::group_requests(spec, requests),
            claims: claims(spec),
            rules: TopologyRules::of(spec, &labels).map(Box::new),
            node_constraints: constraints,
            labels,
        })
    }

    /// Its node, if it is bound and not finished.
    pub fn bound(&self) -> Option<&BoundPod> {
        match &self.stage {
            PodStage::Bound(bound) => Some(bound),
            _ => None,
        }
    }

    /// Whether it has a container group, or will have one when it is bound to a virtual node. False for pods of
    /// a `DaemonSet`, and for pods that ACI does not run.
    pub fn has_group(&self) -> bool {
        let is_daemon =
            (self.owner.as_ref()).is_some_and(|owner| owner.kind == OwnerKind::DaemonSet);
        let is_refused = self.bound().is_some_and(|bound| bound.refusal.is_some());
        !is_daemon && !is_refused
    }

    /// What it uses of a virtual node's capacity: the larger of its container group and its requests.
    pub fn node_usage(&self) -> ResourceAmounts {
        if self.has_group() {
            self.group_requests.max(self.requests)
        } else {
            self.requests
        }
    }

    /// Whether it is pending with an expired grant.
    pub fn has_expired(&self) -> bool {
        let is_expired = self.grant.as_ref().is_some_and(|grant| grant.is_expired);
        is_expired && matches!(self.stage, PodStage::Undecided | PodStage::Unschedulable(_))
    }

    /// Whether this pool has granted it.
    pub fn is_granted_by(&self, pool: &str) -> bool {
        self.grant.as_ref().is_some_and(|grant| grant.pool == pool)
    }

    /// Whether a grant can no longer make it need a slot: it is finished, or bound to a node without a grant.
    pub fn is_done_without_grant(&self) -> bool {
        match self.stage {
            PodStage::Finished => true,
            PodStage::Bound(_) => self.grant.is_none(),
            PodStage::Undecided | PodStage::Unschedulable(_) => false,
        }
    }
}

/// The value of the pod's annotation `key`.
fn annotation<'a>(pod: &'a Pod, key: &str) -> Option<&'a String> {
    pod.metadata.annotations.as_ref()?.get(key)
}

/// The taint of a pool's nodes.
pub fn provider_taint(pool: &str) -> Taint {
    Taint {
        key: PROVIDER_TAINT.to_owned(),
        value: Some(pool.to_owned()),
        effect: "NoSchedule".to_owned(),
        time_added: None,
    }
}

fn claims(spec: &PodSpec) -> Vec<(usize, String)> {
    let volumes = spec.volumes.iter().flatten().enumerate();
    let claims = volumes.filter_map(|(at, volume)| {
        let claim = volume.persistent_volume_claim.as_ref()?;
        Some((at, claim.claim_name.clone()))
    });
    claims.collect()
}

fn owner(pod: &Pod, labels: &BTreeMap<String, String>) -> Option<PodOwner> {
    let mut owners = pod.metadata.owner_references.iter().flatten();
    let owner = owners.find(|owner| owner.controller == Some(true))?;
    let kind = match owner.kind.as_str() {
        "ReplicaSet" | "StatefulSet" => OwnerKind::ReplicaController,
        "DaemonSet" => OwnerKind::DaemonSet,
        "Job" if owner.api_version == "batch/v1" => OwnerKind::Job,
        _ => OwnerKind::Other,
    };
    let revision = labels.get("controller-revision-hash");
    Some(PodOwner {
        kind,
        name: owner.name.clone(),
        uid: owner.uid.clone(),
        template: format!(
            "{}/{}",
            owner.uid,
            revision.map(String::as_str).unwrap_or_default()
        ),
    })
}
