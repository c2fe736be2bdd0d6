//! Tests: which events a pod gets, and their names.

use k8s_openapi::api::core::v1::PodSpec;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use serde_json::{Value, json};

use super::*;

fn pod(name: &str, uid: &str) -> Pod {
    let container = |name: &str| Container {
        name: name.to_owned(),
        ..Container::default()
    };
    Pod {
        metadata: ObjectMeta {
            name: Some(name.to_owned()),
            uid: Some(uid.to_owned()),
            ..ObjectMeta::default()
        },
        spec: Some(PodSpec {
            containers: vec![container("web")],
            init_containers: Some(vec![container("setup")]),
            ..PodSpec::default()
        }),
        status: None,
    }
}

fn event(name: &str, message: &str, second: u32, count: u32) -> Value {
    json!({"name": name, "message": message, "type": "Normal", "count": count,
           "firstTimestamp": "2026-11-24T08:00:00Z",
           "lastTimestamp": format!("2026-11-24T08:00:{second:02}Z")})
}

fn group(web: &Value, whole: &Value) -> ContainerGroup {
    let container = |name: &str, events: &Value| json!({"name": name, "properties": {"instanceView": {"events": events}}});
    let body = json!({"name": "g", "properties": {
        "containers": [container("web", web), container("strange", &json!([event("Started", "", 1, 1)]))],
        "initContainers": [container("setup", &json!([event("Pulled", "busybox", 2, 1)]))],
        "instanceView": {"events": whole}}});
    ContainerGroup::from_value(&body).expect("a group")
}

#[test]
fn events_of_group_init_container_and_container_come_in_order_with_their_places() {
    let told = pod_events(
        &pod("p", "u"),
        &group(
            &json!([
                event("Started", "Started container", 9, 1),
                event("Pulling", "nginx", 1, 1)
            ]),
            &json!([event("FailedMount", "mount error(2)", 5, 3)]),
        ),
    );
    let seen: Vec<_> = told
        .iter()
        .map(|event| {
            (
                event.reason.as_str(),
                event.field_path.as_deref(),
                event.kind,
                event.count,
            )
        })
        .collect();
    let web = Some("spec.containers{web}");
    let wanted = vec![
        ("Pulling", web, "Normal", 1),
        ("Pulled", Some("spec.initContainers{setup}"), "Normal", 1),
        ("FailedMount", None, "Warning", 3),
        ("Started", web, "Normal", 1),
    ];
    assert_eq!(seen, wanted);
}

#[test]
fn the_same_event_has_the_same_name_whenever_it_is_told_and_another_key_when_it_happened_again() {
    let told = |uid: &str, message: &str, second: u32, count: u32| {
        let web = json!([event("BackOff", message, second, count)]);
        let all = pod_events(&pod("p", uid), &group(&web, &json!([])));
        all.into_iter()
            .find(|event| event.reason == "BackOff")
            .expect("it is told")
    };
    let first = told("u", "back-off", 1, 1);
    assert_eq!(first, told("u", "back-off", 1, 1));
    let again = told("u", "back-off", 30, 2);
    assert_eq!(first.name, again.name);
    assert_ne!(first.key(), again.key());
    assert_ne!(
        first.name,
        told("another pod of that name", "back-off", 1, 1).name
    );
    assert_ne!(first.name, told("u", "other words", 1, 1).name);
}

#[test]
fn an_event_told_twice_in_one_answer_is_one_and_the_newer() {
    let twice = json!([event("BackOff", "x", 30, 2), event("BackOff", "x", 9, 1)]);
    let told = pod_events(&pod("p", "u"), &group(&twice, &json!([])));
    let counts: Vec<_> = told
        .iter()
        .filter(|event| event.reason == "BackOff")
        .map(|event| event.count)
        .collect();
    assert_eq!(counts, [2]);
}

#[test]
fn whatever_the_service_writes_becomes_an_event_that_kubernetes_takes() {
    let long = "ü".repeat(2000);
    let odd = json!([
        {"name": "InsufficientCapacity.", "message": "%s {} %n", "type": "Warning", "count": -4},
        {"name": "two words!", "message": long, "type": "Loud"},
        {"name": "", "message": "", "lastTimestamp": "2026-11-24T08:00:01Z"},
    ]);
    let pod = pod(&"x.".repeat(126), "u");
    let told = pod_events(&pod, &group(&odd, &json!([])));
    let find = |reason: &str| {
        told.iter()
            .find(|event| event.reason == reason)
            .expect(reason)
    };
    assert_eq!(find("InsufficientCapacity").message, "%s {} %n");
    assert_eq!(find("InsufficientCapacity").count, 1);
    assert_eq!(find("twowords").kind, "Warning");
    assert_eq!(find("twowords").message, format!("{}...", "ü".repeat(510)));
    let unnamed = find("AzureEvent");
    assert_eq!(unnamed.first_timestamp, unnamed.last_timestamp);
    for event in &told {
        assert!(
            event.name.len() <= 253 && !event.name.contains(".."),
            "{}",
            event.name
        );
    }
}

#[test]
fn old_news_is_not_told_by_who_cannot_know_whether_it_was() {
    let web = json!([event("Pulled", "nginx", 0, 1)]);
    let told = pod_events(&pod("p", "u"), &group(&web, &json!([])));
    let event = told
        .iter()
        .find(|event| event.message == "nginx")
        .expect("it is told");
    let at = |time: &str| time.parse().expect("a time");
    assert!(event.is_fresh(at("2026-11-24T08:44:59Z")));
    assert!(event.is_fresh(at("2026-11-24T07:00:00Z")), "clocks differ");
    assert!(!event.is_fresh(at("2026-11-24T08:45:00Z")));
    let timeless = PodEvent {
        last_timestamp: None,
        ..event.clone()
    };
    assert!(!timeless.is_fresh(at("2026-11-24T08:00:00Z")));
}
