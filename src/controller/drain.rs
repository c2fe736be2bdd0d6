//! Taking the pods of a pool, or of a placement, away before their node goes.
//!
//! In: a pool. Out: what is left of it, in words; nothing when all is gone. Pods leave through the
//! Eviction API, so budgets hold them back; groups go with their pods.

use futures::future::join_all;
use k8s_openapi::api::core::v1::{Node, Pod};
use kube::api::{EvictParams, ListParams};
use kube::{Api, ResourceExt as _};

use super::mistake::Mistake;
use super::{Context, Error, pool};
use crate::api::BurstPool;
use crate::node::{daemon, object};

/// Drains a whole pool: what is left.
pub(super) async fn pool(pool: &BurstPool, context: &Context) -> Result<Vec<String>, Error> {
    // After a restart of the operator nobody keeps the pool's pods: somebody must, until they are gone.
    let ensured = pool::ensure(pool, context).await;
    let kept = pool::report(pool, context).await;
    let mut names: Vec<String> = kept.into_iter().map(|placement| placement.name).collect();
    match ensured {
        Ok(_) => names.extend(pool.spec.placements.iter().map(|p| p.name.clone())),
        // What is kept as it was before the mistake is drained; of the rest there may be nodes.
        Err(Mistake(mistake)) if names.is_empty() => {
            return stranded(pool, &mistake, context).await;
        }
        Err(_) => {}
    }
    names.sort_unstable();
    names.dedup();
    let own = pool.name_any();
    // At once: Azure may take a minute for each, and a reconciliation may not take for ever.
    let left = names.iter().map(|name| placement(&own, name, context));
    let left: Result<Vec<_>, Error> = join_all(left).await.into_iter().collect();
    Ok(left?.concat())
}

/// What is left of a pool whose spec has a mistake and that nobody keeps since the operator was restarted:
/// its nodes, with what runs there. Nothing of a pool that never worked.
async fn stranded(
    pool: &BurstPool,
    mistake: &str,
    context: &Context,
) -> Result<Vec<String>, Error> {
    let nodes: Api<Node> = Api::all(context.client.clone());
    let ours = ListParams::default().labels(&format!("{}={}", object::POOL_LABEL, pool.name_any()));
    let nodes = nodes
        .list_metadata(&ours)
        .await
        .map_err(Error::kubernetes("listing a pool's nodes"))?;
    let left = nodes.items.iter().map(|node| {
        let name = node.name_any();
        format!("node {name} and what runs there, which cannot be drained before this is corrected: {mistake}")
    });
    Ok(left.collect())
}

/// Drains placements that the spec does not name any more, and removes those that are empty.
pub(super) async fn placements(
    removed: &[(String, String)],
    context: &Context,
) -> Result<Vec<String>, Error> {
    let left = removed.iter().map(|(pool, name)| async move {
        let remains = placement(pool, name, context).await?;
        if remains.is_empty() {
            pool::remove_placement(pool, name, context).await?;
        }
        Ok(remains)
    });
    let left: Result<Vec<_>, Error> = join_all(left).await.into_iter().collect();
    Ok(left?.concat())
}

async fn placement(pool: &str, name: &str, context: &Context) -> Result<Vec<String>, Error> {
    let groups = pool::close(pool, name, context).await;
    let node = object::name(pool, name);
    let pods: Api<Pod> = Api::all(context.client.clone());
    let on_node = ListParams::default().fields(&format!("spec.nodeName={node}"));
    let pods = pods
        .list(&on_node)
        .await
        .map_err(Error::kubernetes("listing a node's pods"))?;
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
