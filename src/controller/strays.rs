//! Nodes of ours that no spec asks for, found again so that they are drained.
//!
//! In: the nodes of this cluster, and the pools. Out: nodes of placements that a spec has lost while somebody
//! else led, kept again until they are drained; and pools drained that are gone although they were not, because
//! somebody removed their finalizer. Without, their container groups would run, and cost, for ever.
//!
//! What it takes to drain a placement is on its node (see [`record`]). A node that does not say it is left as
//! it is, and told of: guessing a subscription would end in "nothing is left" where all is left. A node that
//! was removed by hand tells of nothing either; its groups have tags that do.

use std::collections::BTreeSet;
use std::time::Duration;

use k8s_openapi::api::core::v1::Node;
use kube::api::ListParams;
use kube::{Api, ResourceExt as _};

use super::{Context, DRAIN_AGAIN, Error, LOOK_AGAIN, PATIENCE, drain, measure, pool};
use crate::api::BurstPool;
use crate::node::record::{self, Found};
use crate::node::{call, object};

/// How long a call may take: nodes that nobody keeps yet are given up after 40 s.
const CALL: Duration = Duration::from_secs(5);

/// The nodes of a pool that there are, asked for anew: a watch may still show one that was just removed.
pub(super) async fn nodes_of(pool: &str, context: &Context) -> Result<Vec<Found>, Error> {
    let nodes: Api<Node> = Api::all(context.client.clone());
    let ours = ListParams::default().labels(&format!("{}={pool}", object::POOL_LABEL));
    let nodes = call::in_time(CALL, nodes.list(&ours)).await;
    let nodes = nodes.map_err(Error::kubernetes("listing a pool's nodes"))?;
    Ok(nodes.iter().filter_map(record::found).collect())
}

/// Keeps a pool's nodes that its spec does not ask for; the others, as they are found. Once under each leader:
/// whoever keeps the pool's nodes knows of each that it does not ask for any more.
pub(super) async fn adopt(pool: &BurstPool, context: &Context) -> Result<Vec<Found>, Error> {
    let name = pool.name_any();
    if pool::kept(context).await.contains(&name) {
        return Ok(Vec::new());
    }
    let (asked, others): (Vec<_>, Vec<_>) = nodes_of(&name, context)
        .await?
        .into_iter()
        .partition(|found| pool::asks(pool, &found.placement));
    for found in others {
        keep(found, context).await;
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
    loop {
        let mut pause = LOOK_AGAIN;
        let suspected = {
            let kept = pool::kept(context).await;
            let view = context.stores.view();
            let nodes = view.nodes.values().map(AsRef::as_ref);
            suspects(kept, nodes, |pool| view.pools.contains_key(pool))
        };
        for pool in suspected {
            let drained = tokio::time::timeout(PATIENCE, drain_pool(&pool, context)).await;
            match drained.map_err(Error::Late).flatten() {
                Ok(left) if left.is_empty() => {}
                Ok(left) => {
                    tracing::debug!(%pool, left = left.join(", "), "draining a pool that is gone");
                    pause = DRAIN_AGAIN;
                }
                Err(error) => tracing::warn!(%pool, %error, "draining a pool that is gone"),
            }
        }
        tokio::time::sleep(pause).await;
    }
}

/// Pools of which there is something, kept or a node, and which the pools that are known lack. Pure.
fn suspects<'a>(
    kept: Vec<String>,
    nodes: impl Iterator<Item = &'a Node>,
    is_known: impl Fn(&str) -> bool,
) -> BTreeSet<String> {
    let all = nodes.filter_map(record::found).map(|found| found.pool);
    all.chain(kept).filter(|pool| !is_known(pool)).collect()
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

    fn node(name: &str, pool: &str) -> Node {
        let node = json!({
            "metadata": {"name": name, "labels": {
                "burstpool.io/pool": pool, "burstpool.io/placement": "weu", "type": "virtual-kubelet"}},
            "spec": {"taints": [{"key": "virtual-kubelet.io/provider", "value": pool, "effect": "NoSchedule"}]},
        });
        serde_json::from_value(node).expect("a node")
    }

    #[test]
    fn pools_that_have_something_left_and_are_not_known_are_suspected() {
        let nodes = [
            node("burst-known-weu", "known"),
            node("burst-gone-weu", "gone"),
            node("home", "labelled"),
        ];
        let kept = ["known", "kept"].map(str::to_owned).to_vec();
        let suspected = suspects(kept, nodes.iter(), |pool| pool == "known");
        let suspected: Vec<String> = suspected.into_iter().collect();
        assert_eq!(suspected, ["gone", "kept"]);
    }
}
