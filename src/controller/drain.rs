//! Taking the pods of a pool, or of a placement, away before their node goes.
//!
//! In: a pool. Out: what is left of it, in words; nothing when all is gone, nodes and tasks, too. Pods leave
//! through the Eviction API, so budgets hold them back; groups go with their pods.

pub(super) mod pace;

use std::collections::HashMap;
use std::time::Duration;

use futures::future::join_all;
use k8s_openapi::api::core::v1::Pod;
use kube::api::ListParams;
use kube::{Api, ResourceExt as _};
use tokio::time::Instant;

use pace::Refusal;

use super::mistake::Mistake;
use super::{Context, Error, pool, strays};
use crate::api::BurstPool;
use crate::node::call::{self, Target};
use crate::node::observed::Observed;
use crate::node::record::Found;
use crate::node::{daemon, object};

/// How long an eviction may take: the API server reads and writes the budget and the pod.
const PATIENCE: Duration = Duration::from_secs(15);

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
    let node = object::name(pool, name);
    let pods = pods_on(&node, context).await?;
    // Pods on the node of another owner are not ours to evict.
    if pool::is_back(pool, name, context).await || pool::is_lost(pool, name, context).await {
        return Ok(Vec::new());
    }
    let left = evict(pool, name, pods.iter().collect(), context).await;
    if !left.is_empty() {
        return Ok(left);
    }
    // A LIST may not show yet what was created just now: the group of a pod is gone when its keeper has ended.
    if pool::is_any_kept(pool, name, context).await {
        return Ok(vec![format!(
            "the container groups of {node}, which are not known to be gone"
        )]);
    }
    Ok(match pool::count(pool, name, context).await {
        Some(0) => Vec::new(),
        Some(groups) => vec![format!("{groups} container groups of {node}")],
        None => vec![format!(
            "the container groups of {node}, which Azure does not list at present"
        )],
    })
}

/// The pods that are on a node now. Not those of `DaemonSet`s: they would come back at once, as often as they are
/// evicted. As with kubectl drain they stay, and go with the node (the garbage collection of pods sees to that).
pub(super) async fn pods_on(node: &str, context: &Context) -> Result<Vec<Pod>, Error> {
    // Of a kind that can always be read: one odd pod must not stop a drain.
    let pods: Api<Observed> = Api::all(context.client.clone());
    let on_node = ListParams::default().fields(&format!("spec.nodeName={node}"));
    let pods = call::in_time(PATIENCE, pods.list(&on_node)).await;
    let pods = pods.map_err(Error::kubernetes("listing a node's pods"))?;
    let pods = pods.items.into_iter().map(|observed| observed.pod);
    Ok(pods.filter(|pod| !daemon::is_daemon(pod)).collect())
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

/// Asks for the eviction of those of a placement's pods whose turn it is; what is left of them, in words.
async fn evict(pool: &str, name: &str, pods: Vec<&Pod>, context: &Context) -> Vec<String> {
    let Some(evictions) = pool::evictions(pool, name, context).await else {
        return pods.into_iter().map(named).collect();
    };
    let mut evictions = evictions.lock().await;
    let stay = pods.iter().filter_map(|pod| {
        let target = Target::of(&pod.metadata)?;
        let stays = pod.metadata.deletion_timestamp.is_none();
        stays.then_some((target.uid.clone(), (*pod, target)))
    });
    let mut stay: HashMap<String, (&Pod, Target)> = stay.collect();
    evictions.retain(|uid| stay.contains_key(uid));
    let order: Vec<&str> = pods
        .iter()
        .filter_map(|pod| pod.metadata.uid.as_deref())
        .collect();
    let mut gone = Vec::new();
    loop {
        let waiting: Vec<&str> = order
            .iter()
            .copied()
            .filter(|uid| stay.contains_key(*uid))
            .collect();
        let Some(uid) = evictions.next(&waiting, Instant::now()) else {
            break;
        };
        let Some((pod, target)) = stay.get(uid) else {
            break;
        };
        let namespace = pod.namespace().unwrap_or_default();
        let api: Api<Pod> = Api::namespaced(context.impatient.clone(), &namespace);
        let (why, words) = match call::evict(PATIENCE, &api, target).await {
            Ok(()) => {
                evictions.accepted(uid);
                stay.remove(uid);
                continue;
            }
            Err(kube::Error::Api(status)) if call::is_absent(&status) => {
                gone.push(uid);
                stay.remove(uid);
                continue;
            }
            Err(kube::Error::Api(status)) => {
                (Refusal::of(&status, &namespace), status.message.clone())
            }
            Err(error) => (Refusal::Failed, error.to_string()),
        };
        evictions.refused(uid, why, words, Instant::now());
        // Each once: a slow answer must not make the first one due again.
        stay.remove(uid);
    }
    let left = pods.iter().filter(|pod| {
        let uid = pod.metadata.uid.as_deref();
        uid.is_none_or(|uid| !gone.contains(&uid))
    });
    let left = left.map(|pod| match pod.metadata.uid.as_deref() {
        Some(uid) => match evictions.why(uid) {
            Some(why) => format!("{} ({why})", named(pod)),
            None => named(pod),
        },
        None => named(pod),
    });
    left.collect()
}

fn named(pod: &Pod) -> String {
    let (namespace, name) = (pod.namespace().unwrap_or_default(), pod.name_any());
    format!("pod {namespace}/{name}")
}
