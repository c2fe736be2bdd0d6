//! Which pods cannot burst, and the messages that say why.

use serde_json::json;

use crate::aci::translate::Unsupported;
use crate::api::{AcceptedLoss, LossSet};
use crate::burst::facts::eligibility::ClaimState;
use crate::burst::facts::node_constraints::NodeConstraints;
use crate::burst::facts::pod::{BoundPod, PodStage};
use crate::burst::fixtures::{PlanScene, placement_facts, pod};
use crate::burst::outcome::{BlockedBy, IgnoreReason, PodOutcome};

fn refused(scene: &PlanScene, name: &str) -> String {
    let outcome = scene.outcome(60, name);
    assert!(matches!(outcome, PodOutcome::Refuse(_)), "{outcome:?}");
    outcome.to_string()
}

fn behind(scene: &mut PlanScene, behind: ClaimState) {
    let claims = [("data".to_owned(), behind)].into();
    scene.claims.insert("shop".to_owned(), claims);
}

fn demanding(scene: &mut PlanScene, spec: serde_json::Value) {
    let mut spec = spec;
    spec["containers"] = json!([]);
    let spec = serde_json::from_value(spec).expect("a spec");
    scene.waiting[0].node_constraints = NodeConstraints::from_pod_spec(&spec);
}

#[test]
fn what_aci_cannot_run_is_refused_in_translations_words() {
    let mut scene = PlanScene::new(&json!({}), &["a", "b"]);
    let refusal = Unsupported::new("spec.hostNetwork", "there is no host");
    scene.refused.insert("a".to_owned(), refusal);
    let refusal = "it cannot run on ACI: spec.hostNetwork: there is no host";
    assert_eq!(refused(&scene, "a"), refusal);
    let plan = scene.plan(60);
    assert_eq!((plan.counts.refused, plan.counts.granted), (1, 1));
    assert_eq!(
        plan.workloads[0].message,
        "1 of 2 pods that wait cannot run on ACI: spec.hostNetwork: there is no host"
    );
}

#[test]
fn a_loss_that_pool_and_workload_accept_is_granted_and_named() {
    let read_only = Unsupported {
        loss: Some(AcceptedLoss::ReadOnlyRootFilesystem),
        ..Unsupported::new("spec.x", "it is writable")
    };
    let scene = |pool: &[&str], own: Option<&[&str]>| {
        let mut scene = PlanScene::new(&json!({"spill": {"accept": pool}}), &["a"]);
        scene.refused.insert("a".to_owned(), read_only.clone());
        if let Some(own) = own {
            let own = serde_json::from_value(json!({"accept": own})).expect("an override");
            scene.pool.spec.workloads[0].spill = Some(own);
        }
        scene
    };
    let both: &[&str] = &["fsGroup", "readOnlyRootFilesystem"];
    for (pool, own) in [(both, None), (both, Some(&both[1..]))] {
        let not_kept = LossSet::from_annotation("readOnlyRootFilesystem");
        let outcome = scene(pool, own).outcome(60, "a");
        let text = outcome.to_string();
        let placement = "weu".to_owned();
        assert_eq!(
            outcome,
            PodOutcome::Grant {
                placement,
                not_kept
            }
        );
        let end = "; not kept, as the pool accepts (spill.accept): readOnlyRootFilesystem";
        assert!(text.ends_with(end), "{text}");
    }
    let wider: Option<&[&str]> = Some(&both[1..]);
    let narrower: Option<&[&str]> = Some(&both[..1]);
    let none: Option<&[&str]> = Some(&[]);
    for (pool, own) in [
        (&both[..1], None),
        (&both[..1], wider),
        (both, narrower),
        (both, none),
    ] {
        assert_eq!(
            refused(&scene(pool, own), "a"),
            "it cannot run on ACI: spec.x: it is writable; remove it from the pod, or accept it: \
             spill.accept: [readOnlyRootFilesystem]"
        );
    }
    // The name of a value of a field does not make it a loss.
    let mut scene = scene(both, None);
    let other = Unsupported::new(
        "spec.readOnlyRootFilesystem",
        "spill.accept: [readOnlyRootFilesystem]",
    );
    scene.refused.insert("a".to_owned(), other);
    assert!(matches!(scene.outcome(60, "a"), PodOutcome::Refuse(_)));
}

#[test]
fn every_reason_of_a_workloads_refused_pods_is_counted() {
    let mut scene = PlanScene::new(&json!({}), &["a", "b", "c", "d"]);
    for (pod, field) in [("a", "spec.volumes[0].hostPath"), ("b", "spec.hostNetwork")] {
        let refusal = Unsupported::new(field, "there is no host");
        scene.refused.insert(pod.to_owned(), refusal.clone());
        if pod == "b" {
            scene.refused.insert("c".to_owned(), refusal);
        }
    }
    assert_eq!(
        scene.plan(60).workloads[0].message,
        "3 of 4 pods that wait cannot run on ACI: 2 for spec.hostNetwork: there is no host; \
         1 for spec.volumes[0].hostPath: there is no host"
    );
}

#[test]
fn a_pod_waits_until_its_claims_are_read_and_is_refused_if_aci_cannot_mount_them() {
    let mut scene = PlanScene::new(&json!({}), &["a"]);
    scene.waiting[0].claims = vec![(1, "data".to_owned())];
    let unjudged = PodOutcome::Ignore(IgnoreReason::NotEvaluated);
    assert_eq!(scene.outcome(60, "a"), unjudged);
    behind(
        &mut scene,
        ClaimState::Unsupported("it is a disk".to_owned()),
    );
    let refusal = "it cannot run on ACI: spec.volumes[1].persistentVolumeClaim: it is a disk";
    assert_eq!(refused(&scene, "a"), refusal);
    behind(&mut scene, ClaimState::Mountable);
    assert!(matches!(scene.outcome(60, "a"), PodOutcome::Grant { .. }));
}

#[test]
fn a_claim_that_is_not_bound_yet_is_a_wait_and_no_refusal_and_no_limit_of_the_pool() {
    let mut scene = PlanScene::new(&json!({}), &["a"]);
    scene.waiting[0].claims = vec![(0, "data".to_owned())];
    let why = "PersistentVolumeClaim shop/data is not bound yet".to_owned();
    behind(&mut scene, ClaimState::Pending(why.clone()));
    assert_eq!(
        scene.outcome(60, "a"),
        PodOutcome::Blocked(BlockedBy::ClaimNotBound(why))
    );
    let plan = scene.plan(60);
    assert_eq!((plan.counts.refused, plan.counts.holding), (0, 1));
    assert_eq!(plan.limit_message, None);
    assert_eq!(
        plan.workloads[0].message,
        "PersistentVolumeClaim shop/data is not bound yet"
    );
}

#[test]
fn all_that_is_wrong_with_a_pod_is_said_at_once_once_its_claims_are_known() {
    let mut scene = PlanScene::new(&json!({}), &["a"]);
    let refusal = Unsupported::new("spec.hostNetwork", "there is no host");
    scene.refused.insert("a".to_owned(), refusal);
    scene.waiting[0].scheduler = Some("volcano".to_owned());
    scene.waiting[0].claims = vec![(0, "data".to_owned())];
    let unjudged = PodOutcome::Ignore(IgnoreReason::NotEvaluated);
    assert_eq!(scene.outcome(60, "a"), unjudged);
    behind(
        &mut scene,
        ClaimState::Unsupported("it is a disk".to_owned()),
    );
    let refusal = refused(&scene, "a");
    for field in [
        "spec.schedulerName",
        "spec.hostNetwork",
        "spec.volumes[0].persistentVolumeClaim",
    ] {
        assert!(refusal.contains(field), "{refusal}");
    }
    behind(
        &mut scene,
        ClaimState::Pending("it is not bound".to_owned()),
    );
    assert!(!refused(&scene, "a").contains("not bound"));
}

#[test]
fn a_pod_that_fits_no_virtual_node_is_refused_with_the_field_that_prevents_it() {
    let spread = json!([{"maxSkew": 1, "topologyKey": "topology.kubernetes.io/zone",
        "whenUnsatisfiable": "DoNotSchedule"}]);
    for (spec, field) in [
        (
            json!({"nodeSelector": {"agentpool": "x"}}),
            "spec.nodeSelector",
        ),
        (
            json!({"topologySpreadConstraints": spread}),
            "topology.kubernetes.io/zone",
        ),
    ] {
        let mut scene = PlanScene::new(&json!({}), &["a"]);
        demanding(&mut scene, spec);
        assert!(refused(&scene, "a").contains(field), "{field}");
        assert_eq!(scene.plan(60).refused_since_stamps, []);
    }
}

#[test]
fn a_pod_goes_to_the_placement_that_can_run_it() {
    let placements =
        json!([{"name": "weu", "region": "westeurope"}, {"name": "neu", "region": "northeurope"}]);
    let mut scene = PlanScene::new(&json!({"placements": placements}), &["a"]);
    scene.placements.push(placement_facts("neu", 10));
    scene.placements[1]
        .labels
        .insert("agentpool".to_owned(), "x".to_owned());
    demanding(&mut scene, json!({"nodeSelector": {"agentpool": "x"}}));
    let placement = "neu".to_owned();
    assert_eq!(
        scene.outcome(60, "a"),
        PodOutcome::Grant {
            placement,
            not_kept: crate::api::LossSet::default()
        }
    );
}

#[test]
fn another_schedulers_pod_is_refused_by_name() {
    let mut scene = PlanScene::new(&json!({}), &["a"]);
    scene.waiting[0].scheduler = Some("volcano".to_owned());
    assert!(refused(&scene, "a").contains("spec.schedulerName: volcano"));
    assert_eq!(scene.plan(60).counts.refused, 1);
}

#[test]
fn pods_of_a_template_that_azure_refuses_are_refused_and_the_placement_stays_open() {
    let mut scene = PlanScene::new(&json!({}), &["a", "b"]).spilled("web", &["g"]);
    scene.labelled[0].stage = PodStage::Bound(BoundPod {
        node: "burst-shop-weu".to_owned(),
        bound_since: None,
        has_started: false,
        is_running: false,
        refusal: Some("limit above request".to_owned()),
        waiting_for_azure: None,
    });
    if let Some(owner) = &mut scene.waiting[1].owner {
        owner.template = "web-2/".to_owned();
    }
    let refusal = refused(&scene, "a");
    assert!(
        refusal.contains("another pod of its template: limit above request"),
        "{refusal}"
    );
    let placement = "weu".to_owned();
    assert_eq!(
        scene.outcome(60, "b"),
        PodOutcome::Grant {
            placement,
            not_kept: crate::api::LossSet::default()
        },
        "a new template is tried"
    );
}

#[test]
fn a_version_that_translation_was_not_asked_about_waits_for_the_answer() {
    let mut scene = PlanScene::new(&json!({}), &["a"]);
    scene.placements.clear();
    assert_eq!(
        scene.outcome(60, "a"),
        PodOutcome::Ignore(IgnoreReason::NotEvaluated)
    );
    assert_eq!(pod("a").scheduler, None);
}
