//! The fields of a pod that matter for bursting. They are few, because thousands of pods may be pending.
//!
//! In: a pod from a watch. Out: [`PodFacts`], computed once for each event. The caller need not keep the pod.

use std::collections::BTreeMap;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{ContainerStatus, Pod, PodCondition, PodSpec, Taint};

use super::node_constraints::NodeConstraints;
use super::resource_amounts;
use super::resource_amounts::ResourceAmounts;
use crate::aci::failure::FailureClass;
use crate::api::names::{
    GRANT_EXPIRED_ANNOTATION, GRANTED_AT_ANNOTATION, GRANTED_UID_ANNOTATION, LEADER_FIELD_MANAGER,
    POOL_LABEL, PROVIDER_TAINT, REFUSED_SINCE_ANNOTATION, WORKLOAD_ANNOTATION,
};
use crate::burst::rules::topology::TopologyRules;

/// The key of the condition `PodScheduled` in managed fields.
pub const SCHEDULED_FIELD: &str = r#"k:{"type":"PodScheduled"}"#;

/// How far the clocks of two API servers of a cluster may be apart, in seconds.
const SKEW: i64 = 5;

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

/// The stage of a pod.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PodStage {
    /// The scheduler has not decided yet, or the pod has scheduling gates.
    Undecided,
    /// The scheduler found no node for it. The time is the condition's transition time, or when the operator
    /// saw it.
    Unschedulable(Option<Timestamp>),
    /// It is bound to a node.
    Bound(BoundPod),
    /// Its phase is `Succeeded` or `Failed`.
    Finished,
}

/// A pod that is bound to a node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BoundPod {
    /// The node's name.
    pub node: String,
    /// Since when, by the transition time of `PodScheduled`.
    pub bound_since: Option<Timestamp>,
    /// Whether any of its containers has ever started.
    pub has_started: bool,
    /// Whether its phase is `Running`.
    pub is_running: bool,
    /// Azure's message, if Azure refuses the pod permanently.
    pub azure_refusal: Option<String>,
    /// If it waits for Azure: the kind of failure and Azure's message.
    pub waiting_for_azure: Option<(FailureClass, String)>,
}

/// The grant of a pod, as its label and annotations contain it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GrantRecord {
    /// The pool that granted it.
    pub pool: String,
    /// The workload that it was granted for.
    pub workload: String,
    /// When, by the API server's clock. `None` if the annotation is missing or invalid.
    pub granted_at: Option<Timestamp>,
    /// Whether it has expired. A pending pod with an expired grant holds no slot.
    pub is_expired: bool,
    /// The scheduler's message, if it has provably refused the pod since it was granted.
    pub refused: Option<String>,
}

impl PodFacts {
    /// Extracts the facts from `pod`. `None` if fields are missing that the API server sets when it creates a
    /// pod.
    pub fn from_pod(pod: &Pod) -> Option<Self> {
        let meta = &pod.metadata;
        let spec = pod.spec.as_ref()?;
        let demands = NodeConstraints::from_pod_spec(spec);
        let annotations = meta.annotations.as_ref();
        let note = |key: &str| annotations.and_then(|all| all.get(key));
        let labels = meta.labels.clone().unwrap_or_default();
        let marks = labels
            .get(POOL_LABEL)
            .filter(|pool| demands.tolerates(&provider_taint(pool)));
        let is_own = note(GRANTED_UID_ANNOTATION).map_or_else(
            || is_label_set_by_leader(pod),
            |uid| Some(uid) == meta.uid.as_ref(),
        );
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
            stage: stage(pod, spec),
            grant: marks.filter(|_| is_own).map(|pool| {
                let at: Option<Timestamp> =
                    note(GRANTED_AT_ANNOTATION).and_then(|at| at.parse().ok());
                let expired = note(GRANT_EXPIRED_ANNOTATION).and_then(|at| at.parse().ok());
                GrantRecord {
                    pool: pool.clone(),
                    workload: note(WORKLOAD_ANNOTATION).cloned().unwrap_or_default(),
                    granted_at: at,
                    // A mark that is older than the grant is another grant's: of another pool, or copied with the
                    // template.
                    is_expired: at.is_some_and(|at| expired.is_some_and(|expired| at <= expired)),
                    refused: at.and_then(|at| refusal(pod, pool, at)),
                }
            }),
            foreign_grant: marks.filter(|_| !is_own).cloned(),
            refused_since: note(REFUSED_SINCE_ANNOTATION).and_then(|at| at.parse().ok()),
            requests: resource_amounts::pod_requests(spec),
            group_requests: resource_amounts::group_requests(
                spec,
                resource_amounts::pod_requests(spec),
            ),
            claims: claims(spec),
            rules: TopologyRules::of(spec, &labels).map(Box::new),
            node_constraints: demands,
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
    /// a `DaemonSet`, and for pods that Azure refuses.
    pub fn has_group(&self) -> bool {
        let is_daemon =
            (self.owner.as_ref()).is_some_and(|owner| owner.kind == OwnerKind::DaemonSet);
        let is_refused = self
            .bound()
            .is_some_and(|bound| bound.azure_refusal.is_some());
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

/// Whether a leader of burstpool wrote the pool's label. Versions of burstpool that did not write the pod's UID
/// are recognized by this. The API server tracks field managers: when a pod is created, all of its fields
/// belong to the client that creates it, even if a copied manifest contains other managed fields.
fn is_label_set_by_leader(pod: &Pod) -> bool {
    let label = format!("f:{POOL_LABEL}");
    let mut entries = pod.metadata.managed_fields.iter().flatten();
    entries.any(|entry| {
        let fields = entry.fields_v1.as_ref().map(|fields| &fields.0);
        let of = |part: &str, key: &str| fields.and_then(|all| all.get(part)?.get(key));
        let labels = of("f:metadata", "f:labels");
        // The client that creates a pod can use any manager name, but it also owns the containers.
        let has_created = of("f:spec", "f:containers").is_some();
        entry.manager.as_deref() == Some(LEADER_FIELD_MANAGER)
            && !has_created
            && labels.is_some_and(|labels| labels.get(&label).is_some())
    })
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

fn stage(pod: &Pod, spec: &PodSpec) -> PodStage {
    let status = pod.status.as_ref();
    let phase = status.and_then(|status| status.phase.as_deref());
    if matches!(phase, Some("Succeeded" | "Failed")) {
        return PodStage::Finished;
    }
    let conditions = status
        .iter()
        .flat_map(|status| status.conditions.iter().flatten());
    let scheduled = conditions.clone().find(|c| c.type_ == "PodScheduled");
    let since = |condition: &PodCondition| condition.last_transition_time.as_ref().map(|at| at.0);
    let Some(node) = spec.node_name.clone().filter(|node| !node.is_empty()) else {
        return match scheduled {
            Some(refused) if is_unschedulable(refused) => PodStage::Unschedulable(since(refused)),
            _ => PodStage::Undecided,
        };
    };
    let containers: Vec<&ContainerStatus> = status
        .into_iter()
        .flat_map(|status| [&status.container_statuses, &status.init_container_statuses])
        .flat_map(|statuses| statuses.iter().flatten())
        .collect();
    PodStage::Bound(BoundPod {
        node,
        bound_since: scheduled.and_then(since),
        has_started: containers.iter().any(|status| has_started(status)),
        is_running: phase == Some("Running"),
        azure_refusal: containers.iter().find_map(|status| azure_refusal(status)),
        waiting_for_azure: containers
            .iter()
            .find_map(|status| waiting_for_azure(status)),
    })
}

/// The scheduler's message, if it has refused the pod since `pool` granted it at `granted`. A grant changes what
/// the scheduler says about the pool's nodes, so an earlier refusal does not count.
///
/// The grant and the condition may have been written through API servers whose clocks differ. Within [`SKEW`],
/// the condition itself shows whether the scheduler had seen the toleration: by the pod's generation, which the
/// toleration changes. API servers before Kubernetes 1.34 need not write generations; the message then names the
/// taint of the pool's nodes if the pod did not tolerate it.
fn refusal(pod: &Pod, pool: &str, granted: Timestamp) -> Option<String> {
    let conditions = pod.status.as_ref()?.conditions.as_ref()?;
    let mut conditions = conditions.iter();
    let refused = conditions.find(|one| one.type_ == "PodScheduled" && is_unschedulable(one))?;
    let message = refused.message.clone().unwrap_or_default();
    // In whole seconds, the resolution of the API server's time.
    let since = refusal_written(pod)?.as_second() - granted.as_second();
    let is_after = if since.abs() > SKEW {
        since > 0
    } else if let (Some(seen), Some(now)) = (refused.observed_generation, pod.metadata.generation) {
        seen >= now
    } else {
        !message.contains(&format!("{{{PROVIDER_TAINT}: {pool}}}"))
    };
    is_after.then_some(message)
}

/// When the pod's condition `PodScheduled` was last written, by the API server's clock, in whole seconds.
/// `None` if the managed fields do not contain it. The condition got its present content at this time or
/// earlier.
pub fn refusal_written(pod: &Pod) -> Option<Timestamp> {
    let entries = pod.metadata.managed_fields.iter().flatten();
    let written = entries.filter_map(|entry| {
        let fields = &entry.fields_v1.as_ref()?.0;
        let conditions = fields.get("f:status")?.get("f:conditions")?;
        conditions.get(SCHEDULED_FIELD)?;
        Some(entry.time.as_ref()?.0)
    });
    written.max()
}

fn is_unschedulable(condition: &PodCondition) -> bool {
    condition.status == "False" && condition.reason.as_deref() == Some("Unschedulable")
}

fn has_started(status: &ContainerStatus) -> bool {
    let state = status.state.as_ref();
    let begun = state.is_some_and(|state| state.running.is_some() || state.terminated.is_some());
    begun
        || status.restart_count > 0
        || status
            .last_state
            .as_ref()
            .is_some_and(|last| last.terminated.is_some())
}

/// The failure that makes a pod wait for Azure. `None` if the user must fix it, such as a wrong image name.
fn waiting_for_azure(status: &ContainerStatus) -> Option<(FailureClass, String)> {
    let waiting = status.state.as_ref()?.waiting.as_ref()?;
    let class = FailureClass::from_reason(waiting.reason.as_deref()?)?;
    class
        .is_azure_fault()
        .then(|| (class, waiting.message.clone().unwrap_or_default()))
}

/// The message of a pod on ACI that Azure refuses permanently.
fn azure_refusal(status: &ContainerStatus) -> Option<String> {
    let waiting = status.state.as_ref()?.waiting.as_ref()?;
    (waiting.reason.as_deref() == Some(FailureClass::Permanent.reason()))
        .then(|| waiting.message.clone().unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn facts(changes: &[(&str, Value)]) -> PodFacts {
        let mut pod = json!({
            "metadata": {"namespace": "shop", "name": "web-1", "uid": "u", "resourceVersion": "7",
                "generation": 1, "creationTimestamp": "2026-01-01T00:00:00Z", "labels": {"app": "web"},
                "annotations": {}},
            "spec": {"schedulerName": "default-scheduler", "containers": [{"name": "a"}]},
            "status": {"phase": "Pending", "conditions": []},
        });
        for (pointer, value) in changes {
            let (parent, field) = pointer.rsplit_once('/').expect("a pointer");
            pod.pointer_mut(parent).expect("it is there")[field] = value.clone();
        }
        let pod: Pod = serde_json::from_value(pod).expect("a pod");
        PodFacts::from_pod(&pod).expect("a pod that was created")
    }

    fn scheduled(status: &str, reason: &str) -> Value {
        json!([{"type": "PodScheduled", "status": status, "reason": reason,
            "lastTransitionTime": "2026-01-01T00:00:05Z"}])
    }

    #[test]
    fn only_the_schedulers_refusal_is_one() {
        let of = |conditions: Value| facts(&[("/status/conditions", conditions)]).stage;
        let at = "2026-01-01T00:00:05Z".parse().expect("a time");
        assert_eq!(
            of(scheduled("False", "Unschedulable")),
            PodStage::Unschedulable(Some(at))
        );
        assert_eq!(
            of(scheduled("False", "SchedulingGated")),
            PodStage::Undecided
        );
        assert_eq!(of(json!([])), PodStage::Undecided);
    }

    #[test]
    fn a_grant_is_the_label_together_with_the_toleration() {
        let label = ("/metadata/labels", json!({"burstpool.io/pool": "shop"}));
        let toleration = json!([{"key": "virtual-kubelet.io/provider", "operator": "Equal",
            "value": "shop", "effect": "NoSchedule"}]);
        let notes = json!({"burstpool.io/workload": "web", "burstpool.io/granted-at": "2026-01-01T00:01:00Z",
            "burstpool.io/granted-uid": "u"});
        assert_eq!(facts(std::slice::from_ref(&label)).grant, None);
        assert_eq!(
            facts(&[("/spec/tolerations", toleration.clone())]).grant,
            None
        );
        let granted = facts(&[
            label,
            ("/spec/tolerations", toleration),
            ("/metadata/annotations", notes),
        ]);
        let grant = granted.grant.clone().expect("a grant");
        assert_eq!(
            (grant.pool.as_str(), grant.workload.as_str()),
            ("shop", "web")
        );
        assert!(grant.granted_at.is_some() && !granted.is_done_without_grant());
    }

    /// The refusal of a pod that was granted at 00:01:00.5, which changed its generation to `generations.0`. Its
    /// condition was written at `written` with this message, for the generation `generations.1`.
    fn refused(written: &Value, generations: (Value, Value), message: &str) -> Option<String> {
        let mut conditions = scheduled("False", "Unschedulable");
        conditions[0]["message"] = json!(message);
        conditions[0]["observedGeneration"] = generations.1;
        let managed = json!([{"manager": "kube-scheduler", "operation": "Update", "time": written,
            "fieldsV1": {"f:status": {"f:conditions": {SCHEDULED_FIELD: {}}}}}]);
        let granted = facts(&[
            ("/metadata/labels", json!({"burstpool.io/pool": "shop"})),
            (
                "/metadata/annotations",
                json!({"burstpool.io/granted-uid": "u",
                "burstpool.io/granted-at": "2026-01-01T00:01:00.5Z"}),
            ),
            ("/metadata/generation", generations.0),
            ("/metadata/managedFields", managed),
            (
                "/spec/tolerations",
                json!([{"key": PROVIDER_TAINT, "value": "shop"}]),
            ),
            ("/status/conditions", conditions),
        ]);
        granted.grant.expect("a grant").refused
    }

    #[test]
    fn only_what_the_scheduler_says_after_a_grant_is_a_refusal_of_the_granted_pod() {
        let taint = |pool: &str| {
            format!("1 node(s) had untolerated taint {{virtual-kubelet.io/provider: {pool}}}")
        };
        let (own, other, zone) = (taint("shop"), taint("other"), "no zone".to_owned());
        // Whether the refusal counts: if it is of the granted pod, of the pod before the grant, and, if the API
        // server does not track generations, by the message: of another constraint, of the pool's taint, of
        // another pool's taint.
        for (written, counts) in [
            ("2026-01-01T00:02:00Z", [true, true, true, true, true]),
            ("2026-01-01T00:01:05Z", [true, false, true, false, true]),
            ("2026-01-01T00:01:00Z", [true, false, true, false, true]),
            ("2026-01-01T00:00:59Z", [true, false, true, false, true]),
            ("2026-01-01T00:00:55Z", [true, false, true, false, true]),
            ("2026-01-01T00:00:54Z", [false; 5]),
        ] {
            let known = |observed: u8| (json!(2), json!(observed));
            let unknown = || (json!(null), json!(null));
            let written = json!(written);
            let of = [
                refused(&written, known(2), &zone),
                refused(&written, known(1), &zone),
                refused(&written, unknown(), &zone),
                refused(&written, unknown(), &own),
                refused(&written, unknown(), &other),
            ];
            assert_eq!(of.map(|one| one.is_some()), counts, "{written}");
        }
        assert_eq!(refused(&Value::Null, (json!(2), json!(2)), &zone), None);
    }

    #[test]
    fn the_marks_of_another_pods_grant_are_none() {
        let label = ("/metadata/labels", json!({"burstpool.io/pool": "shop"}));
        let toleration = json!([{"key": "virtual-kubelet.io/provider", "operator": "Equal",
            "value": "shop", "effect": "NoSchedule"}]);
        let toleration = ("/spec/tolerations", toleration);
        let uid =
            |uid: &str| json!({"burstpool.io/workload": "web", "burstpool.io/granted-uid": uid});
        let written = |by: &str, what: &str| {
            json!([{"manager": by, "operation": "Update", "fieldsType": "FieldsV1",
                "fieldsV1": {"f:metadata": {"f:labels": {what: {}}}}}])
        };
        let by_us = written("burstpool-leader", "f:burstpool.io/pool");
        let mut created = by_us.clone();
        created[0]["fieldsV1"]["f:spec"] = json!({"f:containers": {}});
        for (case, notes, managers, is_own) in [
            ("ours", uid("u"), json!([]), true),
            ("a copied template", uid("of-another-pod"), json!([]), false),
            (
                "a copied template of a pod that waits",
                uid("of-another-pod"),
                by_us.clone(),
                false,
            ),
            (
                "forged",
                json!({}),
                written("kubectl", "f:burstpool.io/pool"),
                false,
            ),
            (
                "a stamp is no grant",
                json!({}),
                written("burstpool-leader", "f:app"),
                false,
            ),
            ("forged without managers", json!({}), json!([]), false),
            ("forged by one with our name", json!({}), created, false),
            ("an earlier version's", json!({}), by_us, true),
        ] {
            let facts = facts(&[
                label.clone(),
                toleration.clone(),
                ("/metadata/annotations", notes),
                ("/metadata/managedFields", managers),
            ]);
            assert_eq!(facts.is_granted_by("shop"), is_own, "{case}");
            let foreign = facts.foreign_grant.as_deref();
            assert_eq!(foreign, (!is_own).then_some("shop"), "{case}");
        }
    }

    #[test]
    fn a_grant_has_expired_only_if_the_mark_is_not_older_than_it() {
        for (expired, is_expired) in [
            (json!("2026-01-01T00:06:00Z"), true),
            (json!("2026-01-01T00:00:30Z"), false),
            (json!("soon"), false),
            (json!(null), false),
        ] {
            let mut notes = json!({
                "burstpool.io/workload": "web",
                "burstpool.io/granted-at": "2026-01-01T00:01:00Z",
                "burstpool.io/granted-uid": "u",
            });
            if !expired.is_null() {
                notes["burstpool.io/grant-expired-at"] = expired.clone();
            }
            let facts = facts(&[
                ("/metadata/labels", json!({"burstpool.io/pool": "shop"})),
                (
                    "/spec/tolerations",
                    json!([{"key": "virtual-kubelet.io/provider", "operator": "Equal", "value": "shop",
                        "effect": "NoSchedule"}]),
                ),
                ("/metadata/annotations", notes),
            ]);
            let grant = facts.grant.expect("it is granted");
            assert_eq!(grant.is_expired, is_expired, "{expired}");
        }
    }

    #[test]
    fn a_bound_pod_says_whether_it_ever_started_and_why_it_never_will() {
        let node = ("/spec/nodeName", json!("burst-shop-weu"));
        let waiting = |reason: &str| {
            json!([{"name": "a", "image": "", "imageID": "", "ready": false, "restartCount": 0,
                "state": {"waiting": {"reason": reason, "message": "no such sku"}}}])
        };
        let of = |containers: Value| {
            let facts = facts(&[node.clone(), ("/status/containerStatuses", containers)]);
            facts.bound().expect("it is bound").clone()
        };
        let refused = of(waiting("CreateContainerError"));
        assert_eq!(
            (refused.has_started, refused.azure_refusal.as_deref()),
            (false, Some("no such sku"))
        );
        assert_eq!(of(waiting("ErrImagePull")).azure_refusal, None);
        assert_eq!(of(waiting("ErrImagePull")).waiting_for_azure, None);
        let held = Some((FailureClass::Quota, "no such sku".to_owned()));
        assert_eq!(of(waiting("QuotaExceeded")).waiting_for_azure, held);
        let mut running = waiting("");
        running[0]["state"] = json!({"running": {}});
        assert!(of(running).has_started);
        let finished = facts(&[node.clone(), ("/status/phase", json!("Failed"))]);
        assert_eq!(finished.stage, PodStage::Finished);
    }

    #[test]
    fn the_owner_is_known_by_its_template() {
        let owner = |kind: &str, labels: Value| {
            let api = if kind == "Job" { "batch/v1" } else { "apps/v1" };
            let owners = json!([{"apiVersion": api, "kind": kind, "name": "x", "uid": "o", "controller": true}]);
            facts(&[
                ("/metadata/ownerReferences", owners),
                ("/metadata/labels", labels),
            ])
            .owner
        };
        let set =
            owner("StatefulSet", json!({"controller-revision-hash": "r2"})).expect("an owner");
        assert_eq!(
            (set.kind, set.template.as_str()),
            (OwnerKind::ReplicaController, "o/r2")
        );
        assert_eq!(
            owner("Job", json!({})).map(|owner| (owner.kind, owner.name, owner.uid)),
            Some((OwnerKind::Job, "x".to_owned(), "o".to_owned()))
        );
        assert_eq!(facts(&[]).owner, None);
    }
}
