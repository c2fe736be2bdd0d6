//! Azure asks to retry later, and the operator waits separately for each request: a create that must
//! wait delays no delete, and a delete that fails is not repeated in a loop.

use serde_json::{Value, json};

use crate::node_in_process::{Burst, is_running, phase};

const PUT: &str = "ContainerGroups_CreateOrUpdate";
const GET: &str = "ContainerGroups_Get";
const DELETE: &str = "ContainerGroups_Delete";
const LIST: &str = "ContainerGroups_ListByResourceGroup";

fn refuses(operation: &str, error: &Value) -> Value {
    json!({"operation": operation, "fault": {"error": error}})
}

#[tokio::test]
async fn a_pod_whose_create_must_wait_for_an_hour_goes_when_it_is_deleted() {
    let burst = Burst::start("unmade").await;
    let hour = json!({"status": 429, "retryAfter": 3600});
    burst.fault(refuses(PUT, &hour)).await;
    burst.create("web", &json!({})).await;
    burst
        .until("web", "the pod to say why it waits", |pod| {
            let text = serde_json::to_string(&pod).expect("JSON");
            text.contains("Throttled")
        })
        .await;
    burst.delete("web", None).await;
    burst.until_gone("web").await;
}

#[tokio::test]
async fn a_group_is_deleted_at_once_although_reads_must_wait_for_an_hour() {
    let burst = Burst::start("unread").await;
    let hour = json!({"status": 429, "retryAfter": 3600});
    burst.fault(refuses(GET, &hour)).await;
    burst.create("web", &json!({})).await;
    burst
        .eventually("a read to be throttled", |burst| {
            burst.answers(GET, "429") > 0
        })
        .await;
    burst.delete("web", None).await;
    burst
        .eventually("the group to be gone", |burst| burst.groups().is_empty())
        .await;
}

#[tokio::test]
async fn a_group_that_did_not_start_and_cannot_be_deleted_yet_is_not_deleted_in_a_loop() {
    let burst = Burst::start("unended").await;
    burst.fault(refuses(DELETE, &json!({"status": 503}))).await;
    let late = json!({"failure": "async", "count": 1});
    burst.admin("capacity/westeurope", &late).await;
    burst.create("web", &json!({})).await;
    burst
        .eventually("a delete to fail", |burst| burst.answers(DELETE, "503") > 0)
        .await;
    let lists = burst.answers(LIST, "200");
    burst
        .eventually("groups to be listed twice", |burst| {
            burst.answers(LIST, "200") >= lists + 2
        })
        .await;
    let tries = burst.answers(DELETE, "503");
    assert!(tries < 10, "{tries} tries between two LISTs");
    assert_eq!(phase(&burst.read("web").await), "Pending");
    burst.no_faults();
    burst.until("web", "the pod to run", is_running).await;
    assert_eq!((burst.puts(), burst.groups().len()), (2, 1));
}
