//! Groups of other owners in the same resource group: another cluster's, and manually created ones.

use std::collections::BTreeMap;
use std::time::Duration;

use burstpool::aci::names::{CLUSTER_TAG, GroupOwner, NODE_TAG, POD_UID_TAG};
use burstpool::emulator::timeline::TimelineEntry;
use serde_json::json;

use crate::node_in_process::{Burst, Setup, azure, is_running};
use crate::support::{Cluster, Options};

const LIST: &str = "ContainerGroups_ListByResourceGroup";

/// A setup that lists groups often and deletes those without a pod at once.
fn hasty(cluster_uid: &'static str, pool: &str) -> Setup {
    Setup {
        cluster_uid,
        pool: Some(pool.to_owned()),
        sweep_every: Duration::from_millis(200),
        orphan_grace: Duration::ZERO,
        ..Setup::default()
    }
}

async fn until_all_run(burst: &Burst, names: &[&str]) {
    for name in names {
        burst.until(name, "the pod to run", is_running).await;
    }
}

/// Waits for three more lists of groups.
async fn until_swept(burst: &Burst) {
    let before = burst.answers(LIST, "200");
    burst
        .eventually("three more lists", |burst| {
            burst.answers(LIST, "200") >= before + 3
        })
        .await;
}

#[tokio::test]
async fn two_clusters_in_one_resource_group_never_touch_each_others_groups() {
    // Both clusters have the same pool and node name: only the cluster UID tells their groups apart.
    let other = Cluster::start(Options::default())
        .await
        .expect("a second cluster");
    let shared = azure().await;
    let setup = |uid| Setup {
        azure: Some(shared.clone()),
        ..hasty(uid, "twins")
    };
    let mut one = Burst::with("one", setup("cluster-one")).await;
    let mut two = Burst::on(&other, "two", setup("cluster-two")).await;
    let names = ["a", "b", "c", "d", "e"];
    for name in names {
        one.create(name, &json!({})).await;
        two.create(name, &json!({})).await;
    }
    until_all_run(&one, &names).await;
    until_all_run(&two, &names).await;
    assert_eq!(one.groups().len(), 10);

    // Both restart, and one of them finds groups whose pods went meanwhile.
    one.stop().await;
    two.stop().await;
    one.delete("a", Some(0)).await;
    one.delete("b", None).await;
    one.run().await;
    two.run().await;
    one.until_gone("b").await;
    one.eventually("the group of the first to be swept", |one| {
        one.groups().len() == 8
    })
    .await;
    until_swept(&one).await;
    until_all_run(&one, &["c", "d", "e"]).await;
    until_all_run(&two, &names).await;
    let timeline = one.timeline();
    let deleted: Vec<&TimelineEntry> = timeline
        .iter()
        .filter(|entry| entry.delete_received.is_some())
        .collect();
    assert_eq!(
        (timeline.len(), deleted.len(), one.groups().len()),
        (10, 2, 8)
    );
    assert!(timeline.iter().all(|entry| entry.puts == 1), "{timeline:?}");
    let clusters: Vec<String> = one
        .bodies()
        .into_values()
        .filter_map(|body| body.tags?.remove(CLUSTER_TAG))
        .collect();
    let of = |name: &str| clusters.iter().filter(|cluster| *cluster == name).count();
    assert_eq!((of("cluster-one"), of("cluster-two")), (3, 5));
}

#[tokio::test]
async fn garbage_collection_deletes_only_own_groups_without_a_pod() {
    let setup = Setup {
        orphan_grace: Duration::from_secs(2),
        ..hasty("ours", "sweeper")
    };
    let burst = Burst::with("sweeper", setup).await;
    burst.create("web", &json!({})).await;
    burst.until("web", "the pod to run", is_running).await;
    let owner = burst.owner();
    let mut gone = burst.pod("gone", &json!({}));
    gone.metadata.namespace = Some(burst.tenant.namespace.clone());
    gone.metadata.uid = Some("00000000-0000-0000-0000-000000000000".to_owned());
    let ours = owner.tags(&gone);
    let of = |cluster: &str, node: &str| {
        let owner = GroupOwner {
            cluster: cluster.to_owned(),
            node: node.to_owned(),
            ..owner.clone()
        };
        owner.tags(&gone)
    };
    let without = |tag: &str| {
        let mut tags = ours.clone();
        tags.remove(tag);
        tags
    };
    let theirs = [
        ("no-tags", BTreeMap::new()),
        ("another-cluster", of("theirs", &owner.node)),
        ("another-node", of(&owner.cluster, "burst-other-weu")),
        ("no-cluster", without(CLUSTER_TAG)),
        ("no-node", without(NODE_TAG)),
        ("no-pod", without(POD_UID_TAG)),
    ];
    for (name, tags) in &theirs {
        burst.foreign(name, tags).await;
    }
    burst.foreign("orphan", &ours).await;
    burst
        .eventually("the orphan to be swept", |burst| {
            burst.groups().iter().all(|key| key.name != "orphan")
        })
        .await;
    until_swept(&burst).await;

    assert_eq!(burst.groups().len(), 1 + theirs.len());
    assert!(burst.is_alive() && is_running(Some(&burst.read("web").await)));
    let timeline = burst.timeline();
    let swept: Vec<&TimelineEntry> = timeline
        .iter()
        .filter(|entry| entry.delete_received.is_some())
        .collect();
    let [orphan] = swept.try_into().expect("one is deleted");
    assert!(orphan.group.ends_with("/orphan"), "{orphan:?}");
    let lived = orphan
        .delete_received
        .expect("it is")
        .duration_since(orphan.put_received);
    // The emulated clock runs twenty times as fast as the host's.
    assert!(
        lived.as_secs() >= 2 * 20,
        "left alone for too short a time: {lived}"
    );
}
