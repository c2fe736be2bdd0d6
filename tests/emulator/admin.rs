//! The emulator's admin interface: faults, clock, scripts, timeline, counters, page.

use std::time::{Duration, Instant};

use burstpool::emulator::EmulatorOptions;
use reqwest::Method;
use serde_json::{Value, json};

use crate::azure::{Azure, RESOURCE_GROUP, SUBSCRIPTION, body, body_with, group, within};

async fn fault(azure: &Azure, rule: Value) {
    azure.admin(Method::POST, "faults", rule).await;
}

#[tokio::test]
async fn an_error_befalls_as_many_requests_as_asked_and_has_no_effect() {
    let azure = Azure::start().await;
    let error = json!({"error": {"status": 429, "retryAfter": 7}});
    fault(&azure, json!({"operation": "ContainerGroups_CreateOrUpdate", "group": "a-", "count": 2, "fault": error})).await;
    for _ in 0..2 {
        let refused = azure.put("a-1", &body(&[])).await;
        assert_eq!(
            (refused.error(), refused.header("retry-after")),
            ((429, "TooManyRequests"), "7")
        );
    }
    assert_eq!(azure.put("b-1", &body(&[])).await.status, 201);
    assert_eq!(azure.put("a-1", &body(&[])).await.status, 201);
    for status in [500, 503] {
        fault(
            &azure,
            json!({"count": 1, "fault": {"error": {"status": status}}}),
        )
        .await;
        assert_eq!(azure.get(&group("a-1")).await.status, status);
    }
}

#[tokio::test]
async fn a_dropped_connection_has_no_effect_and_a_lost_answer_has() {
    let azure = Azure::start().await;
    for (kind, there) in [("drop", 404), ("loseAnswer", 200)] {
        fault(
            &azure,
            json!({"operation": "ContainerGroups_CreateOrUpdate", "count": 1, "fault": kind}),
        )
        .await;
        let lost = azure
            .try_call(Method::PUT, &group(&kind.to_lowercase()), Some(&body(&[])))
            .await;
        lost.expect_err("there is no answer");
        assert_eq!(
            azure.get(&group(&kind.to_lowercase())).await.status,
            there,
            "{kind}"
        );
    }
    let counted = reqwest::get(format!("{}/_emulator/metrics", azure.emulator.url()))
        .await
        .unwrap()
        .text()
        .await
        .unwrap();
    let line = "aci_emulator_requests_total{operation=\"ContainerGroups_CreateOrUpdate\",status=\"dropped\"} 2";
    assert!(counted.contains(line), "{counted}");
}

#[tokio::test]
async fn a_group_that_lags_is_not_known_until_then_and_a_404_denies_it_once() {
    let azure = Azure::start().await;
    azure
        .admin(Method::POST, "clock", json!({"paused": true}))
        .await;
    fault(&azure, json!({"count": 1, "fault": {"lag": "20s"}})).await;
    let list = group("").trim_end_matches('/').to_owned();
    let listed = async || {
        let listed = azure.get(&list).await.body;
        listed["value"].as_array().map(Vec::len)
    };
    assert_eq!(azure.get(&list).await.status, 200, "it is no PUT");
    assert_eq!(azure.put("one", &body(&[])).await.status, 201);
    assert_eq!(
        azure.get(&group("one")).await.error(),
        (404, "ResourceNotFound")
    );
    assert_eq!(listed().await, Some(0));
    assert_eq!(
        azure.call(Method::DELETE, &group("one"), None).await.status,
        204
    );
    azure
        .admin(Method::POST, "clock", json!({"advance": "20s"}))
        .await;
    assert_eq!(azure.get(&group("one")).await.status, 200);
    assert_eq!(listed().await, Some(1));
    let denial = json!({"error": {"status": 404}});
    let rule = json!({"operation": "ContainerGroups_Get", "count": 1, "fault": denial});
    fault(&azure, rule).await;
    assert_eq!(
        azure.get(&group("one")).await.error(),
        (404, "ResourceNotFound")
    );
    assert_eq!(azure.get(&group("one")).await.status, 200);
}

#[tokio::test]
async fn an_answer_is_as_slow_as_asked() {
    let azure = Azure::with(EmulatorOptions {
        rtt: Duration::from_millis(40),
        ..EmulatorOptions::default()
    })
    .await;
    fault(
        &azure,
        json!({"operation": "ContainerGroups_Get", "fault": {"delay": "100ms"}}),
    )
    .await;
    let began = Instant::now();
    azure.get(&group("one")).await;
    assert!(began.elapsed() >= Duration::from_millis(140));
}

#[tokio::test]
async fn faults_are_listed_and_taken_back() {
    let azure = Azure::start().await;
    fault(&azure, json!({"rate": 0.5, "fault": "drop"})).await;
    fault(
        &azure,
        json!({"operation": "ContainerGroups_Get", "fault": "drop"}),
    )
    .await;
    let listed = azure.admin(Method::GET, "faults", Value::Null).await;
    assert_eq!(listed["faults"].as_array().unwrap().len(), 2);
    let id = &listed["faults"][0]["id"];
    assert_eq!(
        azure
            .admin(Method::DELETE, &format!("faults/{id}"), Value::Null)
            .await["removed"],
        1
    );
    assert_eq!(
        azure.admin(Method::DELETE, "faults", Value::Null).await["removed"],
        1
    );
    assert_eq!(azure.get(&group("one")).await.status, 404);
}

#[tokio::test]
async fn what_the_interface_cannot_read_is_refused_by_its_field() {
    let azure = Azure::start().await;
    for (method, path, body, word) in [
        (
            Method::POST,
            "faults",
            json!({"fault": "explode"}),
            "explode",
        ),
        (
            Method::POST,
            "faults",
            json!({"fault": "drop", "rate": 2}),
            "rate",
        ),
        (
            Method::POST,
            "faults",
            json!({"fault": "drop", "operations": "x"}),
            "operations",
        ),
        (
            Method::PUT,
            "capacity/westus",
            json!({"failure": "sync", "count": 0}),
            "count",
        ),
        (Method::PUT, "quotas", json!({"StandardCores": -1}), "-1"),
        (Method::POST, "clock", json!({"speed": 0}), "speed"),
        (Method::POST, "clock", json!({"advance": "soon"}), "advance"),
        (
            Method::PUT,
            "scripts",
            json!({"group": "a", "container": "b", "script": {"exit": 1}}),
            "exit",
        ),
    ] {
        let refused = azure
            .call(method, &format!("/_emulator/{path}"), Some(&body))
            .await;
        assert_eq!(refused.status, 400, "{body}");
        assert!(
            refused.body["error"].as_str().unwrap().contains(word),
            "{}",
            refused.body
        );
    }
}

#[tokio::test]
async fn the_clock_is_paused_advanced_and_sped_up() {
    let azure = Azure::with(EmulatorOptions::default()).await;
    let paused = azure
        .admin(Method::POST, "clock", json!({"paused": true}))
        .await;
    azure.put("one", &body(&[])).await;
    azure
        .admin(Method::POST, "clock", json!({"advance": "60s"}))
        .await;
    assert_eq!(
        azure.get(&group("one")).await.body["properties"]["provisioningState"],
        "Succeeded"
    );
    let later = azure.admin(Method::GET, "clock", Value::Null).await;
    let at = |clock: &Value| {
        clock["now"]
            .as_str()
            .unwrap()
            .parse::<jiff::Timestamp>()
            .unwrap()
    };
    assert_eq!(at(&later).duration_since(at(&paused)).as_secs(), 60);
    let faster = azure
        .admin(
            Method::POST,
            "clock",
            json!({"paused": false, "speed": 1000}),
        )
        .await;
    assert_eq!(
        (&faster["speed"], &faster["paused"]),
        (&json!(1000.0), &json!(false))
    );
    azure.put("two", &body(&[])).await;
    let deadline = Instant::now() + Duration::from_secs(30);
    while azure.get(&group("two")).await.body["properties"]["provisioningState"] != "Succeeded" {
        assert!(Instant::now() < deadline, "15.6 s pass in 16 ms");
    }
}

#[tokio::test]
async fn a_container_is_ended_and_scripted_from_outside() {
    let azure = Azure::start().await;
    azure.running("one", &body_with("Never", &[])).await;
    azure
        .admin(
            Method::POST,
            "exit",
            json!({"group": "one", "container": "web", "code": 7}),
        )
        .await;
    let read = azure.get(&group("one")).await.body;
    let state = &read["properties"]["containers"][0]["properties"]["instanceView"]["currentState"];
    assert_eq!(
        (&state["state"], &state["exitCode"]),
        (&json!("Terminated"), &json!(7))
    );
    let none = json!({"group": "none", "container": "web", "code": 7});
    assert_eq!(
        azure
            .call(Method::POST, "/_emulator/exit", Some(&none))
            .await
            .status,
        404
    );
    let script = json!({"group": "two", "container": "web", "script": {"log": "from outside"}});
    azure.admin(Method::PUT, "scripts", script).await;
    azure.running("two", &body(&[])).await;
    let logs = azure
        .get(&within("two", "/containers/web/logs", "2023-05-01"))
        .await
        .body;
    assert_eq!(logs["content"], "from outside\n");
}

#[tokio::test]
async fn a_group_vanishes_without_a_trace() {
    let azure = Azure::start().await;
    azure.running("one", &body(&[])).await;
    let path = format!("groups/{SUBSCRIPTION}/{RESOURCE_GROUP}/one");
    assert_eq!(
        azure.admin(Method::DELETE, &path, Value::Null).await["removed"],
        true
    );
    assert_eq!(azure.get(&group("one")).await.status, 404);
    assert_eq!(
        azure.admin(Method::DELETE, &path, Value::Null).await["removed"],
        false
    );
}

#[tokio::test]
async fn the_timeline_has_four_times_and_the_reads_of_each_group() {
    let azure = Azure::start().await;
    azure.put("one", &body(&[])).await;
    azure.advance(20.0);
    azure.get(&group("one")).await;
    azure.get(&group("one")).await;
    azure.call(Method::DELETE, &group("one"), None).await;
    for _ in 0..2 {
        azure.put("one", &body(&[])).await;
    }
    let timeline = azure.admin(Method::GET, "timeline", Value::Null).await;
    let [first, second] = timeline["groups"].as_array().unwrap().as_slice() else {
        panic!("{timeline}")
    };
    let at = |field: &str| {
        first[field]
            .as_str()
            .unwrap()
            .parse::<jiff::Timestamp>()
            .unwrap()
    };
    assert_eq!(
        at("running").duration_since(at("putReceived")).as_millis(),
        15_600
    );
    assert_eq!(
        at("deleteReceived")
            .duration_since(at("putReceived"))
            .as_secs(),
        20
    );
    assert_eq!(
        (at("gone"), &first["puts"], &first["gets"]),
        (at("deleteReceived"), &json!(1), &json!(2))
    );
    assert!(second["running"].is_null());
    assert_eq!(second["puts"], 2);
}

#[tokio::test]
async fn the_page_shows_what_runs_and_is_safe_against_names() {
    let azure = Azure::start().await;
    azure.running("one", &body(&[])).await;
    let hostile = group("two").replace(RESOURCE_GROUP, "%3Cscript%3E");
    azure.call(Method::PUT, &hostile, Some(&body(&[]))).await;
    for path in ["/_emulator", "/_emulator/"] {
        let response = reqwest::get(format!("{}{path}", azure.emulator.url()))
            .await
            .unwrap();
        assert_eq!(response.status(), 200, "{path}");
        let page = response.text().await.unwrap();
        assert!(
            page.contains("2 container groups") && page.contains("web: running since"),
            "{page}"
        );
        assert!(
            page.contains("&lt;script&gt;") && !page.contains("<script>"),
            "{page}"
        );
    }
}
