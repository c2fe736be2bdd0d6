//! A group's life cycle: init containers, exits, restarts, stop, start, restart, delete.

use reqwest::Method;
use serde_json::{Value, json};

use crate::azure::{Azure, body, body_with, group, within};

fn view(read: &Value) -> &Value {
    &read["properties"]["containers"][0]["properties"]["instanceView"]
}

async fn act(azure: &Azure, name: &str, action: &str) -> crate::azure::Answer {
    azure
        .call(
            Method::POST,
            &within(name, &format!("/{action}"), "2023-05-01"),
            None,
        )
        .await
}

#[tokio::test]
async fn a_container_that_fails_is_started_again_with_growing_pauses() {
    let azure = Azure::start().await;
    let fails = [
        ("ACI_EMULATOR_EXIT_AFTER", "1s"),
        ("ACI_EMULATOR_EXIT_CODE", "3"),
    ];
    azure.put("one", &body_with("OnFailure", &fails)).await;
    azure.advance(15.6 + 1.5);
    let waiting = azure.get(&group("one")).await.body;
    assert_eq!(
        view(&waiting)["currentState"],
        json!({"state": "Waiting", "detailStatus": "CrashLoopBackOff"})
    );
    assert_eq!(view(&waiting)["previousState"]["exitCode"], 3);
    assert_eq!(waiting["properties"]["instanceView"]["state"], "Running");
    azure.advance(10.0);
    let again = azure.get(&group("one")).await.body;
    assert_eq!(
        (
            &view(&again)["restartCount"],
            &view(&again)["currentState"]["state"]
        ),
        (&json!(1), &json!("Running"))
    );
    azure.advance(20.0);
    assert_eq!(
        view(&azure.get(&group("one")).await.body)["restartCount"],
        1,
        "the second pause is 20 s"
    );
    azure.advance(1.0);
    assert_eq!(
        view(&azure.get(&group("one")).await.body)["restartCount"],
        2
    );
    let names: Vec<&str> = view(&again)["events"]
        .as_array()
        .unwrap()
        .iter()
        .map(|e| e["name"].as_str().unwrap())
        .collect();
    assert_eq!(
        names,
        ["Pulling", "Pulled", "Started", "Killing", "BackOff"]
    );
}

#[tokio::test]
async fn a_group_has_succeeded_or_failed_when_all_its_containers_have_ended() {
    let azure = Azure::start().await;
    let ends = [("ACI_EMULATOR_EXIT_AFTER", "5s")];
    let fails = [
        ("ACI_EMULATOR_EXIT_AFTER", "5s"),
        ("ACI_EMULATOR_EXIT_CODE", "1"),
    ];
    for (name, policy, environment, state) in [
        ("well", "OnFailure", &ends[..], "Succeeded"),
        ("never", "Never", &ends[..], "Succeeded"),
        ("badly", "Never", &fails[..], "Failed"),
        ("always", "Always", &ends[..], "Running"),
    ] {
        azure.put(name, &body_with(policy, environment)).await;
        azure.advance(30.0);
        let read = azure.get(&group(name)).await.body;
        assert_eq!(read["properties"]["instanceView"]["state"], state, "{name}");
        assert_eq!(
            read["properties"]["provisioningState"], "Succeeded",
            "{name}"
        );
    }
    let mut mixed = body_with("Never", &ends);
    let mut second = mixed["properties"]["containers"][0].clone();
    second["name"] = "stays".into();
    second["properties"]["environmentVariables"] = json!([]);
    mixed["properties"]["containers"]
        .as_array_mut()
        .unwrap()
        .push(second);
    azure.put("mixed", &mixed).await;
    azure.advance(30.0);
    let read = azure.get(&group("mixed")).await.body;
    assert_eq!(read["properties"]["instanceView"]["state"], "Running");
    assert_eq!(view(&read)["currentState"]["detailStatus"], "Completed");
}

#[tokio::test]
async fn init_containers_run_one_after_the_other_before_the_containers() {
    let azure = Azure::start().await;
    let mut body = body(&[]);
    let init = |name: &str, runs: &str| {
        json!({"name": name, "properties": {"image": "x",
            "environmentVariables": [{"name": "ACI_EMULATOR_EXIT_AFTER", "value": runs}]}})
    };
    body["properties"]["initContainers"] = json!([init("first", "10s"), init("second", "20s")]);
    azure.put("one", &body).await;
    let states = async || {
        let read = azure.get(&group("one")).await.body;
        let of = |list: &str, n: usize| {
            let pointer =
                format!("/properties/{list}/{n}/properties/instanceView/currentState/state");
            read.pointer(&pointer)
                .and_then(Value::as_str)
                .unwrap_or("none")
                .to_owned()
        };
        [
            of("initContainers", 0),
            of("initContainers", 1),
            of("containers", 0),
        ]
    };
    azure.advance(6.0);
    assert_eq!(states().await, ["Running", "Waiting", "Waiting"]);
    azure.advance(10.0);
    assert_eq!(states().await, ["Terminated", "Running", "Waiting"]);
    azure.advance(40.0);
    assert_eq!(states().await, ["Terminated", "Terminated", "Running"]);
}

#[tokio::test]
async fn an_init_container_that_fails_is_tried_again_or_fails_the_group_by_policy() {
    let azure = Azure::start().await;
    for (name, policy, state, restarts) in [
        ("never", "Never", "Failed", 0),
        ("failure", "OnFailure", "Pending", 1),
    ] {
        let mut body = body_with(policy, &[]);
        body["properties"]["initContainers"] = json!([{"name": "init", "properties": {"image": "x",
            "environmentVariables": [{"name": "ACI_EMULATOR_EXIT_CODE", "value": "1"}]}}]);
        let operation = azure
            .put(name, &body)
            .await
            .header("azure-asyncoperation")
            .to_owned();
        azure.advance(20.0);
        let read = azure.get(&group(name)).await.body;
        assert_eq!(read["properties"]["instanceView"]["state"], state, "{name}");
        let view = &read["properties"]["initContainers"][0]["properties"]["instanceView"];
        assert_eq!(view["restartCount"], restarts, "{name}");
        let status = if state == "Failed" {
            "Failed"
        } else {
            "Pending"
        };
        assert_eq!(azure.get(&operation).await.body["status"], status);
    }
}

#[tokio::test]
async fn a_group_that_never_starts_fails_after_the_provisioning_timeout() {
    let azure = Azure::start().await;
    let operation = azure
        .put("one", &body(&[("ACI_EMULATOR_NEVER_START", "true")]))
        .await;
    let operation = operation.header("azure-asyncoperation").to_owned();
    azure.advance(1799.0);
    let read = azure.get(&group("one")).await.body;
    assert_eq!(read["properties"]["provisioningState"], "Creating");
    assert_eq!(view(&read)["currentState"]["state"], "Waiting");
    azure.advance(2.0);
    assert_eq!(
        azure.get(&group("one")).await.body["properties"]["provisioningState"],
        "Failed"
    );
    assert_eq!(azure.get(&operation).await.body["status"], "Failed");
}

#[tokio::test]
async fn stop_ends_everything_and_start_deploys_again_with_another_address() {
    let azure = Azure::start().await;
    let mut body = body(&[]);
    body["properties"]["ipAddress"] = json!({"type": "Public", "ports": [{"port": 80}]});
    let before = azure.running("one", &body).await;
    assert_eq!(act(&azure, "one", "start").await.status, 204, "it runs");
    assert_eq!(act(&azure, "one", "stop").await.status, 204);
    assert_eq!(
        act(&azure, "one", "restart").await.error(),
        (409, "ContainerGroupTransitioning")
    );
    azure.advance(10.0);
    let stopped = azure.get(&group("one")).await.body;
    assert_eq!(stopped["properties"]["instanceView"]["state"], "Stopped");
    assert_eq!(view(&stopped)["currentState"]["state"], "Terminated");
    assert!(stopped["properties"]["ipAddress"].get("ip").is_none());
    assert_eq!(
        act(&azure, "one", "stop").await.status,
        204,
        "twice is once"
    );

    let started = act(&azure, "one", "start").await;
    assert_eq!(started.status, 202);
    assert_eq!(azure.get(started.header("location")).await.status, 202);
    azure.advance(60.0);
    assert_eq!(
        azure.get(started.header("azure-asyncoperation")).await.body["status"],
        "Succeeded"
    );
    assert_eq!(azure.get(started.header("location")).await.status, 200);
    let after = azure.get(&group("one")).await.body;
    assert_eq!(after["properties"]["instanceView"]["state"], "Running");
    assert_eq!(view(&after)["restartCount"], 0);
    assert_ne!(
        after["properties"]["ipAddress"]["ip"],
        before["properties"]["ipAddress"]["ip"]
    );
}

#[tokio::test]
async fn stop_has_no_effect_on_a_group_that_has_ended() {
    let azure = Azure::start().await;
    azure
        .put(
            "one",
            &body_with("Never", &[("ACI_EMULATOR_EXIT_AFTER", "1s")]),
        )
        .await;
    azure.advance(30.0);
    assert_eq!(act(&azure, "one", "stop").await.status, 204);
    azure.advance(10.0);
    assert_eq!(
        azure.get(&group("one")).await.body["properties"]["instanceView"]["state"],
        "Succeeded"
    );
}

#[tokio::test]
async fn restart_restarts_all_containers_in_place() {
    let azure = Azure::start().await;
    let mut body = body(&[]);
    body["properties"]["ipAddress"] = json!({"type": "Public", "ports": [{"port": 80}]});
    let before = azure.running("one", &body).await;
    assert_eq!(act(&azure, "one", "restart").await.status, 204);
    assert_eq!(
        azure.put("one", &body).await.error(),
        (409, "ContainerGroupTransitioning")
    );
    azure.advance(60.0);
    let after = azure.get(&group("one")).await.body;
    assert_eq!(after["properties"]["provisioningState"], "Succeeded");
    assert_eq!(
        after["properties"]["ipAddress"],
        before["properties"]["ipAddress"]
    );
    assert_eq!(view(&after)["restartCount"], 1);
    assert_eq!(view(&after)["previousState"]["state"], "Terminated");
}

#[tokio::test]
async fn delete_answers_200_with_the_group_202_in_motion_and_204_when_there_is_none() {
    let azure = Azure::start().await;
    let delete = async |name: &str| azure.call(Method::DELETE, &group(name), None).await;
    assert_eq!(delete("one").await.status, 204);
    azure.running("one", &body(&[])).await;
    let deleted = delete("one").await;
    assert_eq!(
        (deleted.status.as_u16(), &deleted.body["name"]),
        (200, &json!("one"))
    );
    assert_eq!(azure.get(&group("one")).await.status, 404);

    let created = azure.put("two", &body(&[])).await;
    let begun = delete("two").await;
    assert_eq!(begun.status, 202);
    assert_eq!(
        azure.get(&group("two")).await.body["properties"]["provisioningState"],
        "Deleting"
    );
    assert_eq!(
        azure.put("two", &body(&[])).await.error(),
        (409, "ContainerGroupTransitioning")
    );
    let again = delete("two").await;
    assert_eq!(
        again.header("azure-asyncoperation"),
        begun.header("azure-asyncoperation")
    );
    assert_eq!(azure.get(begun.header("location")).await.status, 202);
    azure.advance(6.0);
    assert_eq!(
        azure.get(begun.header("azure-asyncoperation")).await.body["status"],
        "Succeeded"
    );
    assert_eq!(azure.get(begun.header("location")).await.status, 204);
    assert_eq!(
        azure.get(created.header("azure-asyncoperation")).await.body["status"],
        "Failed"
    );
    assert_eq!(azure.get(&group("two")).await.status, 404);
    assert_eq!(
        azure.put("two", &body(&[])).await.status,
        201,
        "the name is free again"
    );
}

#[tokio::test]
async fn an_unready_container_makes_the_group_unhealthy_for_a_while() {
    let azure = Azure::start().await;
    let unready = [
        ("ACI_EMULATOR_UNREADY_AFTER", "10s"),
        ("ACI_EMULATOR_UNREADY_FOR", "5s"),
    ];
    azure.put("one", &body(&unready)).await;
    let state =
        async || azure.get(&group("one")).await.body["properties"]["provisioningState"].clone();
    azure.advance(20.0);
    assert_eq!(state().await, "Succeeded");
    azure.advance(7.0);
    assert_eq!(state().await, "Unhealthy");
    azure.advance(5.0);
    assert_eq!(state().await, "Succeeded");
}

#[tokio::test]
async fn a_scripted_log_is_read_by_tail_and_with_timestamps_and_cut_when_stopped() {
    let azure = Azure::start().await;
    let talks = [
        ("ACI_EMULATOR_LOG", "hello\nworld"),
        ("ACI_EMULATOR_LOG_EVERY", "100ms"),
    ];
    azure.put("one", &body(&talks)).await;
    azure.advance(15.6 + 0.25);
    let logs = async |query: &str| {
        let path = within("one", "/containers/web/logs", "2023-05-01");
        azure.get(&format!("{path}{query}")).await.body["content"]
            .as_str()
            .map(str::to_owned)
    };
    assert_eq!(logs("").await.unwrap(), "hello\nworld\nline 1\nline 2\n");
    assert_eq!(logs("&tail=1").await.unwrap(), "line 2\n");
    let stamped = logs("&tail=1&timestamps=true").await.unwrap();
    let (time, line) = stamped.split_once(' ').unwrap();
    assert!(
        time.parse::<jiff::Timestamp>().is_ok() && line == "line 2\n",
        "{stamped}"
    );
    assert!(logs("&tail=x").await.is_none());
    azure.advance(400.0);
    assert_eq!(logs("").await.unwrap().lines().count(), 4004);
    act(&azure, "one", "stop").await;
    azure.advance(10.0);
    assert_eq!(logs("").await.unwrap().lines().count(), 1000);
}
