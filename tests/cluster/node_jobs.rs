//! Jobs on a virtual node: the operator reports the end of a pod once, correctly, and before its
//! replacement starts.

use std::time::Duration;

use burstpool::emulator::{Emulator, EmulatorOptions};
use k8s_openapi::api::batch::v1::Job;
use k8s_openapi::api::core::v1::Pod;
use kube::ResourceExt;
use kube::api::ListParams;
use kube::runtime::watcher;
use parking_lot::Mutex;
use serde_json::{Value, json};

use crate::node_in_process::{Burst, Setup, container, environment, phase};
use crate::support::wait;

/// Creates a Job with this pod, and with more fields in its spec.
async fn create_job(burst: &Burst, pod: &Value, more: &Value) {
    let mut template = serde_json::to_value(burst.pod("job", pod)).expect("JSON");
    template["metadata"] = json!({"labels": {"app": "job"}});
    let mut job = json!({"metadata": {"name": "job"}, "spec": more});
    job["spec"]["template"] = template;
    let job: Job = serde_json::from_value(job).expect("a Job");
    burst.tenant.create(&job).await.expect("a Job");
}

/// A pod that never restarts and whose container runs this script.
fn script(variables: &[(&str, &str)]) -> Value {
    let mut pod = environment(variables);
    pod["spec"]["restartPolicy"] = "Never".into();
    pod
}

fn of_the_job() -> watcher::Config {
    watcher::Config::default().labels("job-name=job")
}

async fn pods(burst: &Burst) -> Vec<Pod> {
    let of_the_job = ListParams::default().labels("job-name=job");
    let pods = burst.tenant.api::<Pod>().list(&of_the_job).await;
    pods.expect("a list").items
}

/// Waits for a condition of the Job, and returns its reason.
async fn until_job(burst: &Burst, kind: &str) -> String {
    let reason = |job: Option<&Job>| {
        let mut conditions = job?.status.as_ref()?.conditions.iter().flatten();
        let found =
            conditions.find(|condition| condition.type_ == kind && condition.status == "True")?;
        Some(found.reason.clone().unwrap_or_default())
    };
    wait::get(
        burst.tenant.api::<Job>(),
        "job",
        &format!("the Job to be {kind}"),
        reason,
    )
    .await
    .expect("it comes to be so")
}

#[tokio::test]
async fn a_pods_replacement_comes_only_after_its_end() {
    let burst = Burst::start("replaced").await;
    create_job(
        &burst,
        &script(&[]),
        &json!({"podReplacementPolicy": "Failed", "backoffLimit": 6}),
    )
    .await;
    let running = |pods: &[Pod]| pods.len() == 1 && phase(&pods[0]) == "Running";
    let first = wait::until_all(
        burst.tenant.api::<Pod>(),
        of_the_job(),
        "a pod to run",
        running,
    )
    .await
    .expect("it runs");
    let first = first[0].name_any();
    // Let the deletion take a while.
    let outage = json!({"operation": "ContainerGroups_Delete", "count": 2, "fault": {"error": {"status": 503}}});
    burst.fault(outage).await;
    burst.delete(&first, Some(30)).await;

    let seen = Mutex::new(Vec::new());
    let replaced = |pods: &[Pod]| {
        let phases = |wanted: bool| {
            let those = pods
                .iter()
                .filter(|pod| (pod.name_any() == first) == wanted);
            those.map(|pod| phase(pod).to_owned()).collect::<Vec<_>>()
        };
        let (old, new) = (phases(true), phases(false));
        let is_over = new.iter().any(|phase| phase == "Running");
        seen.lock().push((old, new));
        is_over
    };
    wait::until_all(
        burst.tenant.api::<Pod>(),
        of_the_job(),
        "a replacement",
        replaced,
    )
    .await
    .expect("it runs");
    let seen = seen.into_inner();
    let early = |(old, new): &&(Vec<String>, Vec<String>)| {
        !new.is_empty() && old.iter().any(|phase| phase != "Failed")
    };
    assert_eq!(seen.iter().find(early), None, "{seen:?}");
    let ended = |(old, new): &(Vec<String>, Vec<String>)| new.is_empty() && *old == ["Failed"];
    assert!(seen.iter().any(ended), "the end was seen: {seen:?}");
    let puts: Vec<u64> = burst.timeline().iter().map(|entry| entry.puts).collect();
    assert_eq!((puts, burst.groups().len()), (vec![1, 1], 1));
}

#[tokio::test]
async fn a_failure_policy_sees_the_first_exit_code_although_aci_restarts_the_container() {
    let burst = Burst::start("policy").await;
    let pod = script(&[
        ("ACI_EMULATOR_EXIT_AFTER", "5s"),
        ("ACI_EMULATOR_EXIT_CODE", "42"),
        ("ACI_EMULATOR_PLATFORM_RESTARTS", "1000"),
    ]);
    let rule = json!({"action": "FailJob", "onExitCodes": {"operator": "In", "values": [42]}});
    create_job(
        &burst,
        &pod,
        &json!({"podFailurePolicy": {"rules": [rule]}, "backoffLimit": 6}),
    )
    .await;
    assert_eq!(until_job(&burst, "Failed").await, "PodFailurePolicy");
    burst
        .eventually("the group that runs again to be deleted", |burst| {
            burst.groups().is_empty()
        })
        .await;
    let [pod] = pods(&burst)
        .await
        .try_into()
        .expect("one pod, and no replacement");
    let ended = container(&pod)
        .state
        .as_ref()
        .and_then(|state| state.terminated.clone());
    assert_eq!(ended.map(|ended| ended.exit_code), Some(42));
    assert_eq!(
        (phase(&pod), container(&pod).restart_count, burst.puts()),
        ("Failed", 0, 1)
    );
}

#[tokio::test]
async fn a_finished_pod_stays_so_and_its_group_goes_when_its_logs_could_be_read() {
    // The operator keeps a group for five minutes after its end, in Azure's time. Only these seconds
    // must really pass.
    let left = Duration::from_secs(40);
    let options = EmulatorOptions {
        start_latency: Some(Duration::from_millis(500)),
        shows: burstpool::emulator::ShownTime::EmulatedTime {
            behind: burstpool::node::pod_plan::FINISHED_GROUP_TTL.saturating_sub(left),
        },
        ..EmulatorOptions::default()
    };
    let azure = Emulator::start(options).await.expect("the emulator starts");
    let setup = Setup {
        azure: Some(azure.into()),
        ..Setup::default()
    };
    let mut burst = Burst::with("finished", setup).await;
    create_job(
        &burst,
        &script(&[("ACI_EMULATOR_EXIT_AFTER", "100ms")]),
        &json!({"backoffLimit": 0}),
    )
    .await;
    until_job(&burst, "Complete").await;
    assert_eq!(burst.groups().len(), 1, "its logs can be read");
    burst
        .eventually("the group to be deleted", |burst| burst.groups().is_empty())
        .await;
    let [entry] = burst.timeline().try_into().expect("one group");
    let deleted = entry.delete_received.expect("it was");
    let lived = deleted.duration_since(entry.put_received);
    // The operator counts from the end in the pod's status, where times are whole seconds.
    assert!(
        lived.unsigned_abs() + Duration::from_secs(1) >= left,
        "{lived}"
    );

    // Neither later events nor a restart of the operator changes the reported end.
    let before = pods(&burst).await;
    burst.stop().await;
    burst.run().await;
    burst.create("next", &json!({})).await;
    burst
        .until(
            "next",
            "another pod to run",
            crate::node_in_process::is_running,
        )
        .await;
    let after = pods(&burst).await;
    assert_eq!((phase(&after[0]), after.len()), ("Succeeded", 1));
    assert_eq!(before[0].status, after[0].status);
    assert_eq!(burst.puts(), 2);
}
