//! What `explain` reads from the cluster, with the permissions of its user.
//!
//! In: a client. Out: the objects that the operator watches; or an error that names the missing permissions and
//! what they are for. Nothing is written.

use std::collections::{BTreeSet, HashMap};
use std::fmt::Write as _;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{anyhow, bail};
use futures::StreamExt as _;
use k8s_openapi::api::core::v1::Node;
use kube::api::ListParams;
use kube::core::DeserializeGuard;
use kube::{Api, Client, ResourceExt as _};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::ExplainedPod;
use crate::api::BurstPool;
use crate::burst::facts::neighbors::{ListResult, NeighborNode};
use crate::burst::{ClaimStates, Neighbors, PodFacts, TargetScales};
use crate::controller::cache::claims;
use crate::controller::cache::cluster::{ClusterCache, Snapshot};
use crate::controller::cache::cluster::{FailureKind, SyncFailure};
use crate::controller::cache::scales::ScaleCache;
use crate::k8s::watch_health;
use crate::node::environment::{MissingReason, check_mountable};

/// The timeout of reading the cluster.
const SYNC_TIMEOUT: Duration = Duration::from_secs(30);
/// The timeout of reading the targets' scales.
const SCALES_TIMEOUT: Duration = Duration::from_secs(5);
/// The commands that give a user the necessary permissions.
const REMEDY: &str = "an administrator can give the rights: kubectl create clusterrole burstpool-explain \
     --verb=get,list,watch --resource=burstpools.burstpool.io,pods,nodes,namespaces; \
     kubectl create clusterrolebinding burstpool-explain --clusterrole=burstpool-explain --user=NAME";

/// A snapshot of everything that the operator watches.
pub(super) async fn read_snapshot(client: &Client) -> anyhow::Result<Snapshot> {
    let cache = ClusterCache::default();
    let read = async {
        tokio::select! {
            () = cache.watch(client) => {}
            () = cache.wait_until_synced() => {}
            () = cache.sync_state.wait_until_failed() => {}
        }
    };
    let timed_out = tokio::time::timeout(SYNC_TIMEOUT, Box::pin(read))
        .await
        .is_err();
    let failures = cache.sync_state.failures();
    if failures
        .iter()
        .any(|failure| failure.kind != FailureKind::Transient)
    {
        bail!(sync_failure_message(&failures));
    }
    if timed_out {
        let missing = cache.not_synced().join("; ");
        return Err(anyhow!("not listed within {SYNC_TIMEOUT:?}: {missing}"));
    }
    Ok(cache.snapshot())
}

/// The error text: what could not be read, why, and the remedy.
fn sync_failure_message(failures: &[SyncFailure]) -> String {
    let mut message = "cannot read the objects that the operator decides from:".to_owned();
    for SyncFailure { what, why, .. } in failures {
        let _ = write!(message, "\n  {what}: {why}");
    }
    if failures
        .iter()
        .any(|failure| failure.kind == FailureKind::Forbidden)
    {
        let _ = write!(message, "\n{REMEDY}");
    }
    message
}

/// The scales of the pool's targets.
pub(super) async fn read_scales(
    client: &Client,
    snapshot: &Snapshot,
    pool: &BurstPool,
) -> TargetScales {
    let (tasks, cancel) = (TaskTracker::new(), CancellationToken::new());
    let changed = Arc::new(tokio::sync::Notify::new());
    let mut cache = ScaleCache::new(client.clone(), changed.clone(), cancel.clone());
    cache.update_watches(snapshot, &tasks);
    let targets = pool
        .spec
        .workloads
        .iter()
        .filter(|workload| workload.target.is_some());
    let keys: Vec<_> = targets
        .map(|workload| (pool.name_any(), workload.name.clone()))
        .collect();
    let read = async {
        while !keys.iter().all(|key| cache.scales().contains_key(key)) {
            changed.notified().await;
        }
    };
    let timed_out = tokio::time::timeout(SCALES_TIMEOUT, read).await.is_err();
    let mut scales = cache.scales();
    for key in keys.into_iter().filter(|_| timed_out) {
        let why = || Err(format!("its scale was not read within {SCALES_TIMEOUT:?}"));
        scales.entry(key).or_insert_with(why);
    }
    cancel.cancel();
    tasks.close();
    tasks.wait().await;
    scales
}

/// The nodes, and the pods on them; `pods` are all pods of the cluster. Nodes that the user may not read count
/// as unknown, because the operator may be able to read them.
pub(super) async fn neighbors(client: &Client, pods: &[ExplainedPod<'_>]) -> Neighbors {
    let nodes: Api<DeserializeGuard<Node>> = Api::all(client.clone());
    let nodes = tokio::time::timeout(SYNC_TIMEOUT, nodes.list(&ListParams::default())).await;
    let nodes = match nodes {
        Ok(Ok(list)) => {
            let readable = list.items.into_iter().filter_map(watch_health::ok_or_log);
            ListResult::Listed(
                readable
                    .map(|node| Arc::new(NeighborNode::of(&node)))
                    .collect(),
            )
        }
        Ok(Err(_)) | Err(_) => ListResult::Unknown,
    };
    let mut by_namespace: HashMap<String, Vec<Arc<PodFacts>>> = HashMap::new();
    for pod in pods {
        let entry = by_namespace.entry(pod.facts.id.namespace.clone());
        entry.or_default().push(Arc::new(pod.facts.clone()));
    }
    let pods = by_namespace.into_iter();
    Neighbors {
        nodes,
        pods: pods
            .map(|(name, pods)| (name, ListResult::Listed(pods)))
            .collect(),
    }
}

/// The volumes behind claims, and the claims that could not be read with the reason. A claim that the user may
/// not read counts as unknown, because the operator may be able to read it.
pub(super) async fn read_claims(
    client: &Client,
    wanted: BTreeSet<(String, String)>,
) -> (ClaimStates, Vec<String>) {
    let reads = futures::stream::iter(wanted).map(async |(namespace, name)| {
        let read = check_mountable(client, &namespace, &name).await;
        (namespace, name, read)
    });
    let read: Vec<_> = reads.buffered(claims::MAX_CONCURRENT_READS).collect().await;
    let (mut claims, mut unread) = (ClaimStates::new(), Vec::new());
    for (namespace, name, read) in read {
        match read {
            Err(missing) if missing.reason != MissingReason::Missing => {
                unread.push(format!("{} {}", missing.object, missing.why));
            }
            read => {
                if let Some(state) = claims::claim_state(read) {
                    claims.entry(namespace).or_default().insert(name, state);
                }
            }
        }
    }
    (claims, unread)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_missing_permission_is_named_with_its_purpose_and_the_remedy() {
        let why = "pods is forbidden: User \"dev\" cannot list resource \"pods\" in API group \"\" at the cluster scope";
        let failure = |what, kind, why: &str| SyncFailure {
            what,
            kind,
            why: why.to_owned(),
        };
        let message = sync_failure_message(&[
            failure("pending pods", FailureKind::Forbidden, why),
            failure("BurstPools", FailureKind::Unknown, "not served"),
        ]);
        assert!(
            message.contains(&format!("pending pods: {why}\n")),
            "{message}"
        );
        assert!(message.ends_with(REMEDY), "{message}");
        let message =
            sync_failure_message(&[failure("BurstPools", FailureKind::Unknown, "not served")]);
        assert!(message.ends_with("BurstPools: not served"), "{message}");
    }
}
