//! Tests: the pod status in each situation. The submodules are ordered by topic.

use k8s_openapi::api::core::v1::{ContainerStatus, Pod, PodCondition, PodStatus};
use serde_json::{Value, json};

use super::arbitrary::stored;
use super::*;

mod conditions;
mod ends;
mod life;
mod lists;
mod once;
mod probes;
mod sidecars;
mod writing;

const FACTS: NodeFacts<'static> = NodeFacts {
    host_ip: Some(IpAddr::V4(std::net::Ipv4Addr::new(10, 1, 0, 1))),
    readiness: None,
    pre_stop: None,
};

/// The time `second` seconds after a fixed start.
fn at(second: i64) -> Timestamp {
    Timestamp::from_second(1_795_507_200 + second).expect("in range")
}

/// The same time in Azure's format.
fn time(second: i64) -> String {
    at(second).to_string()
}

/// A pod with these containers and init containers.
fn pod(policy: &str, containers: &[&str], init: &[&str]) -> Pod {
    let list = |names: &[&str]| -> Value {
        names
            .iter()
            .map(|name| json!({"name": name, "image": "nginx:1"}))
            .collect()
    };
    let pod = json!({
        "metadata": {"namespace": "shop", "name": "p", "uid": "u-1", "generation": 3},
        "spec": {"restartPolicy": policy, "containers": list(containers), "initContainers": list(init)},
        "status": {"phase": "Pending", "qosClass": "BestEffort", "conditions": [
            {"type": "PodScheduled", "status": "True", "lastTransitionTime": time(-5)}]},
    });
    serde_json::from_value(pod).expect("a pod")
}

/// A group in this state with these containers, each with its instance view (null: none).
fn group(provisioning: &str, state: &str, containers: &[(&str, Value)]) -> ContainerGroup {
    group_with_init(provisioning, state, containers, &[])
}

fn group_with_init(
    provisioning: &str,
    state: &str,
    containers: &[(&str, Value)],
    init: &[(&str, Value)],
) -> ContainerGroup {
    let list = |containers: &[(&str, Value)]| -> Value {
        let container = |(name, view): &(&str, Value)| json!({"name": name, "properties": {"image": "nginx:1", "instanceView": view}});
        containers.iter().map(container).collect()
    };
    let body = json!({"name": "g", "properties": {
        "provisioningState": provisioning, "containers": list(containers),
        "initContainers": list(init), "ipAddress": {"ip": "10.0.0.4", "type": "Private"},
        "instanceView": {"state": state, "events": []}}});
    ContainerGroup::from_value(&body).expect("a group")
}

fn running(since: i64) -> Value {
    json!({"restartCount": 0,
           "currentState": {"state": "Running", "startTime": time(since), "detailStatus": ""}})
}

fn ended(code: i64, since: i64, until: i64) -> Value {
    json!({"state": "Terminated", "startTime": time(since), "finishTime": time(until),
           "exitCode": code, "detailStatus": if code == 0 { "Completed" } else { "Error" }})
}

fn terminated(code: i64) -> Value {
    json!({"restartCount": 0, "currentState": ended(code, 10, 20)})
}

fn waiting(detail: &str) -> Value {
    json!({"restartCount": 0, "currentState": {"state": "Waiting", "detailStatus": detail}})
}

/// The status of a pod at a given time.
fn status(pod: &Pod, seen: &GroupObservation, second: i64) -> PodStatus {
    pod_status(pod, seen, &FACTS, at(second))
}

/// Stores the status at a given time in the pod, as the API server would, and returns it.
fn write(pod: &mut Pod, seen: &GroupObservation, second: i64) -> PodStatus {
    let status = stored(&status(pod, seen, second));
    pod.status = Some(status.clone());
    status
}

fn phase(status: &PodStatus) -> &str {
    status.phase.as_deref().unwrap_or_default()
}

fn container<'a>(status: &'a PodStatus, name: &str) -> &'a ContainerStatus {
    let statuses = status
        .init_container_statuses
        .iter()
        .chain(&status.container_statuses)
        .flatten();
    statuses
        .into_iter()
        .find(|status| status.name == name)
        .expect(name)
}

/// The state of a container in short form: `running`, `waiting REASON` or `ended CODE REASON`.
fn state(status: &PodStatus, name: &str) -> String {
    let state = container(status, name).state.clone().unwrap_or_default();
    let text = |reason: Option<String>| reason.unwrap_or_default();
    match (state.running, state.terminated, state.waiting) {
        (Some(_), None, None) => "running".to_owned(),
        (None, Some(end), None) => format!("ended {} {}", end.exit_code, text(end.reason)),
        (None, None, Some(waiting)) => format!("waiting {}", text(waiting.reason)),
        other => format!("{other:?}"),
    }
}

fn waiting_message(status: &PodStatus, name: &str) -> String {
    let state = container(status, name).state.clone().unwrap_or_default();
    state
        .waiting
        .and_then(|waiting| waiting.message)
        .unwrap_or_default()
}

fn condition<'a>(status: &'a PodStatus, kind: &str) -> &'a PodCondition {
    let mut conditions = status.conditions.iter().flatten();
    conditions
        .find(|condition| condition.type_ == kind)
        .expect(kind)
}

/// A condition in short form: `STATUS REASON`.
fn condition_text(status: &PodStatus, kind: &str) -> String {
    let condition = condition(status, kind);
    let reason = condition.reason.as_deref().unwrap_or_default();
    format!("{} {reason}", condition.status)
        .trim_end()
        .to_owned()
}
