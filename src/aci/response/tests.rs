//! Tests: every recorded answer of Azure, and further answers that are possible.

use std::path::Path;
use std::{fs, io};

use proptest::prelude::*;
use serde_json::json;

use super::*;

const FIXTURES: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/fixtures/aci");

fn json_of(path: &Path) -> Value {
    serde_json::from_slice(&fs::read(path).expect("readable")).expect("JSON")
}

/// The bodies of all answers in the official examples, each with its location.
fn official() -> Vec<(String, Value)> {
    let mut bodies = Vec::new();
    let directories = fs::read_dir(format!("{FIXTURES}/examples")).expect("the examples are there");
    for directory in directories
        .collect::<io::Result<Vec<_>>>()
        .expect("readable")
    {
        for file in fs::read_dir(directory.path()).expect("readable") {
            let path = file.expect("readable").path();
            let example = json_of(&path);
            for (status, answer) in example["responses"].as_object().expect("answers") {
                if let Some(body) = answer.get("body") {
                    bodies.push((format!("{} {status}", path.display()), body.clone()));
                }
            }
        }
    }
    bodies
}

/// The bodies of all recorded answers.
fn recorded() -> Vec<(String, Value)> {
    let file = json_of(Path::new(&format!(
        "{FIXTURES}/recordings/azure-cli-recordings.json"
    )));
    let exchanges = file["exchanges"].as_array().expect("exchanges");
    let body = |exchange: &Value| {
        let name = exchange["name"].as_str().expect("a name").to_owned();
        Some((name, exchange["response"].get("body")?.clone()))
    };
    exchanges.iter().filter_map(body).collect()
}

fn text<'a>(body: &'a Value, pointer: &str) -> Option<&'a str> {
    body.pointer(pointer).and_then(Value::as_str)
}

fn count(body: &Value, pointer: &str) -> usize {
    body.pointer(pointer)
        .and_then(Value::as_array)
        .map_or(0, Vec::len)
}

/// Asserts that the lenient parser has lost nothing of a group.
fn nothing_is_lost(place: &str, body: &Value, group: &ContainerGroup) {
    let text = |pointer: &str| text(body, pointer);
    let count = |pointer: &str| count(body, pointer);
    let properties = &group.properties;
    assert_eq!(group.name.as_deref(), text("/name"), "{place}");
    assert_eq!(group.location.as_deref(), text("/location"), "{place}");
    assert_eq!(
        group.provisioning().map(Provisioning::as_str),
        text("/properties/provisioningState"),
        "{place}"
    );
    assert_eq!(
        group.state().map(GroupState::as_str),
        text("/properties/instanceView/state"),
        "{place}"
    );
    assert_eq!(
        group.events().len(),
        count("/properties/instanceView/events"),
        "{place}"
    );
    assert_eq!(
        properties.containers.len(),
        count("/properties/containers"),
        "{place}"
    );
    assert_eq!(
        properties.init_containers.len(),
        count("/properties/initContainers"),
        "{place}"
    );
    assert_eq!(
        group.ip().map(|ip| ip.to_string()).as_deref(),
        text("/properties/ipAddress/ip"),
        "{place}"
    );
    for (at, container) in properties.containers.iter().enumerate() {
        let view = format!("/properties/containers/{at}/properties/instanceView");
        assert_eq!(
            container.instance_view().is_some(),
            body.pointer(&view).is_some(),
            "{place}"
        );
        if let Some(read) = container.instance_view() {
            nothing_of_a_view_is_lost(place, body, &view, read);
        }
    }
}

/// The same for the container's instance view at the pointer `view`.
fn nothing_of_a_view_is_lost(place: &str, body: &Value, view: &str, read: &ContainerInstanceView) {
    assert_eq!(
        read.events.len(),
        count(body, &format!("{view}/events")),
        "{place}"
    );
    for event in &read.events {
        assert!(
            event.first_timestamp.is_some() && event.count.is_some(),
            "{place}"
        );
    }
    let state = read.current_state.as_ref().expect(place);
    let written = text(body, &format!("{view}/currentState/state"));
    assert_eq!(
        state.state.as_ref().map(ContainerState::as_str),
        written,
        "{place}"
    );
    let times = [
        ("startTime", state.start_time),
        ("finishTime", state.finish_time),
    ];
    for (field, time) in times {
        let written = text(body, &format!("{view}/currentState/{field}"));
        assert_eq!(time.is_some(), written.is_some(), "{place}: {field}");
    }
}

#[test]
fn every_official_example_and_every_recording_is_read_whole() {
    let (mut groups, mut pages, mut operations, mut others) = (0, 0, 0, 0);
    for (place, body) in official().into_iter().chain(recorded()) {
        let bytes = body.to_string();
        let is_group = |body: &Value| {
            let fields = ["id", "name", "location"];
            fields.iter().all(|field| body.get(field).is_some())
        };
        if is_group(&body) {
            let group = ContainerGroup::parse(bytes.as_bytes()).expect(&place);
            nothing_is_lost(&place, &body, &group);
            groups += 1;
        } else if body
            .get("value")
            .is_some_and(|value| is_group(&value[0]) && value[0]["name"] != "")
            && body["value"][0]
                .get("properties")
                .is_some_and(|p| p.get("containers").is_some())
        {
            let page = ListPage::parse(bytes.as_bytes()).expect(&place);
            assert!(page.unreadable.is_empty(), "{place}");
            let elements = body["value"].as_array().expect("a list");
            for (element, group) in elements.iter().zip(&page.groups) {
                nothing_is_lost(&place, element, group);
            }
            assert_eq!(page.groups.len(), elements.len(), "{place}");
            pages += 1;
        } else if body.get("status").is_some() {
            let operation = AsyncOperation::parse(bytes.as_bytes()).expect(&place);
            let count = body["properties"]["events"].as_array().map_or(0, Vec::len);
            assert_eq!(operation.properties.events.len(), count, "{place}");
            assert!(operation.start_time.is_some(), "{place}");
            operations += 1;
        } else {
            others += 1; // passwords, logs, usages: tested in other modules
        }
    }
    assert!(
        groups >= 119 && pages >= 20 && operations >= 4,
        "{groups} {pages} {operations} {others}"
    );
}

#[test]
fn a_failed_operation_has_a_reason() {
    let path = format!("{FIXTURES}/recordings/operation-failed-insufficient-capacity.json");
    let body = json_of(Path::new(&path))["body"].to_string();
    let operation = AsyncOperation::parse(body.as_bytes()).expect("an operation");
    assert_eq!(operation.status, Some(OperationState::Failed));
    assert_eq!(
        operation.properties.events[0].reason(),
        "InsufficientCapacity"
    );
}

#[test]
fn a_broken_element_of_a_list_does_not_lose_the_others() {
    let body = json!({"value": [
        {"name": "a", "properties": {"containers": [{"name": "x"}, 7, {"name": "y"}]}},
        "broken", null, {"id": 3}, {"name": 4},
        {"name": "b", "tags": {"one": "1", "two": 2}, "properties": {"instanceView": [1]}},
    ], "nextLink": "https://next"});
    let page = ListPage::parse(body.to_string().as_bytes()).expect("a page");
    let names: Vec<_> = page
        .groups
        .iter()
        .filter_map(|group| group.name.as_deref())
        .collect();
    assert_eq!((names, page.unreadable), (vec!["a", "b"], vec![1, 2, 3, 4]));
    assert_eq!(page.next_link.as_deref(), Some("https://next"));
    assert_eq!(page.groups[0].properties.containers.len(), 2);
    assert_eq!(page.groups[1].tags.len(), 1);
    for unusable in [
        "{}",
        "<html>",
        r#"{"value": {}}"#,
        r#"{"value": [], "nextLink": 7}"#,
    ] {
        assert!(ListPage::parse(unusable.as_bytes()).is_err(), "{unusable}");
    }
}

#[test]
fn times_are_read_in_every_form_and_an_unset_one_is_none() {
    let cases = [
        (json!("2023-05-01T16:57:05Z"), Some("2023-05-01T16:57:05Z")),
        (
            json!("2023-05-01T16:57:05.7Z"),
            Some("2023-05-01T16:57:05.7Z"),
        ),
        (
            json!("2023-05-01T16:57:05.133Z"),
            Some("2023-05-01T16:57:05.133Z"),
        ),
        (
            json!("2023-05-01T16:56:48.7805315Z"),
            Some("2023-05-01T16:56:48.7805315Z"),
        ),
        (
            json!("2023-05-01T18:57:05+02:00"),
            Some("2023-05-01T16:57:05Z"),
        ),
        (json!("2023-05-01T16:57:05"), Some("2023-05-01T16:57:05Z")),
        (
            json!("2023-05-01T16:57:05.1234567"),
            Some("2023-05-01T16:57:05.1234567Z"),
        ),
        (json!("0001-01-01T00:00:00Z"), None),
        (json!("yesterday"), None),
        (json!(""), None),
        (json!(17), None),
        (json!(null), None),
    ];
    for (written, wanted) in cases {
        let run: ContainerRunView =
            serde_json::from_value(json!({"startTime": written})).expect("lenient");
        let wanted = wanted.map(|time| time.parse().expect("a time"));
        assert_eq!(run.start_time, wanted, "{written}");
    }
}

#[test]
fn an_unknown_word_is_kept_and_case_does_not_matter() {
    let group = json!({"name": "a", "properties": {
        "provisioningState": "Hibernating", "instanceView": {"state": "RUNNING"}}});
    let group = ContainerGroup::from_value(&group).expect("a group");
    assert_eq!(
        group.provisioning(),
        Some(&Provisioning::Other("Hibernating".into()))
    );
    assert_eq!(group.state(), Some(&GroupState::Running));
}

#[test]
fn a_group_whose_provisioning_failed_is_not_at_its_end() {
    let group = |provisioning: &str, state: &str| {
        let body = json!({"name": "a", "properties": {
            "provisioningState": provisioning, "instanceView": {"state": state}}});
        ContainerGroup::from_value(&body).expect("a group")
    };
    assert!(group("Succeeded", "Failed").is_terminal());
    assert!(group("Succeeded", "Stopped").is_terminal());
    assert!(!group("Succeeded", "Running").is_terminal());
    assert!(!group("Failed", "Failed").is_terminal());
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn reading_never_panics_and_never_loses_a_name(
        name in "[a-z]{1,9}",
        rest in super::super::status::arbitrary::json(),
    ) {
        let body = json!({"name": name.clone(), "properties": rest.clone(), "tags": rest.clone()});
        prop_assert_eq!(ContainerGroup::from_value(&body).and_then(|group| group.name), Some(name));
        let _ = ListPage::parse(json!({"value": rest.clone()}).to_string().as_bytes());
        let _ = AsyncOperation::parse(rest.to_string().as_bytes());
    }
}
