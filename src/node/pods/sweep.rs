//! Garbage collection of container groups: one LIST a minute for all pods of a node, and about one a second while
//! pod workers wait in the read queue.
//!
//! In: LISTs of container groups. Out: to each pod worker, what the LIST shows of its group; and DELETEs of groups
//! that belong to this node and have no pod. Groups of other clusters or other nodes, and groups that users
//! created, are never touched.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::Pod;
use kube::Api;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::shown::{GroupListing, ListedGroup};
use super::{PodsContext, lock};
use crate::aci::names::pod_of;
use crate::aci::view::ContainerGroup as View;
use crate::node::call;

/// The interval after a LIST that failed.
const AGAIN: Duration = Duration::from_secs(5);

/// The shortest interval between two LISTs while workers wait in the read queue.
const SOON: Duration = Duration::from_secs(1);
/// LISTs may take at most one part in this many of the read rate while workers wait in the queue.
const SHARE: u32 = 4;

/// Lists and collects until `cancel`.
pub(super) async fn keep(context: Arc<PodsContext>, cancel: CancellationToken) {
    let until_then = async {
        let mut orphans: HashMap<String, Instant> = HashMap::new();
        let mut swept: Option<Instant> = None;
        loop {
            let began = Instant::now();
            let listed = list(&context).await;
            let is_due = swept.is_none_or(|swept| swept.elapsed() >= context.sweep_every);
            if let (Some(groups), true) = (&listed, is_due) {
                sweep(&context, &groups.all, &mut orphans).await;
                swept = Some(Instant::now());
            }
            let (soon, late) = match listed {
                Some(groups) => {
                    let fair = context.pace.time_of(SHARE.saturating_mul(groups.pages));
                    (SOON.max(fair), context.sweep_every)
                }
                None => (AGAIN, AGAIN),
            };
            tokio::time::sleep_until(began + soon.min(late)).await;
            tokio::select! {
                () = tokio::time::sleep_until(began + late) => {}
                () = context.line.grown() => {}
                () = context.line.list_wanted() => {}
            }
        }
    };
    tokio::select! {
        () = until_then => {}
        () = cancel.cancelled() => {}
    }
}

/// The result of a LIST, as far as garbage collection needs it.
pub(super) struct SweptGroups {
    /// The node's groups.
    pub all: Vec<View>,
    /// How many pages the LIST of the whole resource group took.
    pub pages: u32,
    /// Whether every group in the answer could be decoded.
    pub is_whole: bool,
}

/// Lists the node's groups and sends the workers what the LIST shows; `None` if the LIST failed.
pub(super) async fn list(context: &PodsContext) -> Option<SweptGroups> {
    let asked = Timestamp::now();
    let answer = context.azure.list(&context.scope, &context.pace).await;
    let listed = match answer {
        Ok(listed) => listed,
        Err(error) => {
            let status = error.failure().map(|failure| failure.status);
            context
                .may_not_list
                .store(status == Some(403), Ordering::Relaxed);
            if matches!(status, Some(403 | 404)) {
                context.show_unlisted();
            }
            let is_denied = error.means_nothing_to_delete();
            let mut denied = lock(&context.denied_since);
            *denied = is_denied.then(|| denied.unwrap_or_else(Instant::now));
            drop(denied);
            tracing::warn!(error = %error.story(), "listing container groups");
            context.trouble.notify_one();
            return None;
        }
    };
    context.may_not_list.store(false, Ordering::Relaxed);
    *lock(&context.denied_since) = None;
    let (pages, is_whole) = (listed.pages, listed.unreadable == 0);
    // A group with our owner tags but without the tags of a pod was made by hand.
    let is_ours = |view: &View| context.owner.owns(&view.tags) && pod_of(&view.tags).is_some();
    let (all, foreign): (Vec<View>, Vec<View>) = listed.all.into_iter().partition(is_ours);
    // In an answer with an element that cannot be decoded, a missing group is not proven to be gone.
    if is_whole {
        let briefs = all
            .iter()
            .filter_map(|view| Some((view.name.clone()?, ListedGroup::of(view))));
        let groups = briefs.collect();
        let foreign = foreign.into_iter().filter_map(|view| view.name).collect();
        context.show(GroupListing {
            asked,
            groups,
            foreign,
        });
    } else {
        context.show_unlisted();
    }
    Some(SweptGroups {
        all,
        pages,
        is_whole,
    })
}

/// Deletes groups that have had no pod for the orphan grace period.
async fn sweep(context: &PodsContext, groups: &[View], orphans: &mut HashMap<String, Instant>) {
    let mut seen = HashSet::new();
    for group in groups {
        let (Some(name), Some(pod)) = (&group.name, pod_of(&group.tags)) else {
            continue;
        };
        let is_kept = context.kept().contains_key(pod.2);
        if is_kept || group.is_being_deleted() || has_pod(context, pod).await != Some(false) {
            continue;
        }
        seen.insert(name.clone());
        let since = *orphans.entry(name.clone()).or_insert_with(Instant::now);
        if since.elapsed() < context.orphan_grace {
            continue;
        }
        tracing::warn!(group = %name, pod = %format!("{}/{}", pod.0, pod.1), "deleting a group without a pod");
        if let Err(error) = context.azure.delete(&context.scope, name).await {
            tracing::warn!(group = %name, error = %error.story(), "deleting a group without a pod");
        }
    }
    orphans.retain(|name, _| seen.contains(name));
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
