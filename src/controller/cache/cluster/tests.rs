//! Tests: the content of the cache after lists, watch events and answers in every order.

use std::time::Duration;

use futures::StreamExt as _;
use jiff::Timestamp;
use kube::core::DeserializeGuard;
use kube::runtime::watcher;
use serde_json::json;

use super::waiting::refused_at;
use super::*;
use crate::api::names::{GRANTED_UID_ANNOTATION, POOL_LABEL};
use crate::burst::facts::pod::SCHEDULED_FIELD;

type WatchEvent = watcher::Result<watcher::Event<WatchedPod>>;

impl ClusterCache {
    /// A cache after lists that contained this pool, and these pods without a node.
    pub(in crate::controller) fn listed(pool: BurstPool, waiting: Vec<Pod>) -> Self {
        let cache = Self::default();
        insert_pool(&mut cache.content.lock().snapshot, pool);
        for pod in waiting {
            let observed = WatchedPod {
                pod,
                ..WatchedPod::default()
            };
            insert_waiting(&mut cache.content.lock().snapshot, observed, &cache.clock);
        }
        cache
    }
}

fn pod(uid: &str, version: u32) -> Pod {
    let pod = json!({
        "metadata": {"namespace": "shop", "name": uid, "uid": uid, "resourceVersion": version.to_string(),
            "creationTimestamp": "2026-01-01T00:00:00Z", "labels": {POOL_LABEL: "shop"},
            "annotations": {GRANTED_UID_ANNOTATION: uid}},
        "spec": {"containers": [], "tolerations": [{"key": "virtual-kubelet.io/provider",
            "operator": "Equal", "value": "shop", "effect": "NoSchedule"}]},
    });
    serde_json::from_value(pod).expect("a pod")
}

fn observed(uid: &str, version: u32) -> WatchedPod {
    WatchedPod {
        pod: pod(uid, version),
        ..WatchedPod::default()
    }
}

fn pool(uid: &str, version: u32) -> BurstPool {
    let pool = json!({
        "apiVersion": "burstpool.io/v1alpha1", "kind": "BurstPool",
        "metadata": {"name": "shop", "uid": uid, "resourceVersion": version.to_string()},
        "spec": {"azure": {}, "placements": [{"name": "a", "region": "westeurope"}]},
    });
    serde_json::from_value(pool).expect("a pool")
}

/// The watch of labelled pods delivers these events, and then nothing more.
async fn deliver(cache: &ClusterCache, events: Vec<watcher::Event<WatchedPod>>) {
    let events = events.into_iter().map(WatchEvent::Ok);
    cache
        .apply_labelled_pod_events(futures::stream::iter(events))
        .await;
}

fn labelled(cache: &ClusterCache) -> Vec<String> {
    let mut uids: Vec<String> = cache.snapshot().labelled.into_keys().collect();
    uids.sort_unstable();
    uids
}

#[tokio::test]
async fn a_pod_that_was_granted_during_a_list_stays_in_the_cache_after_it() {
    let cache = ClusterCache::default();
    deliver(
        &cache,
        vec![
            watcher::Event::Init,
            watcher::Event::InitApply(observed("old", 1)),
            watcher::Event::InitDone,
        ],
    )
    .await;
    let during = futures::stream::iter([watcher::Event::Init, watcher::Event::InitDone]);
    let during = during.map(|event| {
        if matches!(event, watcher::Event::InitDone) {
            cache.update_pod(pod("granted", 9));
        }
        WatchEvent::Ok(event)
    });
    cache.apply_labelled_pod_events(during).await;
    assert_eq!(labelled(&cache), ["granted"], "the old one is gone");
}

#[tokio::test]
async fn a_late_answer_about_a_deleted_pod_does_not_restore_it() {
    let cache = ClusterCache::default();
    let deleted = watcher::Event::Delete(observed("a", 3));
    deliver(
        &cache,
        vec![watcher::Event::Apply(observed("a", 2)), deleted],
    )
    .await;
    cache.update_pod(pod("a", 2));
    cache.update_pod(pod("b", 2));
    assert_eq!(labelled(&cache), ["b"]);
}

#[test]
fn an_answer_about_a_deleted_or_recreated_pool_changes_nothing() {
    let cache = ClusterCache::default();
    cache.update_pool(pool("first", 5));
    assert!(
        cache.snapshot().pools.is_empty(),
        "no watch has delivered the pool"
    );
    let uid = || cache.snapshot().pools["shop"].uid().expect("a UID");
    insert_pool(&mut cache.content.lock().snapshot, pool("second", 7));
    cache.update_pool(pool("first", 6));
    assert_eq!(uid(), "second");
    cache.update_pool(pool("second", 8));
    let version = cache.snapshot().pools["shop"].resource_version();
    assert_eq!(version.as_deref(), Some("8"));
}

#[test]
fn a_refusal_starts_when_the_watch_shows_it_or_when_the_api_server_wrote_it() {
    let cache = ClusterCache::default();
    let insert = |uid: &str,
                  version: u32,
                  transition_time: Option<Timestamp>,
                  written: Option<Timestamp>| {
        let mut pod = observed(uid, version);
        let conditions: Vec<_> = transition_time
            .iter()
            .map(|transition_time| {
                json!({"type": "PodScheduled", "status": "False", "reason": "Unschedulable",
                    "lastTransitionTime": transition_time.to_string()})
            })
            .collect();
        let status = json!({"conditions": conditions});
        pod.pod.status = serde_json::from_value(status).expect("a status");
        let written = written.map(|at| {
            let fields = json!({"f:status": {"f:conditions": {SCHEDULED_FIELD: {}}}});
            json!([{"manager": "kube-scheduler", "operation": "Update", "fieldsV1": fields, "time": at.to_string()}])
        });
        pod.pod.metadata.managed_fields =
            written.map(|all| serde_json::from_value(all).expect("entries"));
        let before = cache.clock.steady();
        insert_waiting(&mut cache.content.lock().snapshot, pod, &cache.clock);
        let at = refused_at(&cache.snapshot().waiting[uid].facts);
        at.map(|at| before.duration_since(at).as_secs())
    };
    let ago = |seconds| Some(Timestamp::now() - Duration::from_secs(seconds));
    let (early, late) = (ago(90), Some(Timestamp::now() + Duration::from_secs(90)));
    // The watch delivers the refusal: the time counts from then, whatever the scheduler's clock says.
    for (uid, transition_time) in [("early", early), ("late", late)] {
        assert_eq!(insert(uid, 1, None, None), None, "{uid}");
        assert_eq!(insert(uid, 2, transition_time, ago(60)), Some(0), "{uid}");
        assert_eq!(insert(uid, 3, transition_time, None), Some(0), "{uid}");
        assert_eq!(insert(uid, 4, ago(30), ago(60)), Some(0), "{uid}");
    }
    // The watch did not deliver the change to refused. The time counts from the API server's write, which
    // `managedFields` records to the second; from now, if that is missing or in the future.
    assert_eq!(insert("listed", 1, early, None), Some(0));
    for transition_time in [early, late] {
        let uid = format!("written {transition_time:?}");
        let since = insert(&uid, 1, transition_time, ago(60)).expect("a time");
        assert!((58..=60).contains(&since), "{since}");
    }
    assert_eq!(insert("future", 1, early, late), Some(0));
}

#[test]
fn an_error_of_the_scheduler_does_not_restart_a_hold() {
    let cache = ClusterCache::default();
    let insert = |version: u32, reason: &str, transition_time: Timestamp| {
        let mut pod = observed("a", version);
        let condition = json!({"type": "PodScheduled", "status": "False", "reason": reason,
            "lastTransitionTime": transition_time.to_string()});
        let status = json!({"conditions": [condition]});
        pod.pod.status = serde_json::from_value(status).expect("a status");
        insert_waiting(&mut cache.content.lock().snapshot, pod, &cache.clock);
        refused_at(&cache.snapshot().waiting["a"].facts)
    };
    let (transition_time, later) = (Timestamp::UNIX_EPOCH, Timestamp::now());
    assert_eq!(insert(1, "SchedulingGated", transition_time), None);
    let first = insert(2, "Unschedulable", transition_time);
    assert!(first.is_some());
    // The status of the condition stays `False`, so its transition time stays the same.
    assert_eq!(insert(3, "SchedulerError", transition_time), None);
    assert_eq!(insert(4, "SchedulerError", transition_time), None);
    assert_eq!(insert(5, "Unschedulable", transition_time), first);
    assert_eq!(insert(6, "SchedulerError", transition_time), None);
    assert!(insert(7, "Unschedulable", later) > first, "another refusal");
}

/// A pool that a newer version wrote, as the watch delivers it.
fn unreadable_pool(uid: &str, version: u32) -> DeserializeGuard<BurstPool> {
    let mut pool = serde_json::to_value(pool(uid, version)).expect("JSON");
    pool["spec"]["mode"] = json!("Novel");
    serde_json::from_value(pool).expect("a guard is never an error")
}

#[tokio::test]
async fn an_unreadable_pool_keeps_its_last_version_and_hides_no_other_pool() {
    let cache = ClusterCache::default();
    let mut other = pool("other", 4);
    other.metadata.name = Some("other".to_owned());
    let pool_names = || {
        let snapshot = cache.snapshot();
        let pools: Vec<String> = snapshot.pools.into_keys().collect();
        (pools, snapshot.unreadable.into_iter().collect::<Vec<_>>())
    };
    let list = |pools: Vec<DeserializeGuard<BurstPool>>| {
        let pools = pools.into_iter().map(watcher::Event::InitApply);
        let list = [watcher::Event::Init].into_iter().chain(pools);
        let list = list.chain([watcher::Event::InitDone]).map(Ok);
        cache.apply_pool_events(futures::stream::iter(list.collect::<Vec<_>>()))
    };
    let read = |pool: BurstPool| DeserializeGuard(Ok(pool));
    list(vec![read(pool("a", 1)), read(other.clone())]).await;
    list(vec![unreadable_pool("a", 2), read(other.clone())]).await;
    assert_eq!(
        pool_names(),
        (vec!["other".into(), "shop".into()], vec!["shop".into()])
    );
    assert!(cache.snapshot().has_pool("shop"));
    assert!(
        !cache
            .not_synced()
            .iter()
            .any(|part| part.contains("BurstPools"))
    );
    // A pool that could never be read exists all the same. The last version of an earlier pool of that name is
    // dropped.
    list(vec![unreadable_pool("b", 3), read(other.clone())]).await;
    assert_eq!(pool_names(), (vec!["other".into()], vec!["shop".into()]));
    list(vec![read(pool("b", 4)), read(other.clone())]).await;
    assert_eq!(pool_names(), (vec!["other".into(), "shop".into()], vec![]));
    list(vec![unreadable_pool("b", 5)]).await;
    list(vec![]).await;
    assert_eq!(pool_names(), (vec![], vec![]));
}

#[tokio::test(start_paused = true)]
async fn a_part_that_is_not_synced_names_the_error() {
    let cache = ClusterCache::default();
    let refused = kube::core::Status::failure("pools are forbidden", "Forbidden").with_code(403);
    let error = watcher::Error::InitialListFailed(kube::Error::Api(refused.boxed()));
    cache
        .apply_pool_events(futures::stream::iter([Err(error)]))
        .await;
    let missing = cache.not_synced();
    let pools = missing
        .iter()
        .find(|part| part.starts_with("BurstPools have not been listed yet: "));
    assert!(
        pools.is_some_and(|why| why.contains("pools are forbidden")),
        "{missing:?}"
    );
}

#[tokio::test]
async fn a_pod_that_leaves_the_watch_of_pending_pods_is_remembered_as_it_was() {
    let cache = ClusterCache::listed(pool("1", 1), vec![pod("a", 1), pod("b", 1)]);
    let remaining = futures::stream::iter(
        [
            watcher::Event::Init,
            watcher::Event::InitApply(observed("b", 1)),
            watcher::Event::InitDone,
        ]
        .map(WatchEvent::Ok),
    );
    Box::pin(cache.apply_pending_pod_events(remaining)).await;
    let snapshot = cache.snapshot();
    let departed: Vec<&str> = snapshot.departed.iter().map(|pod| &*pod.id.uid).collect();
    assert_eq!((departed, snapshot.waiting.len()), (vec!["a"], 1));
}
