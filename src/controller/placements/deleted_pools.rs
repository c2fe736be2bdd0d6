//! Drains deleted pools, and pools that were removed before they were drained.
//!
//! In: deleted pools that have the finalizer, when they are reconciled; and the nodes and tasks of pools that do
//! not exist, because their finalizer was removed by hand. Out: what is left of each, as text; nothing, once it
//! is drained. Without this, the container groups of such a pool would run, and cost money, forever.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use futures::future::join_all;
use k8s_openapi::api::core::v1::Node;
use kube::api::ListParams;
use kube::{Api, ResourceExt as _};
use tokio::time::Instant;

use super::drain::PlacementDrain;
use super::drain_pace::DrainDelay;
use super::pool_nodes::{PoolNodes, belongs_to_other_pool};
use super::validation::InvalidSpec;
use super::{Error, PlacementId};
use crate::api::BurstPool;
use crate::k8s::call;
use crate::node::last_placement::{self, DiscoveredNode};
use crate::telemetry::error_chain;

/// The timeout of a call.
const CALL_TIMEOUT: Duration = Duration::from_secs(5);
/// The deadline of one try to drain a removed pool. The next try starts again from the current state.
const DRAIN_TIMEOUT: Duration = Duration::from_secs(300);
/// How often to look for removed pools.
const CHECK_INTERVAL: Duration = Duration::from_secs(10);
/// How often the log repeats what the drain of a removed pool waits for.
const LOG_INTERVAL: Duration = Duration::from_secs(600);

/// Drains deleted pools.
pub(in crate::controller) struct DeletedPools {
    /// The nodes of pools.
    pub nodes: PoolNodes,
    /// Drains their placements.
    pub drain: PlacementDrain,
}

impl DeletedPools {
    /// Drains a deleted pool that exists because of its finalizer, and removes its nodes when nothing is left on
    /// them. Returns what is left.
    pub async fn drain_pool(&self, pool: &BurstPool) -> Result<Vec<String>, Error> {
        self.nodes.drain_unlisted(pool).await?;
        let existing_nodes = self.nodes.of_placements_not_running(pool).await?;
        // After a restart of the operator no pod workers run for the pool, but they must until its pods are gone.
        let registry = &self.drain.registry;
        let ensured = registry.apply_spec(pool, &existing_nodes).await;
        let name = pool.name_any();
        let running = registry.running_placements(&name).await;
        let mut left = match ensured {
            Ok(()) => Vec::new(),
            // Placements that ran before the spec became invalid are drained. Others may still have nodes.
            Err(InvalidSpec(mistake)) => self.undrainable_nodes(&name, &running, &mistake).await?,
        };
        left.extend(
            self.drain
                .drain_and_remove_together(&name, &running)
                .await?,
        );
        Ok(left)
    }

    /// What is left of a pool with an invalid spec whose tasks have not run since the operator was restarted: its
    /// nodes and what runs on them. Nothing, if the pool never had nodes.
    async fn undrainable_nodes(
        &self,
        pool: &str,
        running: &[PlacementId],
        mistake: &str,
    ) -> Result<Vec<String>, Error> {
        let nodes = self.nodes.list(pool).await?.into_iter();
        let left = nodes.filter(|node| !runs(running, node));
        let left = left.map(|DiscoveredNode { node, .. }| {
            format!(
                "node {node} and what runs there, which cannot be drained until this is corrected: {mistake}"
            )
        });
        Ok(left.collect())
    }

    /// Drains what is left of pools that do not exist, for as long as this future is polled. Calls `on_drained`
    /// with the name of each pool that is drained, and with its placements.
    pub async fn drain_removed_pools(&self, on_drained: impl Fn(&str, &[PlacementId])) {
        self.nodes.cache.wait_until_synced().await;
        let mut removed: BTreeMap<String, RemovedPool> = BTreeMap::new();
        loop {
            let suspected = {
                let running = self.drain.registry.tracked_pool_names().await;
                let snapshot = self.nodes.cache.snapshot();
                let nodes = snapshot.nodes.values().map(AsRef::as_ref);
                let pools: Vec<_> = snapshot.pools.values().cloned().collect();
                possibly_deleted(running, nodes, &pools, |pool| snapshot.has_pool(pool))
            };
            removed.retain(|pool, _| suspected.contains(pool));
            for pool in suspected {
                removed.entry(pool).or_default();
            }
            let due = removed
                .iter_mut()
                .filter(|(_, removed)| removed.is_due(Instant::now()));
            // In parallel: slow calls for one pool delay no other.
            join_all(due.map(|(pool, removed)| self.retry_drain(pool, removed, &on_drained))).await;
            let next = removed.values().filter_map(|removed| removed.next).min();
            let next_check = Instant::now() + CHECK_INTERVAL;
            tokio::time::sleep_until(next.unwrap_or(next_check).min(next_check)).await;
        }
    }

    async fn retry_drain(
        &self,
        pool: &str,
        removed: &mut RemovedPool,
        on_drained: &impl Fn(&str, &[PlacementId]),
    ) {
        let drained = self.drain_if_deleted(pool, on_drained);
        let drained = tokio::time::timeout(DRAIN_TIMEOUT, drained).await;
        let now = Instant::now();
        let left = match drained.unwrap_or(Err(Error::DrainTimeout(DRAIN_TIMEOUT))) {
            Ok(left) => left,
            Err(error) => vec![error_chain(&error)],
        };
        if left.is_empty() {
            removed.next = Some(now + CHECK_INTERVAL);
            return;
        }
        removed.next = Some(now + removed.drain_delay.next_delay(&left, now));
        let left = left.join(", ");
        if removed.must_log(&left, now) {
            tracing::warn!(%pool, %left, "a deleted pool is not drained yet");
        }
    }

    /// Drains a pool if it does not exist. Returns what is left of it.
    async fn drain_if_deleted(
        &self,
        pool: &str,
        on_drained: &impl Fn(&str, &[PlacementId]),
    ) -> Result<Vec<String>, Error> {
        if self.pool_exists(pool).await? {
            return Ok(Vec::new());
        }
        let registry = &self.drain.registry;
        let running = registry.running_placements(pool).await;
        for found in self.nodes.list(pool).await? {
            if !runs(&running, &found) {
                self.nodes.start_drain(found).await;
            }
        }
        let ids = registry.running_placements(pool).await;
        let left = self.drain.drain_and_remove_together(pool, &ids).await?;
        if left.is_empty() {
            on_drained(pool, &ids);
        }
        Ok(left)
    }

    /// Whether the pool exists. Uses LIST, which fails while the API server does not serve pools; a GET would
    /// then report that the pool does not exist.
    async fn pool_exists(&self, pool: &str) -> Result<bool, Error> {
        let pools: Api<BurstPool> = Api::all(self.nodes.client.clone());
        let only = ListParams::default().fields(&format!("metadata.name={pool}"));
        let found = call::with_timeout(CALL_TIMEOUT, pools.list_metadata(&only)).await;
        let found = found.map_err(|source| Error::FindPool {
            pool: pool.to_owned(),
            source,
        })?;
        Ok(!found.items.is_empty())
    }
}

/// Whether the tasks of this node's placement run.
fn runs(running: &[PlacementId], node: &DiscoveredNode) -> bool {
    running.iter().any(|id| id.placement == node.placement)
}

/// A removed pool, and the state of its drain.
#[derive(Debug, Default)]
struct RemovedPool {
    drain_delay: DrainDelay,
    next: Option<Instant>,
    /// What was logged last, and when.
    logged: Option<(String, Instant)>,
}

impl RemovedPool {
    fn is_due(&self, now: Instant) -> bool {
        self.next.is_none_or(|next| next <= now)
    }

    /// Whether to log now what the drain waits for: when it changes, and every [`LOG_INTERVAL`].
    fn must_log(&mut self, waits_for: &str, now: Instant) -> bool {
        let logged = self.logged.as_ref();
        let is_logged =
            logged.is_some_and(|(text, at)| text == waits_for && now < *at + LOG_INTERVAL);
        if !is_logged {
            self.logged = Some((waits_for.to_owned(), now));
        }
        !is_logged
    }
}

/// Possibly deleted pools: those that have tasks or a node, and that are not among the known pools. Pure.
fn possibly_deleted<'a>(
    running: Vec<String>,
    nodes: impl Iterator<Item = &'a Node>,
    pools: &[Arc<BurstPool>],
    is_known: impl Fn(&str) -> bool,
) -> BTreeSet<String> {
    let discovered = nodes.filter_map(last_placement::discover);
    let discovered = discovered.filter(|discovered| !belongs_to_other_pool(discovered, pools));
    let names = discovered.map(|discovered| discovered.pool).chain(running);
    names.filter(|pool| !is_known(pool)).collect()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::api::names::POOL_UID_ANNOTATION;

    fn node(name: &str, pool: &str) -> Node {
        let node = json!({
            "metadata": {"name": name, "labels": {
                "burstpool.io/pool": pool, "burstpool.io/placement": "weu", "type": "virtual-kubelet"}},
            "spec": {"taints": [{"key": "virtual-kubelet.io/provider", "value": pool, "effect": "NoSchedule"}]},
        });
        serde_json::from_value(node).expect("a node")
    }

    #[test]
    fn the_reason_of_a_waiting_drain_is_logged_when_it_changes_and_every_ten_minutes() {
        let mut removed = RemovedPool::default();
        let start = Instant::now();
        let mut logged = 0;
        for second in 0..1500 {
            let now = start + Duration::from_secs(second);
            logged += u32::from(removed.must_log("pod default/web", now));
        }
        assert_eq!(logged, 3);
        let now = start + Duration::from_secs(1500);
        assert!(removed.must_log("node burst-shop-weu", now));
        assert!(!removed.must_log("node burst-shop-weu", now));
    }

    #[test]
    fn unknown_pools_with_tasks_or_nodes_are_possibly_deleted() {
        let mut nodes = [
            node("burst-known-weu", "known"),
            node("burst-gone-weu", "gone"),
            node("home", "labelled"),
        ];
        let running = ["known", "kept"].map(str::to_owned).to_vec();
        let known = json!({
            "apiVersion": "burstpool.io/v1alpha1", "kind": "BurstPool",
            "metadata": {"name": "known", "uid": "u"}, "spec": {"azure": {}, "placements": []},
        });
        let known: BurstPool = serde_json::from_value(known).expect("a pool");
        let known = [Arc::new(known)];
        let suspected = possibly_deleted(running.clone(), nodes.iter(), &known, |pool| {
            pool == "known"
        });
        let suspected: Vec<String> = suspected.into_iter().collect();
        assert_eq!(suspected, ["gone", "kept"]);
        // The label names another pool, but the node carries the UID of an existing one.
        let carried = BTreeMap::from([(POOL_UID_ANNOTATION.to_owned(), "u".to_owned())]);
        nodes[1].metadata.annotations = Some(carried);
        let suspected = possibly_deleted(running, nodes.iter(), &known, |pool| pool == "known");
        assert_eq!(suspected.into_iter().collect::<Vec<_>>(), ["kept"]);
    }
}
