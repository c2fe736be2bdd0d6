//! Drains a pool or a placement: removes its pods before its node is removed.
//!
//! In: a pool. Out: the pods, container groups and nodes that are left, as text; empty once they and their tasks
//! are all gone. Pods are removed through the Eviction API, so `PodDisruptionBudget`s apply. Pod workers delete
//! the container groups of evicted pods.

pub(in crate::controller) mod backoff;

use std::collections::HashMap;
use std::time::Duration;

use futures::future::join_all;
use k8s_openapi::api::core::v1::Pod;
use kube::api::ListParams;
use kube::{Api, ResourceExt as _};
use tokio::time::Instant;

use backoff::EvictionRefusal;

use super::validation::InvalidSpec;
use super::{orphans, registry};
use crate::api::BurstPool;
use crate::controller::{ControllerContext, Error};
use crate::k8s::call;
use crate::k8s::call::ObjectTarget;
use crate::node::last_placement::DiscoveredNode;
use crate::node::watched_pod::WatchedPod;
use crate::node::{daemon_set, node_object};

/// The timeout of an eviction: the API server reads and writes the `PodDisruptionBudget` and the pod.
const CALL_TIMEOUT: Duration = Duration::from_secs(15);

/// Drains a whole pool, and removes its nodes when nothing is left on them. Returns what is left.
pub(in crate::controller) async fn drain_pool(
    pool: &BurstPool,
    context: &ControllerContext,
) -> Result<Vec<String>, Error> {
    let existing_nodes = orphans::adopt_orphans(pool, context).await?;
    // After a restart of the operator no pod workers run for the pool, but they must until its pods are gone.
    let ensured = registry::ensure(pool, &existing_nodes, context).await;
    let name = pool.name_any();
    let running = registry::running_placements(&name, context).await;
    let mut left = match ensured {
        Ok(()) => Vec::new(),
        // Placements that ran before the spec became invalid are drained. Others may still have nodes.
        Err(InvalidSpec(mistake)) => undrainable_nodes(&name, &running, &mistake, context).await?,
    };
    left.extend(drain_and_remove(&name, &running, context).await?);
    Ok(left)
}

/// What is left of a pool with an invalid spec whose tasks have not run since the operator was restarted: its
/// nodes and what runs on them. Nothing, if the pool never had nodes.
async fn undrainable_nodes(
    pool: &str,
    running: &[String],
    mistake: &str,
    context: &ControllerContext,
) -> Result<Vec<String>, Error> {
    let nodes = orphans::list_pool_nodes(pool, context).await?;
    let left = nodes
        .into_iter()
        .filter(|node| !running.contains(&node.placement));
    let left = left.map(|DiscoveredNode { node, .. }| {
        format!("node {node} and what runs there, which cannot be drained until this is corrected: {mistake}")
    });
    Ok(left.collect())
}

/// Drains placements that the spec does not list now, and removes those that are empty.
pub(in crate::controller) async fn drain_placements(
    pool: &str,
    removed: &[String],
    context: &ControllerContext,
) -> Result<Vec<String>, Error> {
    let left = removed
        .iter()
        .map(|name| drain_and_remove(pool, std::slice::from_ref(name), context));
    let left: Result<Vec<_>, Error> = join_all(left).await.into_iter().collect();
    Ok(left?.concat())
}

/// Drains placements together, and removes their nodes when nothing is left on any of them. Returns what is
/// left.
///
/// The scheduler may bind a pod until the node is gone, and such a pod is drained like the others. Therefore
/// the placements are checked again after the removal, and the pod workers end last.
pub(in crate::controller) async fn drain_and_remove(
    pool: &str,
    names: &[String],
    context: &ControllerContext,
) -> Result<Vec<String>, Error> {
    registry::start_draining(pool, names, context).await;
    let left = evict_and_list_remaining(pool, names, context).await?;
    if !left.is_empty() {
        return Ok(left);
    }
    let removed = names
        .iter()
        .map(|name| unregister_node(pool, name, context));
    let left: Vec<String> = join_all(removed).await.into_iter().flatten().collect();
    if !left.is_empty() {
        return Ok(left);
    }
    let left = evict_and_list_remaining(pool, names, context).await?;
    if left.is_empty() {
        registry::end_placements(pool, names, context).await;
    }
    Ok(left)
}

/// Evicts the pods of placements, and returns what is left.
async fn evict_and_list_remaining(
    pool: &str,
    names: &[String],
    context: &ControllerContext,
) -> Result<Vec<String>, Error> {
    // In parallel: Azure may take a minute for each placement, and a reconciliation has a deadline.
    let left = names
        .iter()
        .map(|name| drain_placement(pool, name, context));
    let left: Result<Vec<_>, Error> = join_all(left).await.into_iter().collect();
    Ok(left?.concat())
}

async fn drain_placement(
    pool: &str,
    name: &str,
    context: &ControllerContext,
) -> Result<Vec<String>, Error> {
    let node = node_object::name(pool, name);
    let pods = list_pods_on_node(&node, context).await?;
    // The operator must not evict pods from a node that belongs to another owner.
    if registry::is_requested_again(pool, name, context).await
        || registry::has_lost_node(pool, name, context).await
    {
        return Ok(Vec::new());
    }
    let left = evict_pods(pool, name, pods.iter().collect(), context).await;
    if !left.is_empty() {
        return Ok(left);
    }
    // A LIST may not show a container group that was just created. The group of a pod is gone only when its pod
    // worker has ended.
    if registry::has_pod_workers(pool, name, context).await {
        return Ok(vec![format!(
            "the container groups of {node}, whose deletion is not confirmed yet"
        )]);
    }
    Ok(match registry::count_groups(pool, name, context).await {
        Some(0) => Vec::new(),
        Some(groups) => vec![format!("{groups} container groups of {node}")],
        None if registry::is_list_refused(pool, name, context).await => vec![format!(
            "the container groups of {node}, which burstpool may not list (Azure answers 403): give its identity \
             the permission Microsoft.ContainerInstance/containerGroups/read on their resource group; if that was \
             deleted, create it again and assign the role there"
        )],
        None => vec![format!(
            "the container groups of {node}, which Azure does not list now"
        )],
    })
}

/// The pods that are on a node now, without those of `DaemonSet`s, whose controller would recreate them at once
/// after each eviction. As with `kubectl drain` they stay, and the pod garbage collector deletes them after the
/// node is removed.
pub(in crate::controller) async fn list_pods_on_node(
    node: &str,
    context: &ControllerContext,
) -> Result<Vec<Pod>, Error> {
    // `WatchedPod` accepts every pod: one unusual pod must not stop a drain.
    let pods: Api<WatchedPod> = Api::all(context.client.clone());
    let on_node = ListParams::default().fields(&format!("spec.nodeName={node}"));
    let pods = call::with_timeout(CALL_TIMEOUT, pods.list(&on_node)).await;
    let pods = pods.map_err(Error::kubernetes("listing a node's pods"))?;
    let pods = pods.items.into_iter().map(|observed| observed.pod);
    Ok(pods
        .filter(|pod| !daemon_set::is_daemon_set_pod(pod))
        .collect())
}

/// Removes a placement's node. Returns what is left of it, as text.
async fn unregister_node(pool: &str, name: &str, context: &ControllerContext) -> Option<String> {
    let why = match registry::unregister_node(pool, name, context).await {
        Ok(()) => return None,
        Err(kube::Error::Api(status)) => status.message,
        Err(error) => error.to_string(),
    };
    Some(format!("node {} ({why})", node_object::name(pool, name)))
}

/// Evicts those of a placement's pods that are due. Returns what is left of them, as text.
async fn evict_pods(
    pool: &str,
    name: &str,
    pods: Vec<&Pod>,
    context: &ControllerContext,
) -> Vec<String> {
    // A placement without tasks has no record of evictions, and no pod worker that would delete the container
    // groups of evicted pods.
    let Some(evictions) = registry::eviction_pacer(pool, name, context).await else {
        return pods.into_iter().map(describe_pod).collect();
    };
    let mut evictions = evictions.lock().await;
    let evictable = pods.iter().filter_map(|pod| {
        let target = ObjectTarget::from_metadata(&pod.metadata)?;
        let is_evictable = pod.metadata.deletion_timestamp.is_none();
        is_evictable.then_some((target.uid.clone(), (*pod, target)))
    });
    let mut evictable: HashMap<String, (&Pod, ObjectTarget)> = evictable.collect();
    evictions.retain(|uid| evictable.contains_key(uid));
    let listed_uids: Vec<&str> = pods
        .iter()
        .filter_map(|pod| pod.metadata.uid.as_deref())
        .collect();
    let mut not_found = Vec::new();
    loop {
        let waiting: Vec<&str> = listed_uids
            .iter()
            .copied()
            .filter(|uid| evictable.contains_key(*uid))
            .collect();
        let Some(uid) = evictions.next_due(&waiting, Instant::now()) else {
            break;
        };
        let Some((pod, target)) = evictable.get(uid) else {
            break;
        };
        let namespace = pod.namespace().unwrap_or_default();
        let api: Api<Pod> = Api::namespaced(context.client_no_retry.clone(), &namespace);
        let (cause, message) = match call::evict(CALL_TIMEOUT, &api, target).await {
            Ok(()) => {
                evictions.record_accepted(uid);
                evictable.remove(uid);
                continue;
            }
            Err(kube::Error::Api(status)) if call::is_object_not_found(&status) => {
                not_found.push(uid);
                evictable.remove(uid);
                continue;
            }
            Err(kube::Error::Api(status)) => (
                EvictionRefusal::from_status(&status, &namespace),
                status.message.clone(),
            ),
            Err(error) => (EvictionRefusal::Failed, error.to_string()),
        };
        evictions.record_refused(uid, cause, message, Instant::now());
        // Try each pod once per call: after a slow answer the first one would be due again.
        evictable.remove(uid);
    }
    let left = pods.iter().filter(|pod| {
        let uid = pod.metadata.uid.as_deref();
        uid.is_none_or(|uid| !not_found.contains(&uid))
    });
    let left = left.map(|pod| match pod.metadata.uid.as_deref() {
        Some(uid) => match evictions.refusal_message(uid) {
            Some(message) => format!("{} ({message})", describe_pod(pod)),
            None => describe_pod(pod),
        },
        None => describe_pod(pod),
    });
    left.collect()
}

fn describe_pod(pod: &Pod) -> String {
    let (namespace, name) = (pod.namespace().unwrap_or_default(), pod.name_any());
    format!("pod {namespace}/{name}")
}
