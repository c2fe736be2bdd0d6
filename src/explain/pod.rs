//! Explains one pod.
//!
//! In: the inputs of an answer. Out: where the pod is, or what the plan decides about it.

use std::fmt::Write as _;

use anyhow::bail;
use jiff::{SignedDuration, Timestamp};
use kube::ResourceExt as _;

use super::bound_pod::describe_state;
use super::{ExplainInputs, ExplainedPod, unread_lines};
use crate::api::LossSet;
use crate::burst::facts::pod::PodStage;
use crate::burst::{EligibilityCache, LeaderState, Leadership, PodFacts};
use crate::controller::grants::planning;
use crate::controller::grants::planning::PlannedPool;

impl ExplainInputs<'_> {
    /// Explains one pod.
    pub(super) fn explain_pod(&self, namespace: &str, name: &str) -> anyhow::Result<String> {
        let mut pods = self.pods.iter();
        let Some(found) = pods.find(|pod| pod.has_name(namespace, name)) else {
            bail!("there is no pod {namespace}/{name}: --namespace chooses another namespace");
        };
        let (facts, workload) = (&found.facts, &found.workload);
        let pool = self.pool.name_any();
        let mut text = format!("pod {namespace}/{name}\n");
        let _ = match workload {
            Ok(workload) => writeln!(text, "workload: {workload} of pool {pool}"),
            Err(other) => writeln!(text, "workload: {other}"),
        };
        let explanation = match &facts.stage {
            PodStage::Finished => "it has finished".to_owned(),
            PodStage::Bound(bound) => self.explain_bound_pod(found, &bound.node),
            PodStage::Undecided | PodStage::Unschedulable(_) if workload.is_err() => {
                format!("pool {pool} does not decide about it")
            }
            PodStage::Undecided | PodStage::Unschedulable(_) => self.explain_decision(facts),
        };
        let _ = writeln!(text, "{explanation}");
        let scales = workload.is_err().then(|| self.unread_scales());
        text.push_str(&unread_lines(scales.iter().flatten().chain(&self.unread)));
        Ok(text)
    }

    /// As text, the workloads whose scale could not be read: any of them may own the pod.
    fn unread_scales(&self) -> Vec<String> {
        let workloads = self.pool.spec.workloads.iter();
        let unread = workloads.filter_map(|workload| {
            let key = (self.pool.name_any(), workload.name.clone());
            let why = self.inputs.scales.get(&key)?.as_ref().err()?;
            Some(format!(
                "the scale of workload {}, which may have this pod: {why}",
                workload.name
            ))
        });
        unread.collect()
    }

    fn explain_bound_pod(&self, pod: &ExplainedPod<'_>, node: &str) -> String {
        let facts = self.placements.iter().find(|facts| facts.node == node);
        let name = self.pool.name_any();
        let grant = pod.facts.grant.as_ref().filter(|grant| grant.pool == name);
        let state = describe_state(&pod.observed.pod);
        match (facts, grant) {
            (Some(facts), Some(grant)) => {
                let at = grant
                    .granted_at
                    .map(|at| format!(" at {at:.0}"))
                    .unwrap_or_default();
                format!(
                    "it {state} on ACI in placement {}: it was granted{at}{}",
                    facts.placement,
                    not_kept(&grant.not_kept)
                )
            }
            (Some(facts), None) => format!(
                "it {state} on ACI in placement {}: its own tolerations allow it, without a grant",
                facts.placement
            ),
            (None, Some(_)) => {
                format!(
                    "it was granted, and the scheduler placed it on {node}: it holds no slot now"
                )
            }
            (None, None) => format!("it is on {node}: no burst is needed for it"),
        }
    }

    /// The decision about a pod, as the plan words it.
    fn explain_decision(&self, facts: &PodFacts) -> String {
        let is_on_pool_node = |facts: &&PodFacts| {
            let node = facts.bound().map(|bound| &bound.node);
            node.is_some_and(|node| self.placements.iter().any(|place| place.node == *node))
        };
        let leader = self.pool.status.as_ref().and_then(|s| s.leader.clone());
        let (leader, leader_state) = (leader.unwrap_or_default(), LeaderState::default());
        let mut triggers = self.pool.status.iter().flat_map(|s| &s.triggers);
        let pods = self.pods.iter().map(|pod| &pod.facts);
        let planned_pool = PlannedPool {
            is_triggered: triggers.any(|trigger| trigger.active),
            placements: &self.placements,
            bound: pods.filter(is_on_pool_node).collect(),
            leadership: Leadership::Leading,
            leader_state: &leader_state,
            identity: &leader,
            ahead: SignedDuration::ZERO,
        };
        let mut eligibility = EligibilityCache::default();
        let (inputs, now) = (&self.inputs, Timestamp::now());
        let node = self.host_settings();
        let plan = planning::plan(
            &mut eligibility,
            inputs,
            self.pool,
            &planned_pool,
            &node,
            now,
        );
        let mut decisions = plan.decisions.iter();
        let decision = decisions.find(|decision| decision.pod.uid == facts.id.uid);
        match decision {
            Some(decision) => format!("{}: {}", decision.outcome.reason(), decision.outcome),
            None if facts.has_expired() => {
                let grant = facts.grant.as_ref();
                let why = grant.and_then(|grant| grant.refused.as_deref());
                let why = why.unwrap_or("the reason is not recorded");
                format!("GrantExpired: the scheduler places it on no virtual node: {why}")
            }
            None if let Some(grant) = &facts.grant => {
                let lost = not_kept(&grant.not_kept);
                format!("Granted: the scheduler has not placed it yet{lost}")
            }
            None => "there is no decision about it yet".to_owned(),
        }
    }
}

/// The end of a sentence about a granted pod: what its container group does not keep.
fn not_kept(losses: &LossSet) -> String {
    if losses.is_empty() {
        return String::new();
    }
    format!("; not kept, as the pool accepted (spill.accept): {losses}")
}
