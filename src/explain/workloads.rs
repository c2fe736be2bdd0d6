//! Explains for each workload of a pool whether its pods can run on ACI at all.
//!
//! In: the inputs of an answer. Out: a line per workload. All pods of a workload are checked, wherever they run.

use std::collections::BTreeSet;
use std::fmt::Write as _;

use k8s_openapi::api::core::v1::Pod;
use kube::ResourceExt as _;

use super::{ExplainInputs, ExplainedPod, unread_lines};
use crate::aci::translate::{self, Unsupported, accept_losses};
use crate::api::{LossSet, Workload};
use crate::burst::facts::pod::PodStage;
use crate::burst::{self, ReasonCounts};
use crate::controller::grants::planning;

impl ExplainInputs<'_> {
    /// Explains for each workload whether its pods can run on ACI at all.
    pub(super) fn explain_workloads(&self) -> String {
        let pool = self.pool.name_any();
        if self.pool.spec.workloads.is_empty() {
            return format!(
                "pool {pool} has no workloads: only pods that users place run on its nodes\n"
            );
        }
        let mut text = format!("pool {pool}\n");
        for workload in &self.pool.spec.workloads {
            let _ = writeln!(
                text,
                "{}: {}",
                workload.name,
                self.explain_workload(workload)
            );
        }
        text.push_str(&unread_lines(self.unread.iter()));
        text
    }

    fn explain_workload(&self, workload: &Workload) -> String {
        let key = (self.pool.name_any(), workload.name.clone());
        if let Some(Err(why)) = self.inputs.scales.get(&key) {
            return format!("its pods cannot be determined: {why}");
        }
        let belongs_to_workload =
            |pod: &&ExplainedPod<'_>| pod.workload.as_ref() == Ok(&workload.name);
        let pods: Vec<&ExplainedPod<'_>> = self.pods.iter().filter(belongs_to_workload).collect();
        // Finished pods are weak evidence for future ones, but better than none.
        let is_finished = |pod: &ExplainedPod<'_>| matches!(pod.facts.stage, PodStage::Finished);
        let are_all_finished = pods.iter().all(|pod| is_finished(pod));
        let checked = pods
            .iter()
            .filter(|pod| are_all_finished || !is_finished(pod));
        let accepted = self.pool.spec.spill.accepted_losses(workload);
        summarize(checked.map(|pod| self.losses_of(pod, &accepted)))
    }

    /// What a pod that may lose what is `accepted` loses on ACI; or, if no placement could take it, what keeps it off
    /// every placement.
    fn losses_of(
        &self,
        pod: &ExplainedPod<'_>,
        accepted: &LossSet,
    ) -> Result<LossSet, Vec<String>> {
        let (mut refusals, mut is_possible) = (BTreeSet::new(), false);
        let mut lost = LossSet::default();
        let (observed, constraints) = (pod.observed, &pod.facts.node_constraints);
        let unbound = without_node(&observed.pod);
        let to_text = |refusal: Unsupported| refusal.to_string();
        let node = self.host_settings();
        let targets = planning::translation_targets(self.pool, &self.placements, &node);
        for (placement, facts) in targets.zip(&self.placements) {
            let refused = translate::eligible(&unbound, &observed.unknown_fields, &placement).err();
            let refused = refused.unwrap_or_default();
            let excluded = constraints.refusal(&facts.node, &facts.labels, &facts.taints);
            let refused = match accept_losses(&refused, accepted) {
                Ok(losses) => {
                    if excluded.is_none() {
                        is_possible = true;
                        lost.extend(losses.iter());
                    }
                    Vec::new()
                }
                Err(refused) => refused.into_iter().cloned().collect(),
            };
            refusals.extend(refused.into_iter().chain(excluded).map(to_text));
        }
        if let burst::MountReadiness::Refused(unmountable) =
            burst::mount_readiness(&pod.facts, &self.inputs.claims)
        {
            is_possible = false;
            refusals.extend(unmountable.into_iter().map(to_text));
        }
        if is_possible {
            Ok(lost)
        } else {
            Err(refusals.into_iter().collect())
        }
    }
}

/// Whether pods can run on ACI. `pods` holds for each pod what it loses there, or, if no placement could take it, the
/// refusals.
fn summarize(pods: impl Iterator<Item = Result<LossSet, Vec<String>>>) -> String {
    let (mut count, mut refused, mut lost) = (0, ReasonCounts::default(), LossSet::default());
    for pod in pods {
        count += 1;
        match pod {
            Ok(losses) => lost.extend(losses.iter()),
            Err(refusals) => refused.add(refusals),
        }
    }
    let looked_at = match count {
        0 => return "has no pods to check".to_owned(),
        1 => "1 pod checked".to_owned(),
        more => format!("{more} pods checked"),
    };
    let mut summary = match refused.pods() {
        0 => format!("can run on ACI ({looked_at})"),
        all if all == count => format!("cannot run on ACI: {} ({looked_at})", refused.summary()),
        some => format!(
            "{some} of {count} pods cannot run on ACI: {}",
            refused.summary()
        ),
    };
    if !lost.is_empty() {
        let _ = write!(
            summary,
            "; not kept, as the pool accepts (spill.accept): {lost}"
        );
    }
    summary
}

/// The pod as it was before it had a node.
fn without_node(pod: &Pod) -> Pod {
    let mut pod = pod.clone();
    if let Some(spec) = &mut pod.spec {
        spec.node_name = None;
    }
    pod
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_workload_is_judged_by_all_of_its_pods() {
        let network = || vec!["spec.hostNetwork: there is no host".to_owned()];
        let path = || vec!["spec.volumes[0].hostPath: there is no host".to_owned()];
        let summary = |can: usize, networks: usize, paths: usize| {
            let can = std::iter::repeat_with(|| Ok(LossSet::default())).take(can);
            let networks = std::iter::repeat_with(|| Err(network())).take(networks);
            let paths = std::iter::repeat_with(|| Err(path())).take(paths);
            summarize(can.chain(networks).chain(paths))
        };
        for (pods, expected) in [
            ((0, 0, 0), "has no pods to check"),
            ((1, 0, 0), "can run on ACI (1 pod checked)"),
            ((565, 0, 0), "can run on ACI (565 pods checked)"),
            (
                (0, 1, 0),
                "cannot run on ACI: spec.hostNetwork: there is no host (1 pod checked)",
            ),
            (
                (1, 500, 64),
                "564 of 565 pods cannot run on ACI: 500 for spec.hostNetwork: there is no host; \
                 64 for spec.volumes[0].hostPath: there is no host",
            ),
        ] {
            assert_eq!(summary(pods.0, pods.1, pods.2), expected);
        }
    }

    #[test]
    fn what_pods_lose_is_named() {
        let lost = LossSet::from_annotation("fsGroup,seccomp");
        let pods = [Ok(lost), Ok(LossSet::default())];
        assert_eq!(
            summarize(pods.into_iter()),
            "can run on ACI (2 pods checked); not kept, as the pool accepts (spill.accept): fsGroup,seccomp"
        );
    }
}
