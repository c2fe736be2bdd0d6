//! Garbage collection of container groups: one LIST a minute for all pods of a node, and about one a second while
//! pod workers wait in the read queue.
//!
//! In: LISTs of container groups. Out: to each pod worker, what the LIST shows of its group; and DELETEs of groups
//! that belong to this node and have no pod. Groups of other clusters or other nodes, and groups that users
//! created, are never touched.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::Pod;
use kube::Api;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::PodsContext;
use super::group_list::GroupListing;
use crate::aci::error::Error;
use crate::aci::names::pod_from_tags;
use crate::aci::response::ContainerGroup as View;
use crate::k8s::call;

/// The interval after a LIST that failed.
const RETRY_INTERVAL: Duration = Duration::from_secs(5);

/// The shortest interval between two LISTs while workers wait in the read queue.
const MIN_LIST_INTERVAL: Duration = Duration::from_secs(1);
/// LISTs may take at most one part in this many of the read rate while workers wait in the queue.
const LIST_RATE_DIVISOR: u32 = 4;

/// Lists and collects until `cancel`.
pub(super) async fn run(context: Arc<PodsContext>, cancel: CancellationToken) {
    let collect = async {
        let mut orphans: HashMap<String, Instant> = HashMap::new();
        let mut last_sweep: Option<Instant> = None;
        loop {
            let started = Instant::now();
            let listed = list_groups(&context).await;
            let is_due =
                last_sweep.is_none_or(|last_sweep| last_sweep.elapsed() >= context.list_interval);
            if let (Some(groups), true) = (&listed, is_due) {
                delete_orphans(&context, &groups.groups, &mut orphans).await;
                last_sweep = Some(Instant::now());
            }
            let (shortest, longest) = match listed {
                Some(groups) => {
                    let rate_limited = context
                        .rate_limiter
                        .duration_of(LIST_RATE_DIVISOR.saturating_mul(groups.pages));
                    (MIN_LIST_INTERVAL.max(rate_limited), context.list_interval)
                }
                None => (RETRY_INTERVAL, RETRY_INTERVAL),
            };
            tokio::time::sleep_until(started + shortest.min(longest)).await;
            tokio::select! {
                () = tokio::time::sleep_until(started + longest) => {}
                () = context.read_queue.wait_until_not_empty() => {}
                () = context.read_queue.wait_for_list_request() => {}
            }
        }
    };
    tokio::select! {
        () = collect => {}
        () = cancel.cancelled() => {}
    }
}

/// The result of a LIST, as far as garbage collection needs it.
pub(super) struct NodeGroups {
    /// The node's groups.
    pub groups: Vec<View>,
    /// How many pages the LIST of the whole resource group took.
    pub pages: u32,
    /// Whether every group in the answer could be decoded.
    pub is_whole: bool,
}

/// Lists the node's groups and sends the workers what the LIST shows; `None` if the LIST failed.
pub(super) async fn list_groups(context: &PodsContext) -> Option<NodeGroups> {
    let sent_at = Timestamp::now();
    let answer = context
        .azure
        .list(&context.scope, &context.rate_limiter)
        .await;
    let listing = match answer {
        Ok(listing) => listing,
        Err(error) => {
            list_failed(context, &error);
            return None;
        }
    };
    context.list_failures.clear();
    let (pages, is_whole) = (listing.page_count, listing.unreadable_count == 0);
    // A group with this node's owner tags but without the tags of a pod was created by hand.
    let is_ours =
        |view: &View| context.owner.owns(&view.tags) && pod_from_tags(&view.tags).is_some();
    let (groups, foreign): (Vec<View>, Vec<View>) = listing.groups.into_iter().partition(is_ours);
    // In an answer with an element that cannot be decoded, a missing group is not proven to be gone.
    if is_whole {
        context.apply_listing(GroupListing::new(sent_at, &groups, foreign));
    } else {
        context.mark_unlisted();
    }
    Some(NodeGroups {
        groups,
        pages,
        is_whole,
    })
}

/// Records that a LIST failed. If Azure will not answer one soon, the workers read their own groups.
fn list_failed(context: &PodsContext, error: &Error) {
    context.list_failures.record(error);
    if matches!(error.failure(), Some(failure) if matches!(failure.status, 403 | 404)) {
        context.mark_unlisted();
    }
    tracing::warn!(error = %error.error_chain(), "cannot list container groups");
    context.azure_failed.notify_one();
}

/// Deletes groups that have had no pod for the orphan grace period.
async fn delete_orphans(
    context: &PodsContext,
    groups: &[View],
    orphans: &mut HashMap<String, Instant>,
) {
    let mut current = HashSet::new();
    for group in groups {
        let (Some(name), Some(pod)) = (&group.name, pod_from_tags(&group.tags)) else {
            continue;
        };
        let has_worker = context.workers().contains_key(pod.2);
        if has_worker || group.is_being_deleted() || has_pod(context, pod).await != Some(false) {
            continue;
        }
        current.insert(name.clone());
        let since = *orphans.entry(name.clone()).or_insert_with(Instant::now);
        if since.elapsed() < context.orphan_grace {
            continue;
        }
        tracing::warn!(group = %name, pod = %format!("{}/{}", pod.0, pod.1), "deleting a group without a pod");
        if let Err(error) = context.azure.delete(&context.scope, name).await {
            tracing::warn!(group = %name, error = %error.error_chain(), "cannot delete a group without a pod");
        }
    }
    orphans.retain(|name, _| current.contains(name));
}

/// Whether the pod that a group was created for exists, with the same UID; `None` if the API server does not
/// answer. Reads from the API server, because a cache may be behind.
async fn has_pod(
    context: &PodsContext,
    (namespace, name, uid): (&str, &str, &str),
) -> Option<bool> {
    let pods: Api<Pod> = Api::namespaced(context.client.clone(), namespace);
    let found = call::find(Duration::from_secs(10), &pods, name)
        .await
        .ok()?;
    Some(found.is_some_and(|pod| pod.metadata.uid.as_deref() == Some(uid)))
}
