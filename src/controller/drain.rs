//! Taking the pods of a pool, or of a placement, away before their node goes.
//!
//! In: a pool. Out: what is left of it, in words; nothing when all is gone, nodes and tasks, too. Pods leave
//! through the Eviction API, so budgets hold them back; groups go with their pods.

use futures::future::join_all;
use k8s_openapi::api::core::v1::Pod;
use kube::api::{EvictParams, ListParams};
use kube::{Api, ResourceExt as _};

use super::mistake::Mistake;
use super::{Context, Error, pool, strays};
use crate::api::BurstPool;
use crate::node::record::Found;
use crate::node::{daemon, object};

/// Drains a whole pool, and removes its nodes when nothing is left there: what is left.
pub(super) async fn pool(pool: &BurstPool, context: &Context) -> Result<Vec<String>, Error> {
    let found = strays::adopt(pool, context).await?;
    // After a restart of the operator nobody keeps the pool's pods: somebody must, until they are gone.
    let ensured = pool::ensure(pool, &found, context).await;
    let own = pool.name_any();
    let kept = pool::placements(&own, context).await;
    let mut left = match ensured {
        Ok(()) => Vec::new(),
        // What is kept as it was before the mistake is drained; of the rest there may be nodes.
        Err(Mistake(mistake)) => stranded(&own, &kept, &mistake, context).await?,
    };
    left.extend(remove(&own, &kept, context).await?);
    Ok(left)
}

/// What is left of a pool whose spec has a mistake, of the placements that nobody keeps since the operator was
/// restarted: their nodes, with what runs there. Nothing of a pool that never worked.
async fn stranded(
    pool: &str,
    kept: &[String],
    mistake: &str,
    context: &Context,
) -> Result<Vec<String>, Error> {
    let nodes = strays::nodes_of(pool, context).await?;
    let left = nodes
        .into_iter()
        .filter(|found| !kept.contains(&found.placement));
    let left = left.map(|Found { node, .. }| {
        format!("node {node} and what runs there, which cannot be drained before this is corrected: {mistake}")
    });
    Ok(left.collect())
}

/// Drains placements that the spec does not name any more, and removes those that are empty.
pub(super) async fn placements(
    pool: &str,
    removed: &[String],
    context: &Context,
) -> Result<Vec<String>, Error> {
    let left = removed
        .iter()
        .map(|name| remove(pool, std::slice::from_ref(name), context));
    let left: Result<Vec<_>, Error> = join_all(left).await.into_iter().collect();
    Ok(left?.concat())
}

/// Drains placements together, and removes their nodes when nothing is left on any: what is left.
///
/// A pod can be bound until its node is gone, and is finished like the others: so it is looked again then,
/// and who keeps the pods ends last.
pub(super) async fn remove(
    pool: &str,
    names: &[String],
    context: &Context,
) -> Result<Vec<String>, Error> {
    pool::drain(pool, names, context).await;
    let left = remains(pool, names, context).await?;
    if !left.is_empty() {
        return Ok(left);
    }
    let removed = names.iter().map(|name| unregister(pool, name, context));
    let left: Vec<String> = join_all(removed).await.into_iter().flatten().collect();
    if !left.is_empty() {
        return Ok(left);
    }
    let left = remains(pool, names, context).await?;
    if left.is_empty() {
        pool::end(pool, names, context).await;
    }
    Ok(left)
}

/// What is left of placements, whose pods are asked to go.
async fn remains(pool: &str, names: &[String], context: &Context) -> Result<Vec<String>, Error> {
    // At once: Azure may take a minute for each, and a reconciliation may not take for ever.
    let left = names.iter().map(|name| placement(pool, name, context));
    let left: Result<Vec<_>, Error> = join_all(left).await.into_iter().collect();
    Ok(left?.concat())
}

async fn placement(pool: &str, name: &str, context: &Context) -> Result<Vec<String>, Error> {
    let groups = pool::count(pool, name, context).await;
    let node = object::name(pool, name);
    let pods: Api<Pod> = Api::all(context.client.clone());
    let on_node = ListParams::default().fields(&format!("spec.nodeName={node}"));
    let pods = pods
        .list(&on_node)
        .await
        .map_err(Error::kubernetes("listing a node's pods"))?;
    if pool::is_back(pool, name, context).await {
        return Ok(Vec::new());
    }
    let mut left = Vec::new();
    // Theirs would come back at once, as often as they are evicted: as with kubectl drain they stay, and
    // go with the node (the garbage collection of pods sees to that).
    let evicted = pods.items.iter().filter(|pod| !daemon::is_daemon(pod));
    for pod in evicted {
        if let Some(held) = evict(pod, context).await {
            left.push(held);
        }
    }
    match groups {
        Some(0) => {}
        Some(groups) if left.is_empty() => {
            left.push(format!("{groups} container groups of {node}"));
        }
        None if left.is_empty() => {
            left.push(format!(
                "the container groups of {node}, which Azure does not list at present"
            ));
        }
        _ => {}
    }
    Ok(left)
}

/// Removes a placement's node; what is left of it, in words.
async fn unregister(pool: &str, name: &str, context: &Context) -> Option<String> {
    let why = match pool::unregister(pool, name, context).await {
        Ok(()) => return None,
        Err(kube::Error::Api(status)) => status.message,
        Err(error) => error.to_string(),
    };
    Some(format!("node {} ({why})", object::name(pool, name)))
}

/// Asks for the pod's eviction; what is left of it, in words.
async fn evict(pod: &Pod, context: &Context) -> Option<String> {
    let (namespace, name) = (pod.namespace().unwrap_or_default(), pod.name_any());
    let what = format!("pod {namespace}/{name}");
    if pod.metadata.deletion_timestamp.is_some() {
        return Some(what);
    }
    let pods: Api<Pod> = Api::namespaced(context.impatient.clone(), &namespace);
    match pods.evict(&name, &EvictParams::default()).await {
        Ok(_) => Some(what),
        Err(kube::Error::Api(status)) if status.is_not_found() => None,
        Err(kube::Error::Api(status)) => Some(format!("{what} ({})", status.message)),
        Err(error) => Some(format!("{what} ({error})")),
    }
}

/// An error that only keeps the finalizer: not everything is gone yet.
pub(super) fn not_yet(left: &[String]) -> kube::Error {
    let message = format!("{} left: {}", left.len(), left.join(", "));
    kube::Error::Service(message.into())
}
