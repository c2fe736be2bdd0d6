//! How pods end on a virtual node: at their deadline.

use k8s_openapi::api::core::v1::{Event, Pod};
use kube::runtime::watcher;
use serde_json::json;

use crate::node_in_process::{Burst, container, phase};
use crate::support::wait;

fn reason(pod: &Pod) -> &str {
    let status = pod.status.as_ref();
    status
        .and_then(|status| status.reason.as_deref())
        .unwrap_or_default()
}

#[tokio::test]
async fn a_pod_fails_at_its_deadline_also_with_another_leader_and_its_group_is_deleted() {
    let mut burst = Burst::start("deadline").await;
    let pod = json!({"spec": {"activeDeadlineSeconds": 8}});
    burst.create("web", &pod).await;
    let runs = |pod: Option<&Pod>| pod.is_some_and(|pod| phase(pod) == "Running");
    burst.until("web", "the pod to run", runs).await;
    let started_at = burst
        .read("web")
        .await
        .status
        .and_then(|status| status.start_time);
    burst.stop().await;
    burst.run().await;

    let has_failed = |pod: Option<&Pod>| pod.is_some_and(|pod| phase(pod) == "Failed");
    burst.until("web", "the pod to fail", has_failed).await;
    let failed = burst.read("web").await;
    let status = failed.status.as_ref().expect("a status");
    assert_eq!(reason(&failed), "DeadlineExceeded");
    assert_eq!(status.start_time, started_at);
    let conditions = status.conditions.as_ref().expect("conditions");
    let ready = conditions
        .iter()
        .find(|condition| condition.type_ == "Ready");
    let failed_at = ready
        .and_then(|ready| ready.last_transition_time.as_ref())
        .expect("a time");
    let active = failed_at
        .0
        .duration_since(started_at.expect("a start time").0);
    assert!(active.as_secs() >= 8, "{active}");

    assert!(
        burst.groups().is_empty(),
        "it fails when its containers have ended"
    );
    let state = container(&failed).state.as_ref();
    assert!(state.is_some_and(|state| state.terminated.is_some()));
    let told = |events: &[Event]| {
        let reasons = events.iter().filter_map(|event| event.reason.as_deref());
        reasons
            .into_iter()
            .any(|reason| reason == "DeadlineExceeded")
    };
    let events = burst.tenant.api::<Event>();
    wait::until_all(events, watcher::Config::default(), "the Event", told)
        .await
        .expect("the Event");
}
