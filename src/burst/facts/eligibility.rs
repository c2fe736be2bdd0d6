//! Whether ACI can run a pod: a cache of what `aci::translate` refuses, for each pod version and placement.
//!
//! In: a pod from a watch, and a pool's placements. Out: the fields that translation refuses. To translate
//! thousands of pods on every reconcile would take seconds, so a verdict is kept until the pod or the placement
//! changes.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::atomic::{AtomicU64, Ordering};

use k8s_openapi::api::core::v1::Pod;

use super::pod::{PodFacts, PodReference};
use crate::aci::translate::{self, Unsupported};
use crate::api;

/// The state of volume claims, by namespace and name. A claim without an entry has not been read yet.
pub type ClaimStates = HashMap<String, HashMap<String, ClaimState>>;

/// What a volume claim is bound to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ClaimState {
    /// An Azure Files share that ACI can mount, or one that the CSI driver creates after the pod is bound.
    Mountable,
    /// Nothing yet: the claim does not exist or is not bound. The text says which.
    Pending(String),
    /// A volume that ACI cannot mount, for this reason.
    Unsupported(String),
}

/// What a pod's volume claims mean for it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum MountReadiness {
    /// ACI can mount all of them.
    Ready,
    /// The operator has not read every claim yet.
    Unread,
    /// The pod waits for claims, for this reason.
    Waiting(String),
    /// ACI cannot mount these volumes, so the pod cannot run there, whatever happens to its other claims.
    Refused(Vec<Unsupported>),
}

/// What the volume claims of `pod` mean for it.
pub fn mount_readiness(pod: &PodFacts, claims: &ClaimStates) -> MountReadiness {
    let known = claims.get(&pod.id.namespace);
    let (mut refusals, mut waiting) = (Vec::new(), Vec::new());
    for (at, claim) in &pod.claims {
        match known.and_then(|known| known.get(claim)) {
            None => return MountReadiness::Unread,
            Some(ClaimState::Mountable) => {}
            Some(ClaimState::Pending(why)) if waiting.contains(why) => {}
            Some(ClaimState::Pending(why)) => waiting.push(why.clone()),
            Some(ClaimState::Unsupported(why)) => refusals.push(Unsupported::new(
                format!("spec.volumes[{at}].persistentVolumeClaim"),
                why.clone(),
            )),
        }
    }
    match (refusals.is_empty(), waiting.is_empty()) {
        (false, _) => MountReadiness::Refused(refusals),
        (true, false) => MountReadiness::Waiting(waiting.join("; ")),
        (true, true) => MountReadiness::Ready,
    }
}

/// The most placements for which verdicts are kept: more than all pools usually have. Each edit of a placement
/// adds one. The one used longest ago is dropped.
const MAX_TARGETS: usize = 256;

/// The cached verdicts of translation, by pod UID.
#[derive(Debug, Default)]
pub struct EligibilityCache {
    /// The placements that pods were translated for. A verdict refers to one by number, to save memory.
    targets: Vec<EvaluatedTarget>,
    next_id: u64,
    /// Counts lookups, to find the placement that was used longest ago.
    use_counter: AtomicU64,
    pods: HashMap<String, EligibilityVerdict>,
}

/// Identifies a placement that pods were translated for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TargetId(u64);

#[derive(Debug)]
struct EvaluatedTarget {
    id: TargetId,
    /// The fields that affect translation.
    spec: api::Placement,
    tags: BTreeMap<String, String>,
    node: String,
    last_used: AtomicU64,
}

/// The placement with only those fields that affect translation: capacity and node labels do not.
fn relevant_spec(spec: &api::Placement) -> api::Placement {
    api::Placement {
        capacity: api::Capacity::default(),
        labels: BTreeMap::new(),
        ..spec.clone()
    }
}

#[derive(Debug, Default)]
struct EligibilityVerdict {
    resource_version: String,
    refusals: Vec<(TargetId, Vec<Unsupported>)>,
}

impl EligibilityCache {
    /// Translates `pod` for `placement`, unless this version of it was translated already.
    pub fn evaluate(
        &mut self,
        pod: &Pod,
        unknown_fields: &[String],
        placement: &translate::TranslationTarget<'_>,
    ) {
        let text = |text: &Option<String>| text.clone().unwrap_or_default();
        let id = PodReference {
            namespace: text(&pod.metadata.namespace),
            name: text(&pod.metadata.name),
            uid: text(&pod.metadata.uid),
            resource_version: text(&pod.metadata.resource_version),
        };
        let known = self.target_id(placement.spec, placement.tags, placement.node);
        if known.is_some_and(|asked| self.get(&id, asked).is_some()) {
            return;
        }
        let refusals = translate::eligible(pod, unknown_fields, placement).err();
        self.insert(&id, placement, refusals.unwrap_or_default());
    }

    /// Stores what translation refuses of `pod`.
    pub fn insert(
        &mut self,
        pod: &PodReference,
        placement: &translate::TranslationTarget<'_>,
        refusals: Vec<Unsupported>,
    ) {
        let known = self.target_id(placement.spec, placement.tags, placement.node);
        let asked = known.unwrap_or_else(|| self.add_target(placement));
        let verdict = self.pods.entry(pod.uid.clone()).or_default();
        if verdict.resource_version != pod.resource_version {
            pod.resource_version
                .clone_into(&mut verdict.resource_version);
            verdict.refusals.clear();
        }
        verdict.refusals.retain(|(known, _)| *known != asked);
        verdict.refusals.push((asked, refusals));
    }

    fn add_target(&mut self, placement: &translate::TranslationTarget<'_>) -> TargetId {
        let last = |asked: &EvaluatedTarget| asked.last_used.load(Ordering::Relaxed);
        if self.targets.len() >= MAX_TARGETS {
            let oldest = (0..self.targets.len()).min_by_key(|at| last(&self.targets[*at]));
            let gone = oldest.map(|at| self.targets.swap_remove(at).id);
            for verdict in self.pods.values_mut() {
                verdict.refusals.retain(|(asked, _)| Some(*asked) != gone);
            }
        }
        self.next_id += 1;
        self.targets.push(EvaluatedTarget {
            id: TargetId(self.next_id),
            spec: relevant_spec(placement.spec),
            tags: placement.tags.clone(),
            node: placement.node.to_owned(),
            last_used: AtomicU64::new(self.use_counter.fetch_add(1, Ordering::Relaxed)),
        });
        TargetId(self.next_id)
    }

    /// Finds the entry of a placement, and marks it as used. `None` if no pod was translated for it.
    pub fn target_id(
        &self,
        spec: &api::Placement,
        tags: &BTreeMap<String, String>,
        node: &str,
    ) -> Option<TargetId> {
        let spec = relevant_spec(spec);
        let is = |asked: &&EvaluatedTarget| {
            asked.node == node && asked.tags == *tags && asked.spec == spec
        };
        let asked = self.targets.iter().find(is)?;
        let now = self.use_counter.fetch_add(1, Ordering::Relaxed);
        asked.last_used.store(now, Ordering::Relaxed);
        Some(asked.id)
    }

    /// What is refused of this version of the pod there; empty if nothing. `None` if it was not translated yet.
    pub fn get(&self, pod: &PodReference, asked: TargetId) -> Option<&[Unsupported]> {
        let verdict = self.pods.get(&pod.uid)?;
        let mut known = verdict.refusals.iter();
        known
            .find(|(known, _)| *known == asked && verdict.resource_version == pod.resource_version)
            .map(|(_, refusals)| refusals.as_slice())
    }

    /// Drops all pods except these.
    pub fn retain(&mut self, uids: &HashSet<&str>) {
        self.pods.retain(|uid, _| uids.contains(uid.as_str()));
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn pod(version: &str, host_network: bool) -> Pod {
        let pod = json!({
            "metadata": {"name": "a", "namespace": "n", "uid": "u", "resourceVersion": version},
            "spec": {"hostNetwork": host_network, "containers": [{"name": "a", "image": "nginx"}]},
        });
        serde_json::from_value(pod).expect("a pod")
    }

    fn id(version: &str) -> PodReference {
        PodReference {
            uid: "u".to_owned(),
            resource_version: version.to_owned(),
            ..PodReference::default()
        }
    }

    #[test]
    fn a_verdict_is_of_one_version_of_a_pod_and_of_one_placement() {
        let weu = api::Placement::default();
        let neu = api::Placement {
            name: "neu".to_owned(),
            ..api::Placement::default()
        };
        let tags = BTreeMap::new();
        let place = |spec| translate::TranslationTarget {
            spec,
            tags: &tags,
            node: "n",
            node_address: None,
            identities: &translate::NO_IDENTITIES,
            accepted: &crate::api::NO_LOSSES,
        };
        let mut verdicts = EligibilityCache::default();
        verdicts.evaluate(&pod("1", true), &[], &place(&weu));
        assert_eq!(verdicts.target_id(&neu, &tags, "n"), None);
        let asked = verdicts
            .target_id(&weu, &tags, "n")
            .expect("it was asked about");
        let refused = verdicts.get(&id("1"), asked).expect("a verdict");
        assert_eq!(refused[0].field, "spec.hostNetwork");
        assert_eq!(verdicts.get(&id("2"), asked), None);
        verdicts.evaluate(&pod("2", false), &[], &place(&weu));
        assert_eq!(verdicts.get(&id("2"), asked), Some(&[][..]));
        assert_eq!(verdicts.get(&id("1"), asked), None);
        verdicts.retain(&HashSet::new());
        assert_eq!(verdicts.get(&id("2"), asked), None);
    }

    fn placement<'a>(
        spec: &'a api::Placement,
        tags: &'a BTreeMap<String, String>,
    ) -> translate::TranslationTarget<'a> {
        translate::TranslationTarget {
            spec,
            tags,
            node: "n",
            node_address: None,
            identities: &translate::NO_IDENTITIES,
            accepted: &crate::api::NO_LOSSES,
        }
    }

    #[test]
    fn a_changed_capacity_keeps_verdicts_and_old_placements_are_dropped() {
        let (tags, mut verdicts) = (BTreeMap::new(), EligibilityCache::default());
        let mut weu = api::Placement::default();
        verdicts.evaluate(&pod("1", true), &[], &placement(&weu, &tags));
        let first = verdicts.target_id(&weu, &tags, "n");
        for pods in 0..1000 {
            weu.capacity.pods = pods;
            weu.labels.insert("edit".to_owned(), pods.to_string());
            assert_eq!(verdicts.target_id(&weu, &tags, "n"), first);
        }
        for edit in 0..2000 {
            weu.region = format!("region-{edit}");
            verdicts.evaluate(&pod("1", true), &[], &placement(&weu, &tags));
            let asked = verdicts
                .target_id(&weu, &tags, "n")
                .expect("it was asked about");
            assert!(verdicts.get(&id("1"), asked).is_some());
            assert!(verdicts.targets.len() <= MAX_TARGETS);
            assert!(verdicts.pods["u"].refusals.len() <= MAX_TARGETS);
        }
    }
}
