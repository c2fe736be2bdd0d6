//! A `DaemonSet` that tolerates all taints, and its pod on a virtual node.

use std::time::Duration;

use burstpool::aci::names::{GroupName, GroupOwner};
use burstpool::api::BurstPool;
use burstpool::node::daemon_set::REASON;
use k8s_openapi::api::apps::v1::DaemonSet;
use k8s_openapi::api::core::v1::{ContainerStateWaiting, Event, Namespace, Pod};
use kube::api::{DeleteParams, ListParams, Patch, PatchParams, PostParams};
use kube::runtime::watcher;
use kube::{Api, ResourceExt};
use serde_json::{Value, json};

use crate::support::{objects, wait};
use crate::world::{World, is_running};

const NODE: &str = "burst-shop-weu";

fn daemon_sets(world: &World) -> Api<DaemonSet> {
    Api::namespaced(world.client.clone(), "default")
}

async fn create(world: &World) {
    let agent = json!({
        "apiVersion": "apps/v1", "kind": "DaemonSet", "metadata": {"name": "agent"},
        "spec": {
            "selector": {"matchLabels": {"app": "agent"}},
            "template": {
                "metadata": {"labels": {"app": "agent"}},
                "spec": {
                    "tolerations": [{"operator": "Exists"}],
                    "containers": [{"name": "main", "image": "agent"}],
                },
            },
        },
    });
    let agent: DaemonSet = serde_json::from_value(agent).expect("a DaemonSet");
    daemon_sets(world)
        .create(&PostParams::default(), &agent)
        .await
        .expect("a DaemonSet");
}

/// Adds or removes the node affinity that burstpool's messages ask for.
async fn keep_off(world: &World, is_kept_off: bool) {
    let virtual_nodes = json!({"key": "type", "operator": "NotIn", "values": ["virtual-kubelet"]});
    let affinity = json!({"nodeAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": {
        "nodeSelectorTerms": [{"matchExpressions": [virtual_nodes]}],
    }}});
    let affinity = if is_kept_off { affinity } else { Value::Null };
    let change = json!({"spec": {"template": {"spec": {"affinity": affinity}}}});
    daemon_sets(world)
        .patch("agent", &PatchParams::default(), &Patch::Merge(&change))
        .await
        .expect("an affinity");
}

async fn pods(world: &World, what: &str, wanted: impl Fn(&[Pod]) -> bool) -> Vec<Pod> {
    let ours = watcher::Config::default().labels("app=agent");
    match wait::until_all(world.pods(), ours, what, wanted).await {
        Ok(pods) => pods,
        Err(error) => unreachable!("{error}\n{}", world.tail()),
    }
}

fn waiting(pod: &Pod) -> Option<&ContainerStateWaiting> {
    let mut statuses = pod.status.as_ref()?.container_statuses.iter().flatten();
    statuses.next()?.state.as_ref()?.waiting.as_ref()
}

fn is_told(pod: &Pod) -> bool {
    waiting(pod).is_some_and(|waiting| waiting.reason.as_deref() == Some(REASON))
}

fn is_here(pod: &Pod) -> bool {
    objects::node_of(pod) == Some(NODE)
}

/// The pod on the virtual node, once its status says why it does not run and both pods at home run.
async fn told(world: &World) -> Pod {
    let all = |pods: &[Pod]| {
        pods.len() == 3
            && pods.iter().all(|pod| {
                if is_here(pod) {
                    is_told(pod)
                } else {
                    is_running(Some(pod))
                }
            })
    };
    let pods = pods(world, "two pods to run and one to say why not", all).await;
    let here = pods.into_iter().find(is_here);
    here.expect("a DaemonSet that tolerates everything has a pod on every node")
}

async fn events(world: &World, pod: &Pod) -> Vec<Event> {
    let events: Api<Event> = Api::namespaced(world.client.clone(), "default");
    let uid = pod.metadata.uid.as_deref().expect("a UID");
    let about = format!("involvedObject.uid={uid},reason={REASON}");
    let config = watcher::Config::default().fields(&about);
    wait::until_all(events, config, "an Event", |events: &[Event]| {
        !events.is_empty()
    })
    .await
    .expect("it is told of")
}

fn message(pool: Option<&BurstPool>) -> Option<String> {
    let placements = &pool?.status.as_ref()?.placements;
    Some(placements.first()?.message.clone())
}

/// Creates a group for the pod, as an operator version would have that did not know `DaemonSet`s.
async fn put_group(world: &World, pod: &Pod) {
    let system = Api::<Namespace>::all(world.client.clone())
        .get("kube-system")
        .await;
    let cluster = system.expect("kube-system").uid().expect("a UID");
    let name = GroupName::from_pod(&cluster, pod);
    let owner = GroupOwner {
        cluster,
        pool: "shop".to_owned(),
        node: NODE.to_owned(),
    };
    let resources = json!({"requests": {"cpu": 1.0, "memoryInGB": 1.0}});
    let group = json!({
        "location": "westeurope",
        "tags": owner.tags(pod),
        "properties": {
            "osType": "Linux",
            "containers": [{"name": "main", "properties": {"image": "agent", "resources": resources}}],
        },
    });
    let url = format!(
        "{}/subscriptions/00000000-0000-0000-0000-000000000000/resourceGroups/rg/providers/\
         Microsoft.ContainerInstance/containerGroups/{name}?api-version=2023-05-01",
        world.azure.url()
    );
    let sent = reqwest::Client::new().put(url).bearer_auth("any");
    let sent = sent.json(&group).send().await.expect("an answer");
    assert!(sent.status().is_success(), "{:?}", sent.text().await);
}

async fn until_no_group(world: &World) {
    let mut again = tokio::time::interval(Duration::from_millis(100));
    let none = async {
        while !world.groups().is_empty() {
            again.tick().await;
        }
    };
    let ended = tokio::time::timeout(wait::DEADLINE, none).await;
    assert!(ended.is_ok(), "{:?}\n{}", world.groups(), world.tail());
}

async fn homes_and_pool() -> World {
    let world = World::start().await;
    for home in ["home-a", "home-b"] {
        world.home_node(home).await;
    }
    world.create_pool("shop").await;
    create(&world).await;
    world
}

#[tokio::test]
async fn a_daemon_sets_pod_never_runs_on_aci_and_its_status_says_how_to_keep_it_off() {
    let world = homes_and_pool().await;
    let here = told(&world).await;
    let why = waiting(&here).and_then(|waiting| waiting.message.clone());
    let why = why.expect("a message");
    assert!(
        why.contains("{key: type, operator: NotIn, values: [virtual-kubelet]}"),
        "{why}"
    );
    assert_eq!(events(&world, &here).await.len(), 1);
    world
        .until_pool("shop", "the pool to name the DaemonSet", |pool| {
            message(pool).is_some_and(|said| said.contains(&why) && said.contains("default/agent"))
        })
        .await;

    // A deleted pod goes at once, and its replacement waits for the same reason.
    let name = here.name_any();
    world
        .pods()
        .delete(&name, &DeleteParams::default())
        .await
        .expect("deleted");
    world
        .until_pod(&name, "it to be gone", |pod| pod.is_none())
        .await;
    assert_ne!(told(&world).await.uid(), here.uid());

    keep_off(&world, true).await;
    let complete = |set: Option<&DaemonSet>| {
        let generation = set.and_then(|set| set.metadata.generation);
        let status = set.and_then(|set| set.status.as_ref());
        status.is_some_and(|status| {
            status.observed_generation == generation
                && status.desired_number_scheduled == 2
                && status.updated_number_scheduled == Some(2)
                && status.number_available == Some(2)
        })
    };
    wait::until(daemon_sets(&world), "agent", "the rollout", complete)
        .await
        .expect("it completes");
    pods(&world, "the pod here to be gone", |pods| {
        pods.len() == 2 && !pods.iter().any(is_here)
    })
    .await;
    world
        .until_pool("shop", "the pool to name nothing", |pool| {
            message(pool).is_some_and(|said| !said.contains("DaemonSet"))
        })
        .await;
    assert_eq!((world.groups(), world.puts()), (Vec::new(), 0));
}

#[tokio::test]
async fn a_daemon_sets_pod_loses_a_group_that_it_has_and_keeps_no_pool_from_going() {
    let mut world = homes_and_pool().await;
    let here = told(&world).await;
    world.kill().await;
    put_group(&world, &here).await;
    assert_eq!(world.groups().len(), 1);
    world.run();
    until_no_group(&world).await;
    assert_eq!(told(&world).await.uid(), here.uid(), "and it waits on");

    world.delete_pool("shop").await;
    world.until_no_pool("shop").await;
    let events: Api<Event> = Api::namespaced(world.client.clone(), "default");
    let about = ListParams::default().fields(&format!("reason={REASON}"));
    let told = events.list(&about).await.expect("a list").items;
    assert_eq!(told.len(), 1, "once, also by two operators: {told:?}");
}
