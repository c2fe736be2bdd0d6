//! Pods on a virtual node: real API server, real scheduler, the emulator as Azure.

use burstpool::aci::names::GroupName;
use k8s_openapi::api::core::v1::Pod;
use kube::api::{Patch, PatchParams};
use serde_json::json;

use crate::node_in_process::{Burst, container, environment, is_running, phase, told};
use crate::support::objects::condition;

#[tokio::test]
async fn a_pod_runs_as_a_container_group_and_leaves_nothing_behind() {
    let burst = Burst::start("life").await;
    burst.create("web", &json!({})).await;
    burst.until("web", "the pod to run", is_running).await;
    let pod = burst.read("web").await;
    let [group] = burst.groups().try_into().expect("one group");
    assert!(group.name.contains("web"), "{}", group.name);
    let status = pod.status.as_ref().expect("a status");
    assert_eq!(status.host_ip.as_deref(), Some("127.0.0.1"));
    assert!(
        container(&pod).ready
            && container(&pod)
                .state
                .as_ref()
                .is_some_and(|s| s.running.is_some())
    );
    assert!(
        container(&pod).image_id.contains("@sha256:"),
        "{}",
        container(&pod).image_id
    );
    for kind in ["Initialized", "ContainersReady", "PodScheduled"] {
        assert_eq!(condition(&pod, kind), Some("True"), "{kind}");
    }
    assert_eq!(burst.puts(), 1);

    burst.delete("web", None).await;
    burst.until_gone("web").await;
    assert_eq!(burst.groups(), []);
}

/// azure-aci reported an exit code other than 0 as 0 and `Completed`.
#[tokio::test]
async fn an_exit_code_is_reported_correctly_and_a_finished_pod_stays_finished() {
    let burst = Burst::start("exit").await;
    let fails = [
        ("ACI_EMULATOR_EXIT_AFTER", "1s"),
        ("ACI_EMULATOR_EXIT_CODE", "3"),
    ];
    let mut job = environment(&fails);
    job["spec"]["restartPolicy"] = "Never".into();
    burst.create("job", &job).await;
    burst
        .until("job", "the pod to fail", |pod| {
            pod.is_some_and(|pod| phase(pod) == "Failed")
        })
        .await;
    let pod = burst.read("job").await;
    let ended = container(&pod)
        .state
        .as_ref()
        .and_then(|state| state.terminated.clone())
        .expect("it ended");
    assert_eq!(
        (ended.exit_code, ended.reason.as_deref()),
        (3, Some("Error"))
    );
    let events = told(&burst, "job", "Started").await;
    assert_eq!(events.len(), 1, "{events:?}");
}

#[tokio::test]
async fn a_group_that_vanishes_fails_its_pod_by_name() {
    let burst = Burst::start("vanish").await;
    burst.create("web", &json!({})).await;
    burst.until("web", "the pod to run", is_running).await;
    let [key] = burst.groups().try_into().expect("one group");
    let now = burst.emulator.shared().clock.now();
    burst.emulator.shared().store().remove(&key, now);
    let failed = |pod: Option<&Pod>| pod.is_some_and(|pod| phase(pod) == "Failed");
    burst.until("web", "the pod to fail", failed).await;
    let pod = burst.read("web").await;
    // A Job's failure policy can distinguish this from a failure of the program.
    assert_eq!(condition(&pod, "DisruptionTarget"), Some("True"));
    assert_eq!(
        pod.status.and_then(|status| status.reason).as_deref(),
        Some("NotFound")
    );
}

#[tokio::test]
async fn pods_outlive_the_operator_and_are_not_created_twice() {
    let mut burst = Burst::start("restart").await;
    for name in ["a", "b", "c"] {
        burst.create(name, &json!({})).await;
    }
    for name in ["a", "b", "c"] {
        burst.until(name, "the pod to run", is_running).await;
    }
    burst.stop().await;
    burst.create("d", &json!({})).await;
    burst.delete("a", None).await;
    burst.run().await;
    burst.until_gone("a").await;
    burst.until("d", "the new pod to run", is_running).await;
    for name in ["b", "c"] {
        assert!(is_running(Some(&burst.read(name).await)), "{name}");
    }
    assert_eq!((burst.puts(), burst.groups().len()), (4, 3));
}

#[tokio::test]
async fn a_pod_that_aci_cannot_run_is_refused_by_field_and_not_sent() {
    let burst = Burst::start("refused").await;
    let host = json!({"spec": {"volumes": [{"name": "host", "hostPath": {"path": "/"}}]}});
    burst.create("web", &host).await;
    let refused = |pod: Option<&Pod>| waiting_message(pod).contains("spec.volumes[0].hostPath");
    burst.until("web", "the field to be named", refused).await;
    assert_eq!(burst.puts(), 0);
    assert_eq!(told(&burst, "web", "Unsupported").await.len(), 1);
    burst.delete("web", None).await;
    burst.until_gone("web").await;
}

/// Only the record of a pod's own grant of this pool accepts a loss. The author of a pod does not have the UID of the pod
/// when the pod is created.
#[tokio::test]
async fn a_pod_loses_only_what_the_record_of_its_own_grant_accepts() {
    let burst = Burst::start("losses").await;
    let gate = json!([{"name": "example.com/grant"}]);
    let asking = json!({"spec": {"shareProcessNamespace": true, "schedulingGates": gate}});
    let (pool, loss) = (burst.pool.as_str(), "shareProcessNamespace");
    let refused_pods = ["copied", "other-pool", "other-loss", "unrecorded"];
    for (name, is_own, pool, losses) in [
        ("granted", true, pool, Some(loss)),
        ("copied", false, pool, Some(loss)),
        ("other-pool", true, "other", Some(loss)),
        ("other-loss", true, pool, Some("seccomp")),
        ("unrecorded", true, pool, None),
    ] {
        burst.create(name, &asking).await;
        let uid = burst.read(name).await.metadata.uid.filter(|_| is_own);
        let record = json!({
            "metadata": {"labels": {"burstpool.io/pool": pool}, "annotations": {
                "burstpool.io/granted-uid": uid.unwrap_or_else(|| "of-another".to_owned()),
                "burstpool.io/not-kept": losses}},
            "spec": {"schedulingGates": null},
        });
        let pods = burst.tenant.api::<Pod>();
        let (params, record) = (PatchParams::default(), Patch::Merge(record));
        let recorded = pods.patch(name, &params, &record).await;
        recorded.expect("a record");
    }
    burst.until("granted", "the pod to run", is_running).await;
    for name in refused_pods {
        let refused =
            |pod: Option<&Pod>| waiting_message(pod).contains("spec.shareProcessNamespace");
        burst.until(name, "the field to be named", refused).await;
    }
    assert_eq!(burst.puts(), 1);
}

/// The message of the first container of a pod that waits.
fn waiting_message(pod: Option<&Pod>) -> String {
    let state = pod.and_then(|pod| {
        let statuses = pod.status.as_ref()?.container_statuses.as_ref()?;
        statuses.first()?.state.clone()
    });
    state
        .and_then(|state| state.waiting?.message)
        .unwrap_or_default()
}

/// In azure-aci, one refusal left a pod Pending forever, and a lost answer led to a second create.
#[tokio::test]
async fn a_lost_answer_does_not_create_twice_and_a_throttled_pod_waits_and_runs() {
    let burst = Burst::start("faults").await;
    burst.fault(json!({"operation": "ContainerGroups_CreateOrUpdate", "count": 1, "fault": "loseAnswer"})).await;
    burst.create("lost", &json!({})).await;
    burst.until("lost", "the pod to run", is_running).await;
    assert_eq!((burst.puts(), burst.groups().len()), (1, 1));
    let throttle = json!({"error": {"status": 429, "retryAfter": 1}});
    burst
        .fault(
            json!({"operation": "ContainerGroups_CreateOrUpdate", "count": 1, "fault": throttle}),
        )
        .await;
    burst.create("throttled", &json!({})).await;
    burst.until("throttled", "the pod to run", is_running).await;
    assert_eq!(burst.groups().len(), 2);
}

#[tokio::test]
async fn a_late_lack_of_capacity_is_reported_and_the_create_retried() {
    let burst = Burst::start("capacity").await;
    burst
        .admin(
            "capacity/westeurope",
            &json!({"failure": "async", "count": 1}),
        )
        .await;
    burst.create("web", &json!({})).await;
    let told = |pod: Option<&Pod>| {
        let text = pod.map(|pod| serde_json::to_string(&pod.status).expect("JSON"));
        text.is_some_and(|text| text.contains("The requested resource is not available"))
    };
    burst.until("web", "the pod to say why", told).await;
    assert_eq!(phase(&burst.read("web").await), "Pending");
    burst.until("web", "the pod to run", is_running).await;
    assert_eq!((burst.puts(), burst.groups().len()), (2, 1));
}

#[tokio::test]
async fn a_group_that_azure_makes_after_saying_that_it_cannot_is_not_forgotten() {
    let burst = Burst::start("gateway").await;
    let gave_up = json!({"error": {"status": 504, "retryAfter": 3600}});
    burst
        .fault(json!({"operation": "ContainerGroups_CreateOrUpdate", "count": 1, "fault": gave_up}))
        .await;
    burst.create("web", &json!({})).await;
    let get = "ContainerGroups_Get";
    burst
        .eventually("it to be looked for before it is made again", |burst| {
            burst.answers(get, "404") > 0
        })
        .await;
    let pod = burst.read("web").await;
    let owner = burst.owner();
    let name = GroupName::from_pod(&owner.cluster, &pod);
    burst.foreign(name.as_str(), &owner.tags(&pod)).await;
    burst
        .eventually("it to be found", |burst| burst.answers(get, "200") > 0)
        .await;
    burst.delete("web", None).await;
    burst.until_gone("web").await;
    assert_eq!(
        (burst.puts(), burst.groups()),
        (2, vec![]),
        "both refused and made"
    );
}

/// Azure's list may be outdated: a pod does not end because its group is missing in one list.
#[tokio::test]
async fn a_running_pod_is_given_up_after_an_outage_only_once_its_group_was_asked_for() {
    let mut burst = Burst::start("outage").await;
    burst.create("web", &json!({})).await;
    burst.until("web", "the pod to run", is_running).await;
    burst.stop().await;
    let [key] = burst.groups().try_into().expect("one group");
    let now = burst.emulator.shared().clock.now();
    burst.emulator.shared().store().remove(&key, now);
    burst.run().await;
    let failed = |pod: Option<&Pod>| pod.is_some_and(|pod| phase(pod) == "Failed");
    burst.until("web", "the pod to fail", failed).await;
    let denials = burst.answers("ContainerGroups_Get", "404");
    assert!(denials >= 2, "one answer ends no pod: {denials}");
}

/// Azure is eventually consistent: one replica may not find a running group, or not yet find a new one.
#[tokio::test]
async fn azure_denies_a_group_that_runs_and_one_that_was_just_created_and_neither_is_lost() {
    let mut burst = Burst::start("denied").await;
    let lag = json!({"operation": "ContainerGroups_CreateOrUpdate", "count": 1, "fault": {"lag": "100s"}});
    burst.fault(lag).await;
    burst.create("web", &json!({})).await;
    burst.until("web", "the pod to run", is_running).await;
    assert!(burst.answers("ContainerGroups_Get", "404") > 0);
    assert_eq!(burst.puts(), 1, "lag is no reason for another PUT");

    // An operator reads all groups at its start.
    burst.stop().await;
    let get = "ContainerGroups_Get";
    let denial = json!({"error": {"status": 404}});
    burst
        .fault(json!({"operation": get, "count": 1, "fault": denial}))
        .await;
    let [shown, denied] = ["200", "404"].map(|code| burst.answers(get, code));
    burst.run().await;
    burst
        .eventually("a denial, and an answer after it", |burst| {
            burst.answers(get, "404") > denied && burst.answers(get, "200") > shown
        })
        .await;
    assert!(is_running(Some(&burst.read("web").await)));
    burst.delete("web", None).await;
    burst.until_gone("web").await;
    assert_eq!(burst.groups(), [], "the pod outlives its group");
}
