//! Whether ACI can run a pod, asked once for each version of a pod and each placement.
//!
//! In: a pod as it was watched, and a pool's placements. Out: what translation refuses. Translating
//! thousands of pods at every reconcile would cost seconds; here a verdict is kept until the pod or
//! the placement changes.

use std::collections::{BTreeMap, HashMap, HashSet};

use k8s_openapi::api::core::v1::Pod;

use super::pod::{PodFacts, PodRef};
use crate::aci::translate::{self, Unsupported};
use crate::api;

/// Whether ACI can mount what is behind claims, or why not; by namespace and name. Of those that are not
/// there nobody knows yet.
pub type Claims = HashMap<String, HashMap<String, Result<(), String>>>;

/// What is behind a pod's claims that keeps it off ACI; without any words, nobody has looked there.
pub fn unmountable(pod: &PodFacts, claims: &Claims) -> Option<Vec<Unsupported>> {
    let known = claims.get(&pod.id.namespace);
    let mut refusals = Vec::new();
    for (at, claim) in &pod.claims {
        let Some(behind) = known.and_then(|known| known.get(claim)) else {
            return Some(Vec::new());
        };
        refusals.extend(behind.as_ref().err().map(|why| Unsupported {
            field: format!("spec.volumes[{at}].persistentVolumeClaim"),
            why: why.clone(),
        }));
    }
    (!refusals.is_empty()).then_some(refusals)
}

/// What translation says of pods, by UID.
#[derive(Debug, Default)]
pub struct Verdicts {
    /// Where translation was asked about; a verdict names one by its place here, to be small.
    asked: Vec<Asked>,
    pods: HashMap<String, Verdict>,
}

/// A placement that translation was asked about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AskedId(usize);

#[derive(Debug)]
struct Asked {
    spec: api::Placement,
    tags: BTreeMap<String, String>,
    node: String,
}

#[derive(Debug, Default)]
struct Verdict {
    resource_version: String,
    refusals: Vec<(AskedId, Vec<Unsupported>)>,
}

impl Verdicts {
    /// Asks translation about `pod`, unless this version of it has been asked about.
    pub fn judge(
        &mut self,
        pod: &Pod,
        unknown_fields: &[String],
        placement: &translate::Placement<'_>,
    ) {
        let text = |text: &Option<String>| text.clone().unwrap_or_default();
        let id = PodRef {
            namespace: text(&pod.metadata.namespace),
            name: text(&pod.metadata.name),
            uid: text(&pod.metadata.uid),
            resource_version: text(&pod.metadata.resource_version),
        };
        let known = self.id(placement.spec, placement.tags, placement.node);
        if known.is_some_and(|asked| self.of(&id, asked).is_some()) {
            return;
        }
        let refusals = translate::eligible(pod, unknown_fields, placement).err();
        self.learn(&id, placement, refusals.unwrap_or_default());
    }

    /// Keeps what translation says of `pod`.
    pub fn learn(
        &mut self,
        pod: &PodRef,
        placement: &translate::Placement<'_>,
        refusals: Vec<Unsupported>,
    ) {
        let known = self.id(placement.spec, placement.tags, placement.node);
        let asked = known.unwrap_or_else(|| {
            self.asked.push(Asked {
                spec: placement.spec.clone(),
                tags: placement.tags.clone(),
                node: placement.node.to_owned(),
            });
            AskedId(self.asked.len() - 1)
        });
        let verdict = self.pods.entry(pod.uid.clone()).or_default();
        if verdict.resource_version != pod.resource_version {
            pod.resource_version
                .clone_into(&mut verdict.resource_version);
            verdict.refusals.clear();
        }
        verdict.refusals.retain(|(known, _)| *known != asked);
        verdict.refusals.push((asked, refusals));
    }

    /// The placement of these, if anything was asked about it.
    pub fn id(
        &self,
        spec: &api::Placement,
        tags: &BTreeMap<String, String>,
        node: &str,
    ) -> Option<AskedId> {
        let is = |asked: &Asked| asked.node == node && asked.tags == *tags && asked.spec == *spec;
        self.asked.iter().position(is).map(AskedId)
    }

    /// What is refused of this version of the pod there; nothing if it was not asked about.
    pub fn of(&self, pod: &PodRef, asked: AskedId) -> Option<&[Unsupported]> {
        let verdict = self.pods.get(&pod.uid)?;
        let mut known = verdict.refusals.iter();
        known
            .find(|(known, _)| *known == asked && verdict.resource_version == pod.resource_version)
            .map(|(_, refusals)| refusals.as_slice())
    }

    /// Forgets all pods but these.
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

    fn id(version: &str) -> PodRef {
        PodRef {
            uid: "u".to_owned(),
            resource_version: version.to_owned(),
            ..PodRef::default()
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
        let place = |spec| translate::Placement {
            spec,
            tags: &tags,
            node: "n",
            node_address: None,
        };
        let mut verdicts = Verdicts::default();
        verdicts.judge(&pod("1", true), &[], &place(&weu));
        assert_eq!(verdicts.id(&neu, &tags, "n"), None);
        let asked = verdicts.id(&weu, &tags, "n").expect("it was asked about");
        let refused = verdicts.of(&id("1"), asked).expect("a verdict");
        assert_eq!(refused[0].field, "spec.hostNetwork");
        assert_eq!(verdicts.of(&id("2"), asked), None);
        verdicts.judge(&pod("2", false), &[], &place(&weu));
        assert_eq!(verdicts.of(&id("2"), asked), Some(&[][..]));
        assert_eq!(verdicts.of(&id("1"), asked), None);
        verdicts.retain(&HashSet::new());
        assert_eq!(verdicts.of(&id("2"), asked), None);
    }
}
