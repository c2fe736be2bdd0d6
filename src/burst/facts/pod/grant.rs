//! The grant that a pod's label, toleration and annotations contain, and whether it is the pod's own.
//!
//! In: a pod from a watch. Out: its [`GrantRecord`], or the pool whose grant it copied; and the scheduler's refusal
//! since the grant.

use std::collections::BTreeMap;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::Pod;

use super::stage::is_unschedulable;
use super::{annotation, provider_taint};
use crate::api::LossSet;
use crate::api::names::{
    GRANT_EXPIRED_ANNOTATION, GRANTED_AT_ANNOTATION, GRANTED_UID_ANNOTATION, LEADER_FIELD_MANAGER,
    NOT_KEPT_ANNOTATION, POOL_LABEL, PROVIDER_TAINT, WORKLOAD_ANNOTATION,
};
use crate::burst::facts::node_constraints::NodeConstraints;

/// The key of the condition `PodScheduled` in managed fields.
pub const SCHEDULED_FIELD: &str = r#"k:{"type":"PodScheduled"}"#;

/// How far the clocks of two API servers of a cluster may be apart, in seconds.
const MAX_CLOCK_SKEW_SECONDS: i64 = 5;

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
    /// What its container group does not keep, because the pool accepted it when it granted the pod.
    pub not_kept: LossSet,
    /// The scheduler's message, if it has provably refused the pod since it was granted.
    pub refused: Option<String>,
}

/// The grant of the pod, and the pool whose grant it carries although that grant was given to another pod. At
/// most one of them is there.
pub(super) fn of_pod(
    pod: &Pod,
    labels: &BTreeMap<String, String>,
    constraints: &NodeConstraints,
) -> (Option<GrantRecord>, Option<String>) {
    let pool = labels
        .get(POOL_LABEL)
        .filter(|pool| constraints.tolerates(&provider_taint(pool)));
    let Some(pool) = pool else {
        return (None, None);
    };
    let is_own = annotation(pod, GRANTED_UID_ANNOTATION).map_or_else(
        || is_label_set_by_leader(pod),
        |uid| Some(uid) == pod.metadata.uid.as_ref(),
    );
    if !is_own {
        return (None, Some(pool.clone()));
    }
    let granted_at: Option<Timestamp> =
        annotation(pod, GRANTED_AT_ANNOTATION).and_then(|at| at.parse().ok());
    let expired_at = annotation(pod, GRANT_EXPIRED_ANNOTATION).and_then(|at| at.parse().ok());
    let grant = GrantRecord {
        pool: pool.clone(),
        workload: annotation(pod, WORKLOAD_ANNOTATION)
            .cloned()
            .unwrap_or_default(),
        granted_at,
        // A mark that is older than the grant is another grant's: of another pool, or copied with the template.
        is_expired: granted_at.is_some_and(|at| expired_at.is_some_and(|expired| at <= expired)),
        not_kept: not_kept(pod),
        refused: granted_at.and_then(|at| refusal(pod, pool, at)),
    };
    (Some(grant), None)
}

/// What the container group of `pod` may lose: what is accepted by its grant of `pool`. Empty without such a grant.
pub fn accepted_losses(pod: &Pod, pool: &str) -> LossSet {
    let labels = pod.metadata.labels.as_ref();
    let is_of_pool = labels
        .and_then(|labels| labels.get(POOL_LABEL))
        .map(String::as_str)
        == Some(pool);
    if is_of_pool {
        not_kept(pod)
    } else {
        LossSet::default()
    }
}

/// What the grant with the pod's own UID accepts. The author of a pod cannot accept anything: the API server chooses the
/// UID when it creates the pod, the grant overwrites what the pod was created with, and the admission policy
/// `burstpool-grants` lets only burstpool change both annotations.
fn not_kept(pod: &Pod) -> LossSet {
    let uid = annotation(pod, GRANTED_UID_ANNOTATION);
    let is_own = uid.is_some() && uid == pod.metadata.uid.as_ref();
    let losses = annotation(pod, NOT_KEPT_ANNOTATION).filter(|_| is_own);
    losses.map_or_else(LossSet::default, |losses| LossSet::from_annotation(losses))
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

/// The scheduler's message, if it has refused the pod since `pool` granted it at `granted`. A grant changes what
/// the scheduler says about the pool's nodes, so an earlier refusal does not count.
///
/// The grant and the condition may have been written through API servers whose clocks differ. Within [`MAX_CLOCK_SKEW_SECONDS`],
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
    let is_after = if since.abs() > MAX_CLOCK_SKEW_SECONDS {
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
