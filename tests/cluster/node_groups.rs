//! Which container groups the operator creates, keeps and deletes in Azure. Each test covers a defect of the Go
//! provider azure-aci.
//!
//! `node_reports.rs` has the tests of what the operator reports to Kubernetes.

use std::collections::{BTreeMap, HashSet};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use burstpool::aci::names::{CLUSTER_TAG, GroupName, POD_UID_TAG};
use burstpool::emulator::group::model::{Container, GroupBody, Properties};
use burstpool::emulator::{Emulator, EmulatorOptions};
use k8s_openapi::api::core::v1::{Pod, Secret};
use kube::api::{Patch, PatchParams, PostParams};
use kube::{Api, ResourceExt as _};
use serde_json::json;

use crate::node_in_process::{ARM_TOKEN, Burst, Setup, is_running, phase};
use crate::support::Cluster;

const PUT: &str = "ContainerGroups_CreateOrUpdate";
const GET: &str = "ContainerGroups_Get";
const LIST: &str = "ContainerGroups_ListByResourceGroup";

fn containers(body: &GroupBody) -> &[Container] {
    body.properties.as_ref().map_or(&[], Properties::containers)
}

/// Whether the text occurs anywhere in the pod's status.
fn says(pod: Option<&Pod>, words: &str) -> bool {
    let text = pod.map(|pod| serde_json::to_string(&pod.status).expect("JSON"));
    text.is_some_and(|text| text.contains(words))
}

/// azure-aci sent secrets in environment variables in clear text.
#[tokio::test]
async fn a_secret_in_the_environment_reaches_azure_only_as_a_secure_value() {
    let burst = Burst::start("secure").await;
    let secret = json!({"metadata": {"name": "s"}, "stringData": {"KEY": "SECRET-VALUE"}});
    let secret: Secret = serde_json::from_value(secret).expect("a secret");
    burst.tenant.create(&secret).await.expect("a secret");
    let by_name =
        json!([{"name": "ONE", "valueFrom": {"secretKeyRef": {"name": "s", "key": "KEY"}}}]);
    let environment = json!({"env": by_name, "envFrom": [{"secretRef": {"name": "s"}}]});
    burst
        .create("web", &json!({"spec": {"containers": [environment]}}))
        .await;
    burst.until("web", "the pod to run", is_running).await;

    let bodies = burst.bodies();
    let variables = bodies
        .values()
        .flat_map(containers)
        .flat_map(Container::environment);
    let secure: Vec<&str> = variables
        .filter_map(|variable| variable.secure_value.as_deref())
        .collect();
    assert_eq!(secure, ["SECRET-VALUE"; 2]);
    // What Azure shows to all users with the right to read the group.
    let shown = serde_json::to_string(&bodies).expect("bodies are plain data");
    assert!(!shown.contains("SECRET-VALUE"), "{shown}");
}

/// In azure-aci, one refusal left a pod Pending forever, or failed it if its restart policy is Never.
#[tokio::test]
async fn a_pod_that_azure_refuses_for_a_while_runs_afterwards_without_a_trace() {
    let burst = Burst::start("refusals").await;
    for (name, count, fault) in [
        ("conflict", 1, json!({"status": 409})),
        ("outage", 3, json!({"status": 503})),
    ] {
        let rule = json!({"operation": PUT, "count": count, "fault": {"error": fault}});
        burst.fault(rule).await;
        burst
            .create(name, &json!({"spec": {"restartPolicy": "Never"}}))
            .await;
        burst
            .until(name, "the pod to say why it waits", |pod| {
                let is_pending = pod.is_some_and(|pod| phase(pod) == "Pending");
                is_pending && says(pod, "A fault that a rule configures.")
            })
            .await;
        burst.until(name, "the pod to run", is_running).await;
        let status = burst.read(name).await.status.expect("a status");
        assert_eq!((status.reason, status.message), (None, None), "{name}");
    }
    let puts: Vec<u64> = burst.timeline().iter().map(|entry| entry.puts).collect();
    assert_eq!((puts, burst.puts()), (vec![1, 1], 6));
}

/// In azure-aci, a new pod with the name of an old one took over its group with the old image, even one
/// that was being deleted.
#[tokio::test]
async fn a_pod_of_the_same_name_gets_its_own_group_while_the_old_one_still_goes() {
    let burst = Burst::start("same").await;
    let image = |image: &str| json!({"spec": {"containers": [{"image": image}]}});
    burst.create("db-0", &image("old")).await;
    burst.until("db-0", "the first to run", is_running).await;
    let [old] = burst.groups().try_into().expect("one group");
    let refusal =
        json!({"operation": "ContainerGroups_Delete", "fault": {"error": {"status": 503}}});
    burst.fault(refusal).await;
    burst.delete("db-0", Some(0)).await;
    burst.until_gone("db-0").await;

    burst.create("db-0", &image("new")).await;
    burst.until("db-0", "the second to run", is_running).await;
    let bodies = burst.bodies();
    let images: HashSet<&str> = bodies
        .values()
        .flat_map(containers)
        .map(Container::image)
        .collect();
    assert_eq!((bodies.len(), images), (2, HashSet::from(["old", "new"])));

    burst.no_faults();
    burst
        .eventually("the old group to be gone", |burst| {
            burst.groups().len() == 1 && !burst.groups().contains(&old)
        })
        .await;
    assert!(is_running(Some(&burst.read("db-0").await)));
    assert!(burst.timeline().iter().all(|entry| entry.puts == 1));
}

/// azure-aci exited when it could not connect to Azure.
#[tokio::test]
async fn an_azure_that_refuses_connections_is_waited_for() {
    let options = |listen: SocketAddr| EmulatorOptions {
        listen,
        speed: 20.0,
        ..EmulatorOptions::default()
    };
    let any = SocketAddr::from(([127, 0, 0, 1], 0));
    let azure = Emulator::start(options(any)).await.expect("the emulator");
    let arm = azure.url().to_owned();
    let authority = arm.trim_start_matches("http://").trim_end_matches('/');
    let address: SocketAddr = authority.parse().expect("an address and a port");
    let setup = Setup {
        arm: Some(arm.clone()),
        ..Setup::default()
    };
    let mut burst = Burst::with("refusing", setup).await;
    azure.stop().await;
    burst.create("web", &json!({})).await;
    burst
        .until("web", "the pod to say why it waits", |pod| {
            pod.is_some_and(|pod| phase(pod) == "Pending") && says(pod, "AzureUnavailable")
        })
        .await;
    assert!(burst.is_alive());
    let back = Emulator::start(options(address)).await;
    burst.emulator = Arc::new(back.expect("the port is still free"));
    burst.until("web", "the pod to run", is_running).await;
    assert!(burst.is_alive());
    assert_eq!(burst.groups().len(), 1);
}

/// azure-aci exited when a group with a pod's name belonged to another owner. burstpool does not even
/// write to such a group, although no name is like these by accident.
#[tokio::test]
async fn a_foreign_group_with_a_pods_name_is_not_touched_and_the_pod_reports_it() {
    let burst = Burst::start("foreign").await;
    // A pod with a scheduling gate has a UID, and so a group name, before it has a node.
    let gated = json!({"spec": {"schedulingGates": [{"name": "test/wait"}]}});
    burst.create("web", &gated).await;
    let owner = burst.owner();
    let name = GroupName::from_pod(&owner.cluster, &burst.read("web").await);
    let half = BTreeMap::from([(CLUSTER_TAG.to_owned(), owner.cluster.clone())]);
    burst.foreign(name.as_str(), &half).await;
    let asked = burst.answers(LIST, "200");
    burst
        .eventually("a LIST that shows it", |burst| {
            burst.answers(LIST, "200") > asked + 1
        })
        .await;
    let open = Patch::Merge(json!({"spec": {"schedulingGates": null}}));
    let pods = burst.tenant.api::<Pod>();
    pods.patch("web", &PatchParams::default(), &open)
        .await
        .expect("the gate opens");

    burst
        .until("web", "the pod to say why", |pod| {
            says(pod, "name another owner")
        })
        .await;
    burst.create("other", &json!({})).await;
    burst.until("other", "another pod to run", is_running).await;
    burst.delete("web", None).await;
    burst.until_gone("web").await;
    let theirs = &burst.bodies()[name.as_str()];
    assert_eq!(containers(theirs)[0].image(), "theirs");
    assert!(burst.is_alive());
    let [first, _] = burst.timeline().try_into().expect("two groups");
    assert_eq!((first.puts, first.delete_received), (1, None));
    // The list showed the owner, so the operator does not read the group again and again.
    assert!(first.gets < 5, "{} reads", first.gets);
}

/// In azure-aci, reads that Azure refused at a restart led to a second create of live groups.
#[tokio::test]
async fn reads_that_are_refused_at_a_restart_make_no_group_again() {
    let mut burst = Burst::start("reread").await;
    let names: Vec<String> = (0..10).map(|n| format!("pod-{n}")).collect();
    for name in &names {
        burst.create(name, &json!({})).await;
    }
    for name in &names {
        burst.until(name, "the pod to run", is_running).await;
    }
    burst.stop().await;
    let listed = burst.answers(LIST, "200");
    let refusal = json!({"error": {"status": 403}});
    let refused = |operation| json!({"operation": operation, "fault": refusal});
    let lists = burst.fault(refused(LIST)).await;
    burst.fault(refused(GET)).await;
    burst.run().await;
    burst
        .eventually("every group to be asked for in vain", |burst| {
            burst.answers(GET, "403") >= 10
        })
        .await;
    // A list that shows no group of a new pod is enough to create one, which proves that the operator acts on
    // pods while the reads of the others are still refused. A pod that came before the list would need a read.
    assert_eq!(burst.answers(LIST, "200"), listed);
    burst.no_fault(lists);
    burst
        .eventually("a list", |burst| burst.answers(LIST, "200") > listed)
        .await;
    burst.create("late", &json!({})).await;
    burst
        .eventually("a group for the new pod", |burst| {
            burst.groups().len() == 11
        })
        .await;
    assert!(burst.answers(LIST, "403") > 0);
    assert_eq!(burst.puts(), 11);
    for name in &names {
        assert!(is_running(Some(&burst.read(name).await)), "{name}");
    }
}

/// azure-aci deleted groups that had just been created, because it compared with an old list.
#[tokio::test]
async fn sweeping_without_a_pause_deletes_no_group_that_was_just_made() {
    let options = EmulatorOptions {
        speed: 20.0,
        // A list is a quarter of a second old when it arrives.
        rtt: Duration::from_millis(500),
        ..EmulatorOptions::default()
    };
    let setup = Setup {
        azure: Some(Arc::new(
            Emulator::start(options).await.expect("the emulator"),
        )),
        sweep_every: Duration::from_millis(20),
        orphan_grace: Duration::ZERO,
        ..Setup::default()
    };
    let burst = Burst::with("sweep", setup).await;
    let names: Vec<String> = (0..20).map(|n| format!("pod-{n}")).collect();
    for name in &names {
        burst.create(name, &json!({})).await;
    }
    for name in &names {
        burst.until(name, "the pod to run", is_running).await;
    }
    let timeline = burst.timeline();
    assert_eq!(timeline.len(), 20);
    let unharmed = timeline
        .iter()
        .filter(|entry| entry.puts == 1 && entry.delete_received.is_none());
    assert_eq!(unharmed.count(), 20);
}

/// In azure-aci, group names of pods in different namespaces collided, and Azure rejected long or
/// dotted ones.
#[tokio::test]
async fn pods_with_equal_or_long_names_have_groups_of_their_own() {
    let burst = Burst::start("names").await;
    let (one, cluster) = (burst.tenant.namespace.clone(), Cluster::shared().await);
    let other = format!("{one}-a");
    cluster.namespace(&other).await.expect("a namespace");
    let long = format!("{}.{}.end", "x".repeat(60), "y".repeat(180));
    burst.create("a-b", &json!({})).await;
    let labelled = json!({"metadata": {"labels": {"app": "long"}}});
    burst.create(&long, &labelled).await;
    let others: Api<Pod> = Api::namespaced(burst.tenant.client.clone(), &other);
    others
        .create(&PostParams::default(), &burst.pod("b", &json!({})))
        .await
        .expect("a pod");
    burst.until("a-b", "the pod to run", is_running).await;
    burst.until(&long, "the long one to run", is_running).await;
    burst
        .eventually("a group each", |burst| burst.groups().len() == 3)
        .await;
    let bodies = burst.bodies();
    let tags = bodies.values().filter_map(|body| body.tags.as_ref());
    let uids: HashSet<&str> = tags
        .filter_map(|tags| tags.get(POD_UID_TAG).map(String::as_str))
        .collect();
    assert_eq!(uids.len(), 3);
    let first = burst.read("a-b").await.uid().expect("a UID");
    assert!(uids.contains(first.as_str()));
    assert!(
        bodies
            .keys()
            .all(|name| name.len() <= 63 && !name.contains('.'))
    );
    let prefix = format!("{one}-a-b-");
    assert_eq!(
        bodies
            .keys()
            .filter(|name| name.starts_with(&prefix))
            .count(),
        2
    );
}

/// azure-aci put its own token into every group.
#[tokio::test]
async fn no_credential_of_the_operator_is_in_a_group() {
    let burst = Burst::start("credentials").await;
    let plain = json!({"spec": {"automountServiceAccountToken": false}});
    burst.create("web", &plain).await;
    burst.until("web", "the pod to run", is_running).await;
    let [body]: [GroupBody; 1] = burst
        .bodies()
        .into_values()
        .collect::<Vec<_>>()
        .try_into()
        .expect("one");
    let text = format!("{body:?}");
    assert!(
        text.contains(&burst.owner().node),
        "all of it is text: {text}"
    );
    let token = Cluster::shared().await.token();
    // "eyJ" is the beginning of every JSON web token, "ZXlK" its base64 form.
    for secret in [ARM_TOKEN, token, "eyJ", "ZXlK"] {
        assert!(!text.contains(secret), "{secret}: {text}");
    }
    assert_eq!(
        body.properties.and_then(|properties| properties.extensions),
        None
    );
}
