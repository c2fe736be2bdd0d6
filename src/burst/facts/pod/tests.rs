//! What is read from a pod: its stage, its grant and its owner.

use serde_json::{Value, json};

use super::*;
use crate::aci::failure::FailureClass;

fn facts(changes: &[(&str, Value)]) -> PodFacts {
    let mut pod = json!({
        "metadata": {"namespace": "shop", "name": "web-1", "uid": "u", "resourceVersion": "7",
            "generation": 1, "creationTimestamp": "2026-01-01T00:00:00Z", "labels": {"app": "web"},
            "annotations": {}},
        "spec": {"schedulerName": "default-scheduler", "containers": [{"name": "a"}]},
        "status": {"phase": "Pending", "conditions": []},
    });
    for (pointer, value) in changes {
        let (parent, field) = pointer.rsplit_once('/').expect("a pointer");
        pod.pointer_mut(parent).expect("it is there")[field] = value.clone();
    }
    let pod: Pod = serde_json::from_value(pod).expect("a pod");
    PodFacts::from_pod(&pod).expect("a pod that was created")
}

fn scheduled(status: &str, reason: &str) -> Value {
    json!([{"type": "PodScheduled", "status": status, "reason": reason,
        "lastTransitionTime": "2026-01-01T00:00:05Z"}])
}

#[test]
fn only_the_schedulers_refusal_is_one() {
    let of = |conditions: Value| facts(&[("/status/conditions", conditions)]).stage;
    let at = "2026-01-01T00:00:05Z".parse().expect("a time");
    assert_eq!(
        of(scheduled("False", "Unschedulable")),
        PodStage::Unschedulable(Some(at))
    );
    assert_eq!(
        of(scheduled("False", "SchedulingGated")),
        PodStage::Undecided
    );
    assert_eq!(of(json!([])), PodStage::Undecided);
}

#[test]
fn a_grant_is_the_label_together_with_the_toleration() {
    let label = ("/metadata/labels", json!({"burstpool.io/pool": "shop"}));
    let toleration = json!([{"key": "virtual-kubelet.io/provider", "operator": "Equal",
        "value": "shop", "effect": "NoSchedule"}]);
    let notes = json!({"burstpool.io/workload": "web", "burstpool.io/granted-at": "2026-01-01T00:01:00Z",
        "burstpool.io/granted-uid": "u"});
    assert_eq!(facts(std::slice::from_ref(&label)).grant, None);
    assert_eq!(
        facts(&[("/spec/tolerations", toleration.clone())]).grant,
        None
    );
    let granted = facts(&[
        label,
        ("/spec/tolerations", toleration),
        ("/metadata/annotations", notes),
    ]);
    let grant = granted.grant.clone().expect("a grant");
    assert_eq!(
        (grant.pool.as_str(), grant.workload.as_str()),
        ("shop", "web")
    );
    assert!(grant.granted_at.is_some() && !granted.is_done_without_grant());
}

/// The refusal of a pod that was granted at 00:01:00.5, which changed its generation to `generations.0`. Its
/// condition was written at `written` with this message, for the generation `generations.1`.
fn refused(written: &Value, generations: (Value, Value), message: &str) -> Option<String> {
    let mut conditions = scheduled("False", "Unschedulable");
    conditions[0]["message"] = json!(message);
    conditions[0]["observedGeneration"] = generations.1;
    let managed = json!([{"manager": "kube-scheduler", "operation": "Update", "time": written,
        "fieldsV1": {"f:status": {"f:conditions": {SCHEDULED_FIELD: {}}}}}]);
    let granted = facts(&[
        ("/metadata/labels", json!({"burstpool.io/pool": "shop"})),
        (
            "/metadata/annotations",
            json!({"burstpool.io/granted-uid": "u",
            "burstpool.io/granted-at": "2026-01-01T00:01:00.5Z"}),
        ),
        ("/metadata/generation", generations.0),
        ("/metadata/managedFields", managed),
        (
            "/spec/tolerations",
            json!([{"key": PROVIDER_TAINT, "value": "shop"}]),
        ),
        ("/status/conditions", conditions),
    ]);
    granted.grant.expect("a grant").refused
}

#[test]
fn only_what_the_scheduler_says_after_a_grant_is_a_refusal_of_the_granted_pod() {
    let taint = |pool: &str| {
        format!("1 node(s) had untolerated taint {{virtual-kubelet.io/provider: {pool}}}")
    };
    let (own, other, zone) = (taint("shop"), taint("other"), "no zone".to_owned());
    // Whether the refusal counts: if it is of the granted pod, of the pod before the grant, and, if the API
    // server does not track generations, by the message: of another constraint, of the pool's taint, of
    // another pool's taint.
    for (written, counts) in [
        ("2026-01-01T00:02:00Z", [true, true, true, true, true]),
        ("2026-01-01T00:01:05Z", [true, false, true, false, true]),
        ("2026-01-01T00:01:00Z", [true, false, true, false, true]),
        ("2026-01-01T00:00:59Z", [true, false, true, false, true]),
        ("2026-01-01T00:00:55Z", [true, false, true, false, true]),
        ("2026-01-01T00:00:54Z", [false; 5]),
    ] {
        let known = |observed: u8| (json!(2), json!(observed));
        let unknown = || (json!(null), json!(null));
        let written = json!(written);
        let of = [
            refused(&written, known(2), &zone),
            refused(&written, known(1), &zone),
            refused(&written, unknown(), &zone),
            refused(&written, unknown(), &own),
            refused(&written, unknown(), &other),
        ];
        assert_eq!(of.map(|one| one.is_some()), counts, "{written}");
    }
    assert_eq!(refused(&Value::Null, (json!(2), json!(2)), &zone), None);
}

#[test]
fn the_marks_of_another_pods_grant_are_no_grant() {
    let label = ("/metadata/labels", json!({"burstpool.io/pool": "shop"}));
    let toleration = json!([{"key": "virtual-kubelet.io/provider", "operator": "Equal",
        "value": "shop", "effect": "NoSchedule"}]);
    let toleration = ("/spec/tolerations", toleration);
    let uid = |uid: &str| json!({"burstpool.io/workload": "web", "burstpool.io/granted-uid": uid});
    let written = |by: &str, what: &str| {
        json!([{"manager": by, "operation": "Update", "fieldsType": "FieldsV1",
            "fieldsV1": {"f:metadata": {"f:labels": {what: {}}}}}])
    };
    let by_us = written("burstpool-leader", "f:burstpool.io/pool");
    let mut created = by_us.clone();
    created[0]["fieldsV1"]["f:spec"] = json!({"f:containers": {}});
    for (case, notes, managers, is_own) in [
        ("ours", uid("u"), json!([]), true),
        ("a copied template", uid("of-another-pod"), json!([]), false),
        (
            "a copied template of a pod that waits",
            uid("of-another-pod"),
            by_us.clone(),
            false,
        ),
        (
            "forged",
            json!({}),
            written("kubectl", "f:burstpool.io/pool"),
            false,
        ),
        (
            "a stamp is no grant",
            json!({}),
            written("burstpool-leader", "f:app"),
            false,
        ),
        ("forged without managers", json!({}), json!([]), false),
        ("forged by one with our name", json!({}), created, false),
        ("an earlier version's", json!({}), by_us, true),
    ] {
        let facts = facts(&[
            label.clone(),
            toleration.clone(),
            ("/metadata/annotations", notes),
            ("/metadata/managedFields", managers),
        ]);
        assert_eq!(facts.is_granted_by("shop"), is_own, "{case}");
        let foreign = facts.foreign_grant.as_deref();
        assert_eq!(foreign, (!is_own).then_some("shop"), "{case}");
    }
}

#[test]
fn a_grant_has_expired_only_if_the_mark_is_not_older_than_it() {
    for (expired, is_expired) in [
        (json!("2026-01-01T00:06:00Z"), true),
        (json!("2026-01-01T00:00:30Z"), false),
        (json!("soon"), false),
        (json!(null), false),
    ] {
        let mut notes = json!({
            "burstpool.io/workload": "web",
            "burstpool.io/granted-at": "2026-01-01T00:01:00Z",
            "burstpool.io/granted-uid": "u",
        });
        if !expired.is_null() {
            notes["burstpool.io/grant-expired-at"] = expired.clone();
        }
        let facts = facts(&[
            ("/metadata/labels", json!({"burstpool.io/pool": "shop"})),
            (
                "/spec/tolerations",
                json!([{"key": "virtual-kubelet.io/provider", "operator": "Equal", "value": "shop",
                    "effect": "NoSchedule"}]),
            ),
            ("/metadata/annotations", notes),
        ]);
        let grant = facts.grant.expect("it is granted");
        assert_eq!(grant.is_expired, is_expired, "{expired}");
    }
}

#[test]
fn a_bound_pod_says_whether_it_ever_started_and_why_it_never_will() {
    let node = ("/spec/nodeName", json!("burst-shop-weu"));
    let waiting = |reason: &str| {
        json!([{"name": "a", "image": "", "imageID": "", "ready": false, "restartCount": 0,
            "state": {"waiting": {"reason": reason, "message": "no such sku"}}}])
    };
    let of = |containers: Value| {
        let facts = facts(&[node.clone(), ("/status/containerStatuses", containers)]);
        facts.bound().expect("it is bound").clone()
    };
    let refused = of(waiting("CreateContainerError"));
    assert_eq!(
        (refused.has_started, refused.refusal.as_deref()),
        (false, Some("no such sku"))
    );
    // The virtual node refuses it.
    assert_eq!(
        of(waiting("Unsupported")).refusal.as_deref(),
        Some("no such sku")
    );
    assert_eq!(of(waiting("ErrImagePull")).refusal, None);
    assert_eq!(of(waiting("ErrImagePull")).waiting_for_azure, None);
    let held = Some((FailureClass::Quota, "no such sku".to_owned()));
    assert_eq!(of(waiting("QuotaExceeded")).waiting_for_azure, held);
    let mut running = waiting("");
    running[0]["state"] = json!({"running": {}});
    assert!(of(running).has_started);
    let finished = facts(&[node.clone(), ("/status/phase", json!("Failed"))]);
    assert_eq!(finished.stage, PodStage::Finished);
}

#[test]
fn the_owner_is_known_by_its_template() {
    let owner = |kind: &str, labels: Value| {
        let api = if kind == "Job" { "batch/v1" } else { "apps/v1" };
        let owners =
            json!([{"apiVersion": api, "kind": kind, "name": "x", "uid": "o", "controller": true}]);
        facts(&[
            ("/metadata/ownerReferences", owners),
            ("/metadata/labels", labels),
        ])
        .owner
    };
    let set = owner("StatefulSet", json!({"controller-revision-hash": "r2"})).expect("an owner");
    assert_eq!(
        (set.kind, set.template.as_str()),
        (OwnerKind::ReplicaController, "o/r2")
    );
    assert_eq!(
        owner("Job", json!({})).map(|owner| (owner.kind, owner.name, owner.uid)),
        Some((OwnerKind::Job, "x".to_owned(), "o".to_owned()))
    );
    assert_eq!(facts(&[]).owner, None);
}

#[test]
fn only_the_grant_of_the_nodes_pool_with_the_pods_own_uid_accepts_losses() {
    let pod = |label: &str, uid: Option<&str>, not_kept: Option<&str>| {
        let mut pod = json!({"metadata": {"name": "a", "uid": "u", "labels": {"burstpool.io/pool": label},
            "annotations": {}}, "spec": {"containers": []}});
        for (name, value) in [("granted-uid", uid), ("not-kept", not_kept)] {
            if let Some(value) = value {
                pod["metadata"]["annotations"][format!("burstpool.io/{name}")] = value.into();
            }
        }
        serde_json::from_value::<Pod>(pod).expect("a pod")
    };
    let list = Some("fsGroup,seccomp,runAsUser");
    for (label, uid, list, expected) in [
        ("shop", Some("u"), list, "fsGroup,seccomp"),
        ("shop", Some("u"), None, ""),
        ("shop", Some("of-another"), list, ""),
        ("shop", None, list, ""),
        ("other", Some("u"), list, ""),
    ] {
        let losses = accepted_losses(&pod(label, uid, list), "shop");
        assert_eq!(losses.to_string(), expected, "{label} {uid:?} {list:?}");
    }
    let mut bare = pod("shop", None, list);
    bare.metadata.uid = None;
    assert!(accepted_losses(&bare, "shop").is_empty());
}
