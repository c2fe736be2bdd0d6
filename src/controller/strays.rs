//! Nodes of ours that no spec asks for, found again so that they are drained.
//!
//! In: the nodes of this cluster, and the pools. Out: nodes of placements that a spec has lost while somebody
//! else led, kept again until they are drained; and pools drained that are gone although they were not, because
//! somebody removed their finalizer. Without, their container groups would run, and cost, for ever.
//!
//! What it takes to drain a placement is on its node (see [`record`]). A node that does not say it is left as
//! it is, and told of: guessing a subscription would end in "nothing is left" where all is left. A node that
//! was removed by hand tells of nothing either; its groups have tags that do.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use futures::future::join_all;
use k8s_openapi::api::core::v1::Node;
use kube::api::ListParams;
use kube::core::DeserializeGuard;
use kube::{Api, ResourceExt as _};
use tokio::time::Instant;

use super::drain::pace::Again;
use super::{Context, Error, LOOK_AGAIN, PATIENCE, drain, measure, pool};
use crate::api::BurstPool;
use crate::node::record::{self, Found};
use crate::node::{call, object, watched};

/// How long a call may take: nodes that nobody keeps yet are given up after 40 s.
const CALL: Duration = Duration::from_secs(5);
/// How often it is logged again what the drain of a pool that is gone waits for.
const REMIND: Duration = Duration::from_secs(600);

/// The nodes of a pool that there are, asked for anew: a watch may still show one that was just removed.
pub(super) async fn nodes_of(pool: &str, context: &Context) -> Result<Vec<Found>, Error> {
    let nodes: Api<DeserializeGuard<Node>> = Api::all(context.client.clone());
    let ours = ListParams::default().labels(&format!("{}={pool}", object::POOL_LABEL));
    let nodes = call::in_time(CALL, nodes.list(&ours)).await;
    let nodes = nodes.map_err(Error::kubernetes("listing a pool's nodes"))?;
    let others = context.stores.all_pools();
    let found = nodes.into_iter().filter_map(watched::read);
    let found = found.filter_map(|node| record::found(&node));
    let ours = found.filter(|found| !is_anothers(found, &others));
    Ok(ours.collect())
}

/// Whether a node carries the UID of a pool that there is, of another name than its label's.
fn is_anothers(found: &Found, pools: &[Arc<BurstPool>]) -> bool {
    let mut others = pools.iter().filter(|pool| pool.name_any() != found.pool);
    found.pool_uid.is_some() && others.any(|pool| pool.uid() == found.pool_uid)
}

/// The node of this name, if there is one.
async fn node(name: &str, context: &Context) -> Result<Option<Node>, Error> {
    let nodes: Api<Node> = Api::all(context.client.clone());
    let node = call::find(CALL, &nodes, name).await;
    node.map_err(Error::kubernetes("reading a node"))
}

/// Keeps a pool's nodes that its spec does not ask for; the others, as they are if they are not kept yet. Once
/// under each leader: whoever keeps the pool's nodes knows of each that it does not ask for any more.
pub(super) async fn adopt(pool: &BurstPool, context: &Context) -> Result<Vec<Node>, Error> {
    let name = pool.name_any();
    if !pool::kept(context).await.contains(&name) {
        let found = nodes_of(&name, context).await?.into_iter();
        for found in found.filter(|found| !pool::asks(pool, &found.placement)) {
            keep(found, context).await;
        }
    }
    // By name, and not by label: whose it is must be known, and another's has another label, or none.
    let mut asked = Vec::new();
    for placement in pool::unkept(pool, context).await {
        asked.extend(node(&object::name(&name, &placement), context).await?);
    }
    Ok(asked)
}

async fn keep(found: Found, context: &Context) {
    let node = found.node.clone();
    if pool::adopt(found, context).await {
        tracing::info!(%node, "draining a node that no spec asks for");
    } else {
        tracing::warn!(%node, "no spec asks for this node, and it does not say where its container groups are");
    }
}

/// Drains what is left of pools that are gone, for as long as it is polled.
pub(super) async fn drain_pools(context: &Context) {
    context.stores.wait_until_ready().await;
    let mut gone: BTreeMap<String, Gone> = BTreeMap::new();
    loop {
        let suspected = {
            let kept = pool::kept(context).await;
            let view = context.stores.view();
            let nodes = view.nodes.values().map(AsRef::as_ref);
            let pools: Vec<_> = view.pools.values().cloned().collect();
            suspects(kept, nodes, &pools, |pool| view.has_pool(pool))
        };
        gone.retain(|pool, _| suspected.contains(pool));
        for pool in suspected {
            gone.entry(pool).or_default();
        }
        let due = gone
            .iter_mut()
            .filter(|(_, gone)| gone.is_due(Instant::now()));
        // One whose calls are slow delays no other.
        join_all(due.map(|(pool, gone)| drain_again(pool, gone, context))).await;
        let next = gone.values().filter_map(|gone| gone.next).min();
        let look_again = Instant::now() + LOOK_AGAIN;
        tokio::time::sleep_until(next.unwrap_or(look_again).min(look_again)).await;
    }
}

/// A pool that is gone, and how its drain goes.
#[derive(Debug, Default)]
struct Gone {
    again: Again,
    next: Option<Instant>,
    /// What was logged last, and when.
    logged: Option<(String, Instant)>,
}

impl Gone {
    fn is_due(&self, now: Instant) -> bool {
        self.next.is_none_or(|next| next <= now)
    }

    /// Whether that it waits for this is to be logged now: once, and then now and then.
    fn must_log(&mut self, waits_for: &str, now: Instant) -> bool {
        let known = self.logged.as_ref();
        let is_told = known.is_some_and(|(told, at)| told == waits_for && now < *at + REMIND);
        if !is_told {
            self.logged = Some((waits_for.to_owned(), now));
        }
        !is_told
    }
}

async fn drain_again(pool: &str, gone: &mut Gone, context: &Context) {
    let drained = tokio::time::timeout(PATIENCE, drain_pool(pool, context)).await;
    let now = Instant::now();
    let left = match drained.map_err(Error::Late).flatten() {
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
        gone.next = Some(now + LOOK_AGAIN);
        return;
    }
    gone.next = Some(now + gone.again.after(&left, now));
    let left = left.join(", ");
    if gone.must_log(&left, now) {
        tracing::warn!(%pool, %left, "a pool that is gone is not drained yet");
    }
}

/// Pools of which there is something, kept or a node, and which the pools that are known lack. Pure.
fn suspects<'a>(
    kept: Vec<String>,
    nodes: impl Iterator<Item = &'a Node>,
    pools: &[Arc<BurstPool>],
    is_known: impl Fn(&str) -> bool,
) -> BTreeSet<String> {
    let found = nodes.filter_map(record::found);
    let found = found.filter(|found| !is_anothers(found, pools));
    let all = found.map(|found| found.pool).chain(kept);
    all.filter(|pool| !is_known(pool)).collect()
}

/// Drains a pool if it is gone: what is left of it.
async fn drain_pool(pool: &str, context: &Context) -> Result<Vec<String>, Error> {
    if is_there(pool, context).await? {
        return Ok(Vec::new());
    }
    let kept = pool::placements(pool, context).await;
    for found in nodes_of(pool, context).await? {
        if !kept.contains(&found.placement) {
            keep(found, context).await;
        }
    }
    let names = pool::placements(pool, context).await;
    let left = drain::remove(pool, &names, context).await?;
    if left.is_empty() {
        measure::forget_all(pool, &names, context);
    }
    Ok(left)
}

/// Whether the pool is there: a LIST, which fails where nobody serves pools, while a GET would say that there
/// is none.
async fn is_there(pool: &str, context: &Context) -> Result<bool, Error> {
    let pools: Api<BurstPool> = Api::all(context.client.clone());
    let only = ListParams::default().fields(&format!("metadata.name={pool}"));
    let found = call::in_time(CALL, pools.list_metadata(&only)).await;
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
    fn what_a_drain_waits_for_is_logged_when_it_is_new_and_every_ten_minutes() {
        let mut gone = Gone::default();
        let start = Instant::now();
        let mut told = 0;
        for second in 0..1500 {
            let now = start + Duration::from_secs(second);
            told += u32::from(gone.must_log("pod default/web", now));
        }
        assert_eq!(told, 3);
        let now = start + Duration::from_secs(1500);
        assert!(gone.must_log("node burst-shop-weu", now));
        assert!(!gone.must_log("node burst-shop-weu", now));
    }

    #[test]
    fn pools_that_have_something_left_and_are_not_known_are_suspected() {
        let mut nodes = [
            node("burst-known-weu", "known"),
            node("burst-gone-weu", "gone"),
            node("home", "labelled"),
        ];
        let kept = ["known", "kept"].map(str::to_owned).to_vec();
        let known = json!({
            "apiVersion": "burstpool.io/v1alpha1", "kind": "BurstPool",
            "metadata": {"name": "known", "uid": "u"}, "spec": {"azure": {}, "placements": []},
        });
        let known: BurstPool = serde_json::from_value(known).expect("a pool");
        let known = [Arc::new(known)];
        let suspected = suspects(kept.clone(), nodes.iter(), &known, |pool| pool == "known");
        let suspected: Vec<String> = suspected.into_iter().collect();
        assert_eq!(suspected, ["gone", "kept"]);
        // What is labelled as another's, and is of a pool that there is by its UID.
        let carried = BTreeMap::from([(POOL_UID_ANNOTATION.to_owned(), "u".to_owned())]);
        nodes[1].metadata.annotations = Some(carried);
        let suspected = suspects(kept, nodes.iter(), &known, |pool| pool == "known");
        assert_eq!(suspected.into_iter().collect::<Vec<_>>(), ["kept"]);
    }
}
