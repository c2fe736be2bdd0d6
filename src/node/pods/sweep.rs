//! The groups that there are: one LIST a minute for all pods of a node.
//!
//! In: LISTs. Out: to every keeper, the names that there are; and an end to groups that are this
//! node's and have no pod any more. Foreign groups are never touched: neither other clusters', nor
//! other nodes', nor what people made.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::Pod;
use kube::Api;
use serde_json::Value;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::{Context, Listing};
use crate::aci::names::pod_of;
use crate::aci::view::{Group as View, Request};
use crate::node::capacity::Room;

/// How soon again after a LIST that failed.
const AGAIN: Duration = Duration::from_secs(5);

/// Lists until `cancel`.
pub(super) async fn keep(context: Arc<Context>, cancel: CancellationToken) {
    let mut orphans: HashMap<String, Instant> = HashMap::new();
    loop {
        let pause = tokio::select! {
            listed = list(&context) => match listed {
                Some(groups) => {
                    sweep(&context, &groups, &mut orphans).await;
                    context.sweep_every
                }
                None => AGAIN,
            },
            () = cancel.cancelled() => return,
        };
        tokio::select! {
            () = tokio::time::sleep(pause) => {}
            () = cancel.cancelled() => return,
        }
    }
}

/// Our groups, told to the keepers; nothing if the LIST failed.
pub(super) async fn list(context: &Context) -> Option<Vec<View>> {
    context.pace.turn().await;
    let asked = Timestamp::now();
    let groups: Vec<Value> = match context.azure.list(&context.scope).await {
        Ok(groups) => groups,
        Err(error) => {
            tracing::warn!(error = %error.story(), "listing container groups");
            context.trouble.notify_one();
            return None;
        }
    };
    let views: Vec<View> = groups.iter().filter_map(View::read).collect();
    // Half of our tags are nobody's of ours: such a group was made by hand.
    let is_ours = |view: &View| context.owner.owns(&view.tags) && pod_of(&view.tags).is_some();
    let (ours, theirs): (Vec<View>, Vec<View>) = views.into_iter().partition(is_ours);
    let names = |views: &[View]| -> HashSet<String> {
        views.iter().filter_map(|view| view.name.clone()).collect()
    };
    // A page with an element that cannot be read does not prove that a group is gone.
    if ours.len() + theirs.len() == groups.len() {
        let used = ours.iter().map(room).fold(Room::default(), Room::plus);
        context.listed.send_replace(Some(Arc::new(Listing {
            asked,
            names: names(&ours),
            foreign: names(&theirs),
            used,
        })));
    }
    Some(ours)
}

/// What a group uses, as a LIST shows it.
fn room(group: &View) -> Room {
    let containers = group.properties.containers.iter();
    let requests = containers.map(|container| &container.properties.resources.requests);
    let sum =
        |amount: fn(&Request) -> Option<f64>| -> f64 { requests.clone().filter_map(amount).sum() };
    #[allow(
        clippy::cast_possible_truncation,
        reason = "a group's size is far below i64's range"
    )]
    let whole = |amount: f64| amount.ceil() as i64;
    Room {
        cpu_milli: whole(sum(|request| request.cpu) * 1e3),
        memory_bytes: whole(sum(|request| request.memory_in_gb) * 1e9),
        pods: 1,
    }
}

/// Deletes groups that have had no pod for long enough.
async fn sweep(context: &Context, groups: &[View], orphans: &mut HashMap<String, Instant>) {
    let mut seen = HashSet::new();
    for group in groups {
        let (Some(name), Some(pod)) = (&group.name, pod_of(&group.tags)) else {
            continue;
        };
        let is_kept = context.kept().contains(pod.2);
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

/// Whether the pod that a group was made for is there and on this node; nothing if nobody knows. A
/// fresh read: a cache may be behind.
async fn has_pod(context: &Context, (namespace, name, uid): (&str, &str, &str)) -> Option<bool> {
    let pods: Api<Pod> = Api::namespaced(context.client.clone(), namespace);
    let found = tokio::time::timeout(Duration::from_secs(10), pods.get_opt(name)).await;
    match found {
        Ok(Ok(pod)) => Some(pod.is_some_and(|pod| pod.metadata.uid.as_deref() == Some(uid))),
        _ => None,
    }
}
