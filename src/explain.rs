//! `burstpool explain`: reports what the plan decides about a pod, or about the workloads of a pool.
//!
//! In: a running cluster, which is read once; nothing is written. Out: text. The command decides as the leader
//! does, but without the state that only the leader has: denied grants, and the grants that the rate limit has
//! counted.

mod bound_pod;
mod cluster_reader;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::sync::Arc;

use anyhow::{Context as _, bail};
use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::core::v1::Pod;
use kube::api::ListParams;
use kube::{Api, Client, ResourceExt as _};

use crate::aci::translate::{self, IdentityNamespaces, Unsupported};
use crate::api::{BurstPool, Workload};
use crate::burst::facts::assignment::Assignment;
use crate::burst::facts::pod::PodStage;
use crate::burst::{
    self, ClaimStates, EligibilityCache, LeaderState, Leadership, Neighbors, PlacementFacts,
    PodFacts, ReasonCounts,
};
use crate::controller::grants::planning;
use crate::controller::grants::planning::{PlanInputs, PlannedPool};
use crate::node::watched_pod::WatchedPod;
use bound_pod::describe_state;

/// How many failed reads the answer names.
const MAX_UNREAD_SHOWN: usize = 5;

/// What to explain.
#[derive(Clone, Debug)]
pub struct ExplainQuery {
    /// The name of the pool.
    pub pool: String,
    /// Namespace and name of a pod; `None` to explain the workloads.
    pub pod: Option<(String, String)>,
    /// The namespaces whose pods may choose managed identities, as in the operator's option.
    pub identities: IdentityNamespaces,
}

/// Returns the answer, as lines of text.
///
/// # Errors
///
/// If the pool or the pod does not exist, or the cluster cannot be read.
pub async fn explain(client: &Client, query: &ExplainQuery) -> anyhow::Result<String> {
    let snapshot = Arc::new(cluster_reader::read_snapshot(client).await?);
    if snapshot.unreadable.contains(&query.pool) {
        bail!(
            "BurstPool {} has a value that this version of burstpool cannot read: its Stalled condition names it",
            query.pool
        );
    }
    let Some(pool) = snapshot.pools.get(&query.pool).cloned() else {
        bail!(
            "there is no BurstPool {}: kubectl get burstpools lists the existing ones",
            query.pool
        );
    };
    let inputs = PlanInputs {
        scales: cluster_reader::read_scales(client, &snapshot, &pool).await,
        claims: ClaimStates::new(),
        neighbors: Neighbors::default(),
        // Only the counts of a status need it.
        on_pool_nodes: BTreeMap::new(),
        snapshot,
    };
    let pods_api: Api<WatchedPod> = Api::all(client.clone());
    let pods = pods_api.list(&ListParams::default()).await;
    let pods = pods.context("listing pods")?.items;
    let mut explained = ExplainInputs {
        pods: explained_pods(&pods, &inputs, &pool),
        placements: planning::placement_facts(
            &inputs.snapshot,
            &pool,
            &unavailable_placements(&pool),
        ),
        pool: &pool,
        identities: &query.identities,
        inputs,
        unread: Vec::new(),
    };
    explained.inputs.neighbors = cluster_reader::neighbors(client, &explained.pods).await;
    let claims = explained.claims_of(query);
    (explained.inputs.claims, explained.unread) = cluster_reader::read_claims(client, claims).await;
    match &query.pod {
        Some((namespace, name)) => explained.explain_pod(namespace, name),
        None => Ok(explained.explain_workloads()),
    }
}

/// By placement, why it takes no pods, as the leader has written it into the pool's status.
fn unavailable_placements(pool: &BurstPool) -> BTreeMap<String, String> {
    let status = pool.status.iter().flat_map(|status| &status.placements);
    let closed = status.filter(|placement| !placement.ready);
    closed
        .map(|placement| (placement.name.clone(), placement.message.clone()))
        .collect()
}

/// A pod, and its workload in the pool; or, as text, the workload of another pool to which it belongs.
struct ExplainedPod<'a> {
    observed: &'a WatchedPod,
    facts: PodFacts,
    workload: Result<String, String>,
}

/// All pods that can be read, each with its workload.
fn explained_pods<'a>(
    pods: &'a [WatchedPod],
    inputs: &PlanInputs,
    pool: &BurstPool,
) -> Vec<ExplainedPod<'a>> {
    let pools: Vec<&BurstPool> = inputs.snapshot.pools.values().map(AsRef::as_ref).collect();
    let facts: Vec<(&WatchedPod, PodFacts)> = pods
        .iter()
        .filter_map(|pod| Some((pod, PodFacts::from_pod(&pod.pod)?)))
        .collect();
    let mut assignment = Assignment::new(&pools, &inputs.scales, &inputs.snapshot.namespaces);
    let pool_name = pool.name_any();
    let workloads: Vec<Result<String, String>> = facts
        .iter()
        .map(|(_, facts)| match assignment.workloads_of(facts).next() {
            Some(member) if member.pool == pool_name => Ok(member.workload.to_owned()),
            Some(member) => Err(format!("{} of pool {}", member.workload, member.pool)),
            None => Err(format!("none of pool {pool_name} has this pod")),
        })
        .collect();
    drop(assignment);
    let explained = facts.into_iter().zip(workloads);
    explained
        .map(|((observed, facts), workload)| ExplainedPod {
            observed,
            facts,
            workload,
        })
        .collect()
}

/// The inputs of an answer.
struct ExplainInputs<'a> {
    inputs: PlanInputs,
    pool: &'a BurstPool,
    pods: Vec<ExplainedPod<'a>>,
    placements: Vec<PlacementFacts>,
    identities: &'a IdentityNamespaces,
    /// What could not be read, and is missing from the answer.
    unread: Vec<String>,
}

impl ExplainInputs<'_> {
    /// The settings of the virtual nodes, without their address, because no refusal depends on it.
    fn host_settings(&self) -> planning::HostSettings<'_> {
        planning::HostSettings {
            node_address: None,
            identities: self.identities,
        }
    }

    /// The claims of the pod in question, or of all pods of the pool's workloads.
    fn claims_of(&self, query: &ExplainQuery) -> BTreeSet<(String, String)> {
        let pods = self.pods.iter().filter(|pod| match &query.pod {
            Some((namespace, name)) => pod.has_name(namespace, name),
            None => pod.workload.is_ok(),
        });
        pods.flat_map(|pod| {
            let claims = pod.facts.claims.iter();
            claims.map(|(_, name)| (pod.facts.id.namespace.clone(), name.clone()))
        })
        .collect()
    }

    /// Explains one pod.
    fn explain_pod(&self, namespace: &str, name: &str) -> anyhow::Result<String> {
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
                    "it {state} on ACI in placement {}: it was granted{at}",
                    facts.placement
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
            None if facts.grant.is_some() => {
                "Granted: the scheduler has not placed it yet".to_owned()
            }
            None => "there is no decision about it yet".to_owned(),
        }
    }

    /// Explains for each workload whether its pods can run on ACI at all.
    fn explain_workloads(&self) -> String {
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
        summarize_refusals(checked.map(|pod| self.refusals_of(pod)))
    }

    /// What keeps a pod off every placement; empty if a placement could take it.
    fn refusals_of(&self, pod: &ExplainedPod<'_>) -> Vec<String> {
        let (mut refusals, mut is_possible) = (BTreeSet::new(), false);
        let (observed, constraints) = (pod.observed, &pod.facts.node_constraints);
        let unbound = without_node(&observed.pod);
        let to_text = |refusal: Unsupported| refusal.to_string();
        let node = self.host_settings();
        let targets = planning::translation_targets(self.pool, &self.placements, &node);
        for (placement, facts) in targets.zip(&self.placements) {
            let refused = translate::eligible(&unbound, &observed.unknown_fields, &placement).err();
            let refused = refused.unwrap_or_default();
            let excluded = constraints.refusal(&facts.node, &facts.labels, &facts.taints);
            is_possible |= refused.is_empty() && excluded.is_none();
            refusals.extend(refused.into_iter().chain(excluded).map(to_text));
        }
        if let burst::MountReadiness::Refused(unmountable) =
            burst::mount_readiness(&pod.facts, &self.inputs.claims)
        {
            is_possible = false;
            refusals.extend(unmountable.into_iter().map(to_text));
        }
        if is_possible {
            refusals.clear();
        }
        refusals.into_iter().collect()
    }
}

/// Whether pods can run on ACI. `pods` holds the refusals of each pod, which are empty if a placement could
/// take it.
fn summarize_refusals(pods: impl Iterator<Item = Vec<String>>) -> String {
    let (mut count, mut refused) = (0, ReasonCounts::default());
    for refusals in pods {
        count += 1;
        if !refusals.is_empty() {
            refused.add(refusals);
        }
    }
    let looked_at = match count {
        0 => return "has no pods to check".to_owned(),
        1 => "1 pod checked".to_owned(),
        more => format!("{more} pods checked"),
    };
    match refused.pods() {
        0 => format!("can run on ACI ({looked_at})"),
        all if all == count => format!("cannot run on ACI: {} ({looked_at})", refused.summary()),
        some => format!(
            "{some} of {count} pods cannot run on ACI: {}",
            refused.summary()
        ),
    }
}

/// A line for each failed read.
fn unread_lines<'a>(unread: impl Iterator<Item = &'a String>) -> String {
    let (unread, mut lines): (Vec<&String>, _) = (unread.collect(), String::new());
    for what in unread.iter().take(MAX_UNREAD_SHOWN) {
        let _ = writeln!(lines, "not known: {what}");
    }
    if let more @ 1.. = unread.len().saturating_sub(MAX_UNREAD_SHOWN) {
        let _ = writeln!(lines, "not known: {more} more");
    }
    lines
}

impl ExplainedPod<'_> {
    fn has_name(&self, namespace: &str, name: &str) -> bool {
        self.facts.id.namespace == namespace && self.facts.id.name == name
    }
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
            let can = std::iter::repeat_with(Vec::new).take(can);
            let networks = std::iter::repeat_with(network).take(networks);
            summarize_refusals(
                can.chain(networks)
                    .chain(std::iter::repeat_with(path).take(paths)),
            )
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
    fn failed_reads_are_named_up_to_a_limit() {
        let unread: Vec<String> = (0..7).map(|n| format!("claim {n}")).collect();
        assert_eq!(unread_lines(unread[..1].iter()), "not known: claim 0\n");
        let lines = unread_lines(unread.iter());
        assert_eq!(
            (lines.lines().count(), lines.lines().last()),
            (6, Some("not known: 2 more"))
        );
    }
}
