//! Whether ACI can run a pod, asked once for each version of a pod and each placement.
//!
//! In: a pod as it was watched, and a pool's placements. Out: what translation refuses. Translating
//! thousands of pods at every reconcile would cost seconds; here a verdict is kept until the pod or
//! the placement changes.

use std::collections::{HashMap, HashSet};

use k8s_openapi::api::core::v1::Pod;

use super::pod::PodRef;
use crate::aci::translate::{self, Unsupported};
use crate::api;

/// What translation says of pods, by UID.
#[derive(Debug, Default)]
pub struct Verdicts(HashMap<String, Verdict>);

#[derive(Debug, Default)]
struct Verdict {
    resource_version: String,
    /// For each placement that was asked about.
    placements: Vec<(api::Placement, Vec<Unsupported>)>,
}

impl Verdicts {
    /// Asks translation about `pod`, unless this version of it has been asked about.
    pub fn judge(
        &mut self,
        pod: &Pod,
        unknown_fields: &[String],
        placement: &translate::Placement<'_>,
    ) {
        let meta = &pod.metadata;
        let (Some(uid), Some(version)) = (&meta.uid, &meta.resource_version) else {
            return;
        };
        let verdict = self.0.entry(uid.clone()).or_default();
        if verdict.resource_version != *version {
            version.clone_into(&mut verdict.resource_version);
            verdict.placements.clear();
        }
        if verdict.of(placement.spec).is_some() {
            return;
        }
        let refusals = translate::eligible(pod, unknown_fields, placement).err();
        let entry = (placement.spec.clone(), refusals.unwrap_or_default());
        verdict.placements.push(entry);
    }

    /// What is refused of this version of the pod in `placement`; nothing if it was not asked about.
    pub fn of(&self, pod: &PodRef, placement: &api::Placement) -> Option<&[Unsupported]> {
        let verdict = self.0.get(&pod.uid)?;
        (verdict.resource_version == pod.resource_version)
            .then(|| verdict.of(placement))
            .flatten()
    }

    /// Forgets all pods but these.
    pub fn retain(&mut self, uids: &HashSet<&str>) {
        self.0.retain(|uid, _| uids.contains(uid.as_str()));
    }
}

impl Verdict {
    fn of(&self, placement: &api::Placement) -> Option<&[Unsupported]> {
        let mut known = self.placements.iter();
        known
            .find(|(known, _)| known == placement)
            .map(|(_, refusals)| refusals.as_slice())
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

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
        let (weu, neu) = (
            api::Placement::default(),
            api::Placement {
                name: "neu".to_owned(),
                ..api::Placement::default()
            },
        );
        let tags = BTreeMap::new();
        let place = |spec| translate::Placement {
            spec,
            tags: &tags,
            node: "n",
            node_address: None,
        };
        let mut verdicts = Verdicts::default();
        verdicts.judge(&pod("1", true), &[], &place(&weu));
        let refused = verdicts.of(&id("1"), &weu).expect("a verdict");
        assert_eq!(refused[0].field, "spec.hostNetwork");
        assert_eq!(verdicts.of(&id("1"), &neu), None);
        assert_eq!(verdicts.of(&id("2"), &weu), None);
        verdicts.judge(&pod("2", false), &[], &place(&weu));
        assert_eq!(verdicts.of(&id("2"), &weu), Some(&[][..]));
        assert_eq!(verdicts.of(&id("1"), &weu), None);
        verdicts.retain(&HashSet::new());
        assert_eq!(verdicts.of(&id("2"), &weu), None);
    }
}
