//! Orphans: nodes of this operator that no spec lists. This module finds and drains them.
//!
//! In: the nodes of this cluster, and the pools. Out: tasks for the nodes of placements that a spec has lost
//! while another instance led, until they are drained; and the drain of pools that were removed before they
//! were drained, because their finalizer was removed by hand. Otherwise their container groups would run, and
//! cost money, forever.
//!
//! The node records what the drain of its placement needs (see [`last_placement`]). A node without that record
//! is left as it is, and logged: with a guessed subscription, the drain would find nothing and report success
//! while everything still runs. If the node was removed by hand, this module cannot find its container groups;
//! only their tags identify them.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use futures::future::join_all;
use k8s_openapi::api::core::v1::Node;
use kube::api::ListParams;
use kube::core::DeserializeGuard;
use kube::{Api, ResourceExt as _};
use tokio::time::Instant;

use super::drain::backoff::DrainDelay;
use super::{drain, registry};
use crate::api::BurstPool;
use crate::controller::{ControllerContext, Error, RECONCILE_TIMEOUT, RESYNC_INTERVAL, metrics};
use crate::k8s::{call, watch_health};
use crate::node::last_placement::{self, DiscoveredNode};
use crate::node::node_object;

/// The timeout of a call. It is short because a node's Lease expires 40 s after its last renewal, and no task
/// renews it yet.
const CALL_TIMEOUT: Duration = Duration::from_secs(5);
/// How often the log repeats what the drain of a removed pool waits for.
const LOG_INTERVAL: Duration = Duration::from_secs(600);

/// The nodes of a pool, read from the API server: a watch may still show one that was just removed.
pub(in crate::controller) async fn list_pool_nodes(
    pool: &str,
    context: &ControllerContext,
) -> Result<Vec<DiscoveredNode>, Error> {
    let nodes: Api<DeserializeGuard<Node>> = Api::all(context.client.clone());
    let labelled = ListParams::default().labels(&format!("{}={pool}", node_object::POOL_LABEL));
    let nodes = call::with_timeout(CALL_TIMEOUT, nodes.list(&labelled)).await;
    let nodes = nodes.map_err(Error::kubernetes("listing a pool's nodes"))?;
    let pools = context.cache.all_pools();
    let discovered = nodes.into_iter().filter_map(watch_health::ok_or_log);
    let discovered = discovered.filter_map(|node| last_placement::discover(&node));
    let discovered = discovered.filter(|discovered| !belongs_to_other_pool(discovered, &pools));
    Ok(discovered.collect())
}

/// Whether the node carries the UID of an existing pool with another name than that in the node's label.
fn belongs_to_other_pool(found: &DiscoveredNode, pools: &[Arc<BurstPool>]) -> bool {
    let mut others = pools.iter().filter(|pool| pool.name_any() != found.pool);
    found.pool_uid.is_some() && others.any(|pool| pool.uid() == found.pool_uid)
}

/// The node of this name, if it exists.
async fn get_node(name: &str, context: &ControllerContext) -> Result<Option<Node>, Error> {
    let nodes: Api<Node> = Api::all(context.client.clone());
    let node = call::find(CALL_TIMEOUT, &nodes, name).await;
    node.map_err(Error::kubernetes("reading a node"))
}

/// Starts draining the pool's nodes that its spec does not list, once under each leader: later the running
/// tasks show which placements the spec has lost. Returns the existing nodes of placements that the spec lists
/// and whose tasks do not run.
pub(in crate::controller) async fn adopt_orphans(
    pool: &BurstPool,
    context: &ControllerContext,
) -> Result<Vec<Node>, Error> {
    let name = pool.name_any();
    if !registry::running_pool_names(context).await.contains(&name) {
        let found = list_pool_nodes(&name, context).await?.into_iter();
        for found in found.filter(|found| !registry::has_placement(pool, &found.placement)) {
            adopt_or_warn(found, context).await;
        }
    }
    // Read by name, not by label: a node with another owner has another label, or none, and the owner must be
    // known.
    let mut existing_nodes = Vec::new();
    for placement in registry::placements_not_running(pool, context).await {
        existing_nodes.extend(get_node(&node_object::name(&name, &placement), context).await?);
    }
    Ok(existing_nodes)
}

async fn adopt_or_warn(found: DiscoveredNode, context: &ControllerContext) {
    let node = found.node.clone();
    if registry::adopt_orphan(found, context).await {
        tracing::info!(%node, "draining a node that no spec lists");
    } else {
        tracing::warn!(%node, "cannot drain a node that no spec lists: it has no annotation burstpool.io/last-placement");
    }
}

/// Drains what is left of removed pools, for as long as this future is polled.
pub(in crate::controller) async fn drain_deleted_pools(context: &ControllerContext) {
    context.cache.wait_until_synced().await;
    let mut removed: BTreeMap<String, RemovedPool> = BTreeMap::new();
    loop {
        let suspected = {
            let running = registry::running_pool_names(context).await;
            let snapshot = context.cache.snapshot();
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
        join_all(due.map(|(pool, removed)| retry_drain(pool, removed, context))).await;
        let next = removed.values().filter_map(|removed| removed.next).min();
        let next_check = Instant::now() + RESYNC_INTERVAL;
        tokio::time::sleep_until(next.unwrap_or(next_check).min(next_check)).await;
    }
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

async fn retry_drain(pool: &str, removed: &mut RemovedPool, context: &ControllerContext) {
    let drained = tokio::time::timeout(RECONCILE_TIMEOUT, drain_if_deleted(pool, context)).await;
    let now = Instant::now();
    let left = match drained.map_err(Error::Timeout).flatten() {
        Ok(left) => left,
        Err(error) => {
            let source = std::error::Error::source(&error);
            let source = source
                .map(|source| format!(": {source}"))
                .unwrap_or_default();
            vec![format!("{error}{source}")]
        }
    };
    if left.is_empty() {
        removed.next = Some(now + RESYNC_INTERVAL);
        return;
    }
    removed.next = Some(now + removed.drain_delay.next_delay(&left, now));
    let left = left.join(", ");
    if removed.must_log(&left, now) {
        tracing::warn!(%pool, %left, "a deleted pool is not drained yet");
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

/// Drains a pool if it does not exist. Returns what is left of it.
async fn drain_if_deleted(pool: &str, context: &ControllerContext) -> Result<Vec<String>, Error> {
    if pool_exists(pool, context).await? {
        return Ok(Vec::new());
    }
    let running = registry::running_placements(pool, context).await;
    for found in list_pool_nodes(pool, context).await? {
        if !running.contains(&found.placement) {
            adopt_or_warn(found, context).await;
        }
    }
    let names = registry::running_placements(pool, context).await;
    let left = drain::drain_and_remove(pool, &names, context).await?;
    if left.is_empty() {
        metrics::forget_pool_and_placements(pool, &names, context);
    }
    Ok(left)
}

/// Whether the pool exists. Uses LIST, which fails while the API server does not serve pools; a GET would then
/// report that the pool does not exist.
async fn pool_exists(pool: &str, context: &ControllerContext) -> Result<bool, Error> {
    let pools: Api<BurstPool> = Api::all(context.client.clone());
    let only = ListParams::default().fields(&format!("metadata.name={pool}"));
    let found = call::with_timeout(CALL_TIMEOUT, pools.list_metadata(&only)).await;
    let found = found.map_err(Error::kubernetes("looking for a pool"))?;
    Ok(!found.items.is_empty())
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
