//! `burstpool explain`: reports what the plan decides about a pod, or about the workloads of a pool.
//!
//! In: a running cluster, which is read once; nothing is written. Out: text. The command decides as the leader
//! does, but without the state that only the leader has: denied grants, and the grants that the rate limit has
//! counted.
//!
//! | module | what it does |
//! | --- | --- |
//! | [`cluster_reader`] | reads the cluster |
//! | [`pod`], [`bound_pod`] | explain one pod |
//! | [`workloads`] | explains whether the pods of workloads can run on ACI |

mod bound_pod;
mod cluster_reader;
mod pod;
mod workloads;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::sync::Arc;

use anyhow::{Context as _, bail};
use kube::api::ListParams;
use kube::{Api, Client, ResourceExt as _};

use crate::aci::translate::IdentityNamespaces;
use crate::api::BurstPool;
use crate::burst::facts::assignment::Assignment;
use crate::burst::{ClaimStates, Neighbors, PlacementFacts, PodFacts};
use crate::controller::grants::planning;
use crate::controller::grants::planning::PlanInputs;
use crate::node::watched_pod::WatchedPod;

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
    let pods = pods.context("cannot list pods")?.items;
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

#[cfg(test)]
mod tests {
    use super::*;

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
