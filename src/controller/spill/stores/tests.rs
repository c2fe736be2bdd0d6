//! What is known after lists, watches and answers in every order.

use serde_json::json;

use super::*;

type Event = watcher::Result<watcher::Event<Observed>>;

impl Stores {
    /// As after lists that have shown this pool, and these pods to wait.
    pub(in crate::controller::spill) fn listed(pool: BurstPool, waiting: Vec<Pod>) -> Self {
        let stores = Self::default();
        insert_pool(&mut stores.lock().view, pool);
        for pod in waiting {
            let observed = Observed {
                pod,
                ..Observed::default()
            };
            insert_waiting(&mut stores.lock().view, observed);
        }
        stores
    }
}

fn pod(uid: &str, version: u32) -> Pod {
    let pod = json!({
        "metadata": {"namespace": "shop", "name": uid, "uid": uid, "resourceVersion": version.to_string(),
            "creationTimestamp": "2026-01-01T00:00:00Z", "labels": {POOL_LABEL: "shop"}},
        "spec": {"containers": [], "tolerations": [{"key": "virtual-kubelet.io/provider",
            "operator": "Equal", "value": "shop", "effect": "NoSchedule"}]},
    });
    serde_json::from_value(pod).expect("a pod")
}

fn seen(uid: &str, version: u32) -> Observed {
    Observed {
        pod: pod(uid, version),
        ..Observed::default()
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

/// The watch of labelled pods shows these, and then nothing more.
async fn shows(stores: &Stores, events: Vec<watcher::Event<Observed>>) {
    let events = events.into_iter().map(Event::Ok);
    stores.labelled(futures::stream::iter(events)).await;
}

fn labelled(stores: &Stores) -> Vec<String> {
    let mut uids: Vec<String> = stores.view().labelled.into_keys().collect();
    uids.sort_unstable();
    uids
}

#[tokio::test]
async fn a_pod_that_was_granted_while_a_list_was_under_way_counts_still_after_it() {
    let stores = Stores::default();
    shows(
        &stores,
        vec![
            watcher::Event::Init,
            watcher::Event::InitApply(seen("old", 1)),
            watcher::Event::InitDone,
        ],
    )
    .await;
    let during = futures::stream::iter([watcher::Event::Init, watcher::Event::InitDone]);
    let during = during.map(|event| {
        if matches!(event, watcher::Event::InitDone) {
            stores.learn_pod(pod("granted", 9));
        }
        Event::Ok(event)
    });
    stores.labelled(during).await;
    assert_eq!(labelled(&stores), ["granted"], "the old one is gone");
}

#[tokio::test]
async fn an_answer_about_a_pod_that_is_gone_meanwhile_does_not_bring_it_back() {
    let stores = Stores::default();
    let deleted = watcher::Event::Delete(seen("a", 3));
    shows(&stores, vec![watcher::Event::Apply(seen("a", 2)), deleted]).await;
    stores.learn_pod(pod("a", 2));
    stores.learn_pod(pod("b", 2));
    assert_eq!(labelled(&stores), ["b"]);
}

#[test]
fn an_answer_about_a_pool_that_is_gone_or_came_again_changes_nothing() {
    let stores = Stores::default();
    stores.learn_pool(pool("first", 5));
    assert!(stores.view().pools.is_empty(), "nobody has seen it");
    let uid = || stores.view().pools["shop"].uid().expect("a UID");
    insert_pool(&mut stores.lock().view, pool("second", 7));
    stores.learn_pool(pool("first", 6));
    assert_eq!(uid(), "second");
    stores.learn_pool(pool("second", 8));
    let version = stores.view().pools["shop"].resource_version();
    assert_eq!(version.as_deref(), Some("8"));
}

#[test]
fn a_pod_stays_refused_since_it_was_first_seen_so() {
    let stores = Stores::default();
    let told = Timestamp::now()
        .round(jiff::Unit::Second)
        .expect("a second");
    let show = |version: u32, told: Timestamp| {
        let mut refused = seen("a", version);
        let status = json!({"conditions": [{"type": "PodScheduled", "status": "False",
            "reason": "Unschedulable", "lastTransitionTime": told.to_string()}]});
        refused.pod.status = serde_json::from_value(status).expect("a status");
        insert_waiting(&mut stores.lock().view, refused);
        refused_at(&stores.view().waiting["a"].facts).expect("a time")
    };
    let long_ago = told - Duration::from_secs(60);
    assert_eq!(show(1, long_ago), long_ago);
    // Ahead of our clock by less than a second, or behind it.
    let first = show(2, told);
    assert!(
        told <= first && first < told + Duration::from_secs(1),
        "{first}"
    );
    assert_eq!(show(3, told), first);
}
