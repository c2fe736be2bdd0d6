//! The patches, applied to pods as JSON.

use super::*;
use crate::api::ScaleIn;

const DEFAULT: [(&str, Option<i64>); 2] =
    [(OUTAGE_TAINTS[0], Some(300)), (OUTAGE_TAINTS[1], Some(300))];

fn tolerations(wanted: &[(&str, Option<i64>)]) -> Value {
    let toleration = |(key, seconds): &(&str, Option<i64>)| {
        let mut toleration = json!({"operator": "Exists", "effect": "NoExecute"});
        if !key.is_empty() {
            toleration["key"] = json!(key);
        }
        if let Some(seconds) = seconds {
            toleration["tolerationSeconds"] = json!(seconds);
        }
        toleration
    };
    wanted.iter().map(toleration).collect()
}

fn pod(wanted: &[(&str, Option<i64>)]) -> Value {
    json!({
        "metadata": {"name": "web", "uid": "1"},
        "spec": {"containers": [], "tolerations": tolerations(wanted)},
    })
}

fn read(pod: &Value) -> Pod {
    serde_json::from_value(pod.clone()).expect("a pod")
}

/// The pod after its patch, or unchanged if it needs none. Checks that no second patch is needed.
fn patched(mut pod: Value) -> Value {
    if let Some(patch) = patch(&read(&pod), ScaleIn::default().deletion_cost) {
        // Unlike the API server, the library's test operation fails on a missing key.
        let operations = patch.0.into_iter().filter(|operation| {
            !matches!(operation, json_patch::PatchOperation::Test(test) if test.value.is_null())
        });
        let patch = json_patch::Patch(operations.collect());
        json_patch::patch(&mut pod, &patch).expect("it can be applied");
    }
    assert_eq!(
        patch(&read(&pod), ScaleIn::default().deletion_cost),
        None,
        "{pod}"
    );
    pod
}

fn cost(pod: &Value) -> &Value {
    &pod["metadata"]["annotations"][DELETION_COST_ANNOTATION]
}

#[test]
fn a_bound_pod_gets_a_cost_and_tolerations_that_last_a_day() {
    let day = tolerations(&[
        (OUTAGE_TAINTS[0], Some(OUTAGE_TOLERATION_SECONDS)),
        (OUTAGE_TAINTS[1], Some(OUTAGE_TOLERATION_SECONDS)),
    ]);
    let got = patched(pod(&DEFAULT));
    assert_eq!(
        (cost(&got), &got["spec"]["tolerations"]),
        (&json!("-1000"), &day)
    );
    let mut bare = pod(&[]);
    for none in [json!([]), Value::Null] {
        bare["spec"]["tolerations"] = none;
        let got = patched(bare.clone());
        assert_eq!(got["spec"]["tolerations"], day);
    }
}

#[test]
fn values_that_the_user_set_stay() {
    let mut own = pod(&[
        ("theirs", Some(5)),
        (OUTAGE_TAINTS[0], None),
        (OUTAGE_TAINTS[1], Some(OUTAGE_TOLERATION_SECONDS + 1)),
    ]);
    own["metadata"]["annotations"] = json!({DELETION_COST_ANNOTATION: "7", "theirs": "yes"});
    assert_eq!(patch(&read(&own), ScaleIn::default().deletion_cost), None);
    own["metadata"]["annotations"] = json!({"theirs": "yes"});
    own["spec"]["tolerations"][2]["tolerationSeconds"] = json!(5);
    let got = patched(own.clone());
    let annotations = json!({DELETION_COST_ANNOTATION: "-1000", "theirs": "yes"});
    assert_eq!(got["metadata"]["annotations"], annotations);
    own["spec"]["tolerations"][2]["tolerationSeconds"] = json!(OUTAGE_TOLERATION_SECONDS);
    assert_eq!(got["spec"]["tolerations"], own["spec"]["tolerations"]);
}

#[test]
fn a_toleration_of_every_taint_stays_and_burstpools_come_before_it() {
    let got = patched(pod(&[("", Some(60)), (OUTAGE_TAINTS[0], Some(300))]));
    let all = [
        (OUTAGE_TAINTS[1], Some(OUTAGE_TOLERATION_SECONDS)),
        (OUTAGE_TAINTS[0], Some(OUTAGE_TOLERATION_SECONDS)),
        ("", Some(60)),
        (OUTAGE_TAINTS[0], Some(300)),
    ];
    assert_eq!(got["spec"]["tolerations"], tolerations(&all));
    let for_ever = pod(&[("", None)]);
    let got = patched(for_ever.clone());
    assert_eq!(got["spec"], for_ever["spec"]);
}

#[test]
fn only_a_toleration_that_matches_the_outage_taints_counts() {
    for (field, value) in [
        ("effect", json!("NoSchedule")),
        ("operator", json!("Equal")), // it compares values; these taints have none
        ("operator", json!("Lt")),
    ] {
        let mut other = pod(&DEFAULT);
        for index in 0..2 {
            other["spec"]["tolerations"][index][field] = value.clone();
            if field == "operator" {
                other["spec"]["tolerations"][index]["value"] = json!("5");
            }
        }
        let got = patched(other.clone());
        let all = got["spec"]["tolerations"].as_array().expect("a list");
        assert_eq!((all.len(), &all[2]), (4, &other["spec"]["tolerations"][0]));
    }
    let mut equal = pod(&[(OUTAGE_TAINTS[0], None), (OUTAGE_TAINTS[1], None)]);
    equal["spec"]["tolerations"][0]["operator"] = json!("Equal");
    equal["spec"]["tolerations"][1]["effect"] = Value::Null;
    assert_eq!(patched(equal.clone())["spec"], equal["spec"]);
}

#[test]
fn deleted_finished_mirror_and_daemon_set_pods_are_not_patched() {
    let daemon = json!([{"apiVersion": "apps/v1", "kind": "DaemonSet", "name": "agent", "uid": "2", "controller": true}]);
    for (pointer, value) in [
        ("/metadata/deletionTimestamp", json!("2026-07-01T00:00:00Z")),
        ("/metadata/ownerReferences", daemon),
        ("/metadata/annotations", json!({MIRROR_POD_ANNOTATION: "x"})),
        ("/status", json!({"phase": "Succeeded"})),
        ("/status", json!({"phase": "Failed"})),
    ] {
        let mut other = pod(&DEFAULT);
        other["status"] = Value::Null;
        let (parent, key) = pointer.rsplit_once('/').expect("a path");
        other.pointer_mut(parent).expect("a parent")[key] = value;
        assert_eq!(
            patch(&read(&other), ScaleIn::default().deletion_cost),
            None,
            "{pointer}"
        );
    }
}

#[test]
fn the_patch_applies_only_to_this_pod_as_it_was_read() {
    let operations = |pod: &Value| {
        let patch = patch(&read(pod), 5).expect("a patch");
        serde_json::to_value(patch).expect("JSON")
    };
    let sent = operations(&pod(&DEFAULT));
    assert_eq!(
        sent[0],
        json!({"op": "test", "path": "/metadata/uid", "value": "1"})
    );
    assert_eq!(
        sent[1],
        json!({"op": "test", "path": "/metadata/annotations", "value": null})
    );
    assert_eq!(sent[2]["value"][DELETION_COST_ANNOTATION], "5");
    let seconds = "/spec/tolerations/0/tolerationSeconds";
    assert_eq!(
        sent[4],
        json!({"op": "test", "path": seconds, "value": 300})
    );
    let mut annotated = pod(&DEFAULT);
    annotated["metadata"]["annotations"] = json!({"theirs": "yes"});
    let key = "/metadata/annotations/controller.kubernetes.io~1pod-deletion-cost";
    let sent = operations(&annotated);
    assert_eq!(sent[1], json!({"op": "test", "path": key, "value": null}));
}

#[test]
fn lost_tolerations_are_restored_and_a_removed_cost_is_not() {
    let mut lost = patched(pod(&DEFAULT));
    assert_eq!(tolerations_patch(&read(&lost)), None);
    lost["metadata"]["annotations"] = json!({});
    assert_eq!(tolerations_patch(&read(&lost)), None);
    lost["spec"]["tolerations"] = tolerations(&DEFAULT);
    let patch = tolerations_patch(&read(&lost)).expect("they are lost");
    json_patch::patch(&mut lost, &patch).expect("it can be applied");
    let day = tolerations(&[
        (OUTAGE_TAINTS[0], Some(OUTAGE_TOLERATION_SECONDS)),
        (OUTAGE_TAINTS[1], Some(OUTAGE_TOLERATION_SECONDS)),
    ]);
    assert_eq!(lost["spec"]["tolerations"], day);
    assert_eq!(cost(&lost), &Value::Null);
}
