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
fn events_of_the_group_and_its_containers_are_sorted_and_have_field_paths() {
    let events = pod_events(
        &pod("p", "u"),
        &group(
            &json!([
                event("Started", "Started container", 9, 1),
                event("Pulling", "nginx", 1, 1)
            ]),
            &json!([event("FailedMount", "mount error(2)", 5, 3)]),
        ),
    );
    let found: Vec<_> = events
        .iter()
        .map(|event| {
            (
                event.reason.as_str(),
                event.field_path.as_deref(),
                event.event_type,
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
    assert_eq!(found, wanted);
}

#[test]
fn an_event_keeps_its_name_and_gets_another_key_when_it_happens_again() {
    let back_off_event = |uid: &str, message: &str, second: u32, count: u32| {
        let web = json!([event("BackOff", message, second, count)]);
        let events = pod_events(&pod("p", uid), &group(&web, &json!([])));
        events
            .into_iter()
            .find(|event| event.reason == "BackOff")
            .expect("the event")
    };
    let first = back_off_event("u", "back-off", 1, 1);
    assert_eq!(first, back_off_event("u", "back-off", 1, 1));
    let again = back_off_event("u", "back-off", 30, 2);
    assert_eq!(first.name, again.name);
    assert_ne!(first.key(), again.key());
    assert_ne!(
        first.name,
        back_off_event("another pod of that name", "back-off", 1, 1).name
    );
    assert_ne!(first.name, back_off_event("u", "other words", 1, 1).name);
}

#[test]
fn of_two_copies_of_an_event_in_one_answer_the_newer_counts() {
    let twice = json!([event("BackOff", "x", 30, 2), event("BackOff", "x", 9, 1)]);
    let events = pod_events(&pod("p", "u"), &group(&twice, &json!([])));
    let counts: Vec<_> = events
        .iter()
        .filter(|event| event.reason == "BackOff")
        .map(|event| event.count)
        .collect();
    assert_eq!(counts, [2]);
}

#[test]
fn every_event_of_the_service_becomes_an_event_that_kubernetes_accepts() {
    let long = "ü".repeat(2000);
    let odd = json!([
        {"name": "InsufficientCapacity.", "message": "%s {} %n", "type": "Warning", "count": -4},
        {"name": "two words!", "message": long, "type": "Loud"},
        {"name": "", "message": "", "lastTimestamp": "2026-11-24T08:00:01Z"},
    ]);
    let pod = pod(&"x.".repeat(126), "u");
    let events = pod_events(&pod, &group(&odd, &json!([])));
    let find = |reason: &str| {
        events
            .iter()
            .find(|event| event.reason == reason)
            .expect(reason)
    };
    assert_eq!(find("InsufficientCapacity").message, "%s {} %n");
    assert_eq!(find("InsufficientCapacity").count, 1);
    assert_eq!(find("twowords").event_type, "Warning");
    assert_eq!(find("twowords").message, format!("{}...", "ü".repeat(510)));
    let unnamed = find("AzureEvent");
    assert_eq!(unnamed.first_timestamp, unnamed.last_timestamp);
    for event in &events {
        assert!(
            event.name.len() <= 253 && !event.name.contains(".."),
            "{}",
            event.name
        );
    }
}

#[test]
fn an_old_event_is_not_fresh() {
    let web = json!([event("Pulled", "nginx", 0, 1)]);
    let events = pod_events(&pod("p", "u"), &group(&web, &json!([])));
    let event = events
        .iter()
        .find(|event| event.message == "nginx")
        .expect("the event");
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
