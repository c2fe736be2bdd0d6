//! Runs the table in `cases.json`. `tests/cluster/grants_topology.rs` gives the same rows to a real scheduler, and
//! checks that the scheduler decides as the table says.

use std::sync::Arc;

use k8s_openapi::api::core::v1::Pod;
use serde::Deserialize;
use serde_json::{Value, json};

use super::*;
use crate::burst::facts::neighbors::NeighborNode;
use crate::burst::facts::pod::PodStage;
use crate::burst::fixtures::{PlanScene, at, granted, placement_facts, pod};
use crate::burst::outcome::PodOutcome;

const ZONE: &str = "topology.kubernetes.io/zone";
const AWAY: &str = "burst-shop-weu";

#[derive(Deserialize)]
struct TopologyCase {
    name: String,
    labels: Value,
    spec: Value,
    others: Vec<NeighborSpec>,
    refused: Option<String>,
}

#[derive(Deserialize)]
struct NeighborSpec {
    node: String,
    labels: Value,
    spec: Value,
    namespace: String,
}

fn cases() -> Vec<TopologyCase> {
    serde_json::from_str(include_str!("cases.json")).expect("cases")
}

/// A pod with these labels and this spec. `namespace` is `own` or `other`.
fn facts(name: &str, namespace: &str, labels: &Value, spec: &Value) -> PodFacts {
    let namespace = if namespace == "own" { "shop" } else { "other" };
    let mut spec = spec.clone();
    spec["containers"] = json!([{"name": "main", "resources": {"requests": {"cpu": "1"}}}]);
    let spec = spec.to_string().replace("OTHER", "other");
    let pod: Pod = serde_json::from_value(json!({
        "metadata": {"name": name, "namespace": namespace, "uid": name, "labels": labels,
            "resourceVersion": "1", "generation": 1, "creationTimestamp": "1970-01-01T00:00:00Z"},
        "spec": serde_json::from_str::<Value>(&spec).expect("JSON"),
    }))
    .expect("a pod");
    PodFacts::from_pod(&pod).expect("it is created")
}

fn node(name: &str, zone: &str, rack: &str, taint: Option<(&str, &str)>) -> NeighborNode {
    let mut labels = json!({ZONE: zone, "example.com/rack": rack});
    if name != AWAY {
        labels["kubernetes.io/hostname"] = name.into();
    }
    let taint =
        taint.map(|(key, value)| json!({"key": key, "value": value, "effect": "NoSchedule"}));
    NeighborNode {
        name: name.to_owned(),
        labels: serde_json::from_value(labels).expect("labels"),
        taints: taint
            .into_iter()
            .map(|taint| serde_json::from_value(taint).expect("a taint"))
            .collect(),
    }
}

/// A pool with one placement. All neighbors are known: these pods.
fn scene(others: &[PodFacts]) -> PlanScene {
    let mut scene = PlanScene::new(
        &json!({"workloads": [
        {"name": "all", "selector": {"namespaceSelector": {}, "podSelector": {}}}]}),
        &[],
    );
    let nodes = [
        node("home-a", "a", "1", None),
        node("home-b", "b", "2", None),
        node("home-c", "c", "3", Some(("team", "x"))),
        node(
            AWAY,
            "aci",
            "1",
            Some(("virtual-kubelet.io/provider", "shop")),
        ),
    ];
    scene.placements[0].labels.clone_from(&nodes[3].labels);
    let mut pods: HashMap<String, ListResult<Vec<Arc<PodFacts>>>> = HashMap::new();
    for namespace in ["shop", "other"] {
        let of = others.iter().filter(|pod| pod.id.namespace == namespace);
        let of = of.cloned().map(Arc::new).collect();
        pods.insert(namespace.to_owned(), ListResult::Listed(of));
    }
    scene.neighbors = Neighbors {
        nodes: ListResult::Listed(nodes.into_iter().map(Arc::new).collect()),
        pods,
    };
    scene
}

fn waits(mut pod: PodFacts) -> PodFacts {
    pod.stage = PodStage::Unschedulable(Some(at(0)));
    pod
}

fn scene_of(case: &TopologyCase) -> PlanScene {
    let others = case.others.iter().enumerate().map(|(index, one)| {
        let name = format!("other-{index}");
        facts(&name, &one.namespace, &one.labels, &one.spec).on(&one.node)
    });
    let mut scene = scene(&others.collect::<Vec<_>>());
    scene.waiting = vec![waits(facts("a", "own", &case.labels, &case.spec))];
    scene
}

#[test]
fn a_pod_is_granted_where_the_scheduler_would_place_it_beside_those_that_run() {
    for case in cases() {
        let outcome = scene_of(&case).outcome(60, "a");
        match &case.refused {
            None => assert!(
                matches!(outcome, PodOutcome::Grant { .. }),
                "{}: {outcome}",
                case.name
            ),
            Some(field) => {
                let message = outcome.to_string();
                assert!(
                    matches!(outcome, PodOutcome::Blocked(_) | PodOutcome::Refuse(_)),
                    "{}: {outcome}",
                    case.name
                );
                assert!(
                    message.contains(&format!("{field}: ")),
                    "{}: {message}",
                    case.name
                );
                let names_place = message.contains("placement weu is in") || message.contains(AWAY);
                assert!(names_place, "{}: {message}", case.name);
            }
        }
    }
}

#[test]
fn a_pod_that_cannot_be_placed_holds_no_slot_and_is_no_limit_of_the_pool() {
    let cases = cases();
    let unmet = cases
        .iter()
        .find(|case| case.name.starts_with("a second pod in"));
    let mut scene = scene_of(unmet.expect("it is one of them"));
    let plan = scene.plan(60);
    assert_eq!((plan.reservations.len(), plan.counts.holding), (0, 1));
    assert_eq!(
        (
            plan.limit_message.as_deref(),
            plan.refused_since_stamps.len()
        ),
        (None, 0)
    );
    assert_eq!(plan.decisions[0].outcome.reason(), "ConstraintNotMet");
    assert_eq!(
        plan.workloads[0].message,
        "the scheduler would place it in no placement now: spec.topologySpreadConstraints[0]: placement weu is in \
         topology.kubernetes.io/zone=aci, which cannot have one more of the pods that it spreads: that would be \
         above maxSkew 1; raise maxSkew, set whenUnsatisfiable: ScheduleAnyway, or leave this label out of the \
         placement's labels"
    );
    // The other pod is gone.
    scene
        .neighbors
        .pods
        .insert("shop".to_owned(), ListResult::Listed(Vec::new()));
    assert_eq!(granted(&scene.plan(60)), ["a"]);
}

#[test]
fn what_is_not_known_keeps_no_pod_from_being_granted() {
    for case in cases() {
        let mut scene = scene_of(&case);
        for listing in scene.neighbors.pods.values_mut() {
            *listing = ListResult::Unknown;
        }
        scene.neighbors.nodes = ListResult::Unknown;
        let outcome = scene.outcome(60, "a");
        let lacks_label = case.refused.as_deref() == Some("spec.topologySpreadConstraints");
        assert_eq!(
            matches!(outcome, PodOutcome::Grant { .. }),
            !lacks_label,
            "{}: {outcome}",
            case.name
        );
        scene.neighbors.nodes = ListResult::Awaited;
        let is_granted = matches!(scene.outcome(60, "a"), PodOutcome::Grant { .. });
        let has_rules = scene.waiting[0].rules.is_some();
        assert_eq!(is_granted, !has_rules, "{} is granted unread", case.name);
    }
}

#[test]
fn pods_that_are_granted_together_count_for_each_other() {
    let (web, apart) = (json!({"app": "web"}), |kind: &str| {
        let term = json!([{"topologyKey": ZONE, "labelSelector": {"matchLabels": {"app": "web"}}}]);
        json!({"affinity": {kind: {"requiredDuringSchedulingIgnoredDuringExecution": term}}})
    });
    let spread = json!({"topologySpreadConstraints": [{"maxSkew": 2, "topologyKey": ZONE,
        "whenUnsatisfiable": "DoNotSchedule", "labelSelector": {"matchLabels": {"app": "web"}}}]});
    for (spec, most) in [
        (apart("podAntiAffinity"), 1),
        (spread, 2),
        (apart("podAffinity"), 4),
    ] {
        let mut scene = scene(&[]);
        let pods = ["a", "b", "c", "d"];
        scene.waiting = pods
            .map(|name| waits(facts(name, "own", &web, &spec)))
            .to_vec();
        let plan = scene.plan(60);
        assert_eq!(granted(&plan).len(), most, "{spec}");
        assert_eq!(plan.reservations.len(), most, "{spec}");
        // The result is the same after they are granted and on their way.
        scene.execute(&plan, 60);
        assert_eq!(granted(&scene.plan(61)).len(), 0, "{spec}");
        assert_eq!(
            scene.plan(61).counts.holding,
            4 - i64::try_from(most).expect("few")
        );
    }
}

#[test]
fn pods_that_end_or_are_deleted_count_as_the_scheduler_counts_them() {
    let cases = cases();
    let of = |name: &str| {
        let case = cases.iter().find(|case| case.name == name);
        scene_of(case.expect("it is one of them"))
    };
    let change = |scene: &mut PlanScene, change: fn(&mut PodFacts)| {
        let Some(ListResult::Listed(pods)) = scene.neighbors.pods.get_mut("shop") else {
            unreachable!("they are listed");
        };
        for pod in pods {
            change(Arc::make_mut(pod));
        }
    };
    let spread = "a second pod in the placement's zone while zones at home have none";
    let apart = "anti-affinity over zones to a pod in the placement";
    for (name, grants) in [(spread, true), (apart, false)] {
        let mut scene = of(name);
        change(&mut scene, |pod| pod.is_deleting = true);
        assert_eq!(granted(&scene.plan(60)).is_empty(), !grants, "{name}");
        let mut scene = of(name);
        change(&mut scene, |pod| pod.stage = PodStage::Finished);
        assert_eq!(granted(&scene.plan(60)), ["a"], "{name}");
    }
}

/// A pool with the placements `weu` and `neu`, each in its own zone and with room for this number of pods. All
/// neighbors are known: these pods.
fn two_placements(others: &[PodFacts], room: i64) -> PlanScene {
    let mut scene = scene(others);
    let mut spec = scene.pool.spec.placements[0].clone();
    spec.name = "neu".to_owned();
    scene.pool.spec.placements.push(spec);
    let labels = scene.placements[0].labels.clone();
    scene.placements = vec![placement_facts("weu", room), placement_facts("neu", room)];
    for (at, zone) in scene.placements.iter_mut().zip(["aci", "neu"]) {
        at.labels.clone_from(&labels);
        at.labels.insert(ZONE.to_owned(), zone.to_owned());
    }
    scene
}

/// Required pod affinity or anti-affinity by zone to the pods with this `app` label.
fn near(kind: &str, app: &str) -> Value {
    let term = json!([{"topologyKey": ZONE, "labelSelector": {"matchLabels": {"app": app}}}]);
    json!({"affinity": {kind: {"requiredDuringSchedulingIgnoredDuringExecution": term}}})
}

/// A pod with this `app` label and spec.
fn of_app(name: &str, app: &str, spec: &Value) -> PodFacts {
    facts(name, "own", &json!({"app": app}), spec)
}

#[test]
fn a_pod_on_its_way_counts_in_the_placement_where_the_scheduler_can_place_it() {
    let apart = near("podAntiAffinity", "web");
    let runs = of_app("runs", "web", &json!({})).on(AWAY);
    let mut scene = two_placements(&[runs], 100);
    let on_its_way = of_app("on-its-way", "web", &apart);
    scene.labelled = vec![on_its_way.granted("shop", "all", 0)];
    // The pod on its way can only go to `neu`, so there is no placement left for another one.
    scene.waiting = vec![waits(of_app("a", "web", &apart))];
    assert_eq!(scene.outcome(60, "a").reason(), "ConstraintNotMet");
    scene.labelled.clear();
    let outcome = scene.outcome(60, "a");
    let placement = "neu".to_owned();
    assert_eq!(
        outcome,
        PodOutcome::Grant {
            placement,
            not_kept: crate::api::LossSet::default()
        }
    );
}

#[test]
fn a_reserved_pod_that_has_just_been_bound_is_a_neighbor_before_a_watch_shows_it() {
    let apart = near("podAntiAffinity", "web");
    let runs = of_app("runs", "web", &json!({})).on(AWAY);
    let mut scene = two_placements(&[runs], 100);
    scene.waiting = vec![waits(of_app("a", "web", &apart))];
    let plan = scene.plan(60);
    assert_eq!(granted(&plan), ["a"]);
    scene.write_reservations(&plan);
    scene
        .leader_state
        .record_patch_sent(&scene.waiting[0].id.clone());
    // `a` is bound to `neu`: it has left the watch of pending pods, and no other watch shows it yet.
    scene.departed = std::mem::take(&mut scene.waiting);
    scene.waiting = vec![waits(of_app("b", "web", &apart))];
    assert_eq!(scene.outcome(61, "b").reason(), "ConstraintNotMet");
    // Its reservation has ended: another watch shows what the pod is.
    scene.pool.status.as_mut().expect("a status").reservations = Vec::new();
    assert_eq!(scene.outcome(61, "b").reason(), "Granted");
}

#[test]
fn a_pod_on_its_way_that_fits_no_placement_takes_room_and_is_no_neighbor() {
    let runs = |name: &str, node: &str| of_app(name, "cache", &json!({})).on(node);
    let others = [runs("runs-weu", AWAY), runs("runs-neu", "burst-shop-neu")];
    let on_its_way = of_app("on-its-way", "db", &near("podAntiAffinity", "cache"));
    let on_its_way = on_its_way.granted("shop", "all", 0);
    let mut scene = two_placements(&others, 2);
    scene.labelled = vec![on_its_way.clone()];
    scene.waiting = vec![waits(of_app("a", "web", &near("podAffinity", "db")))];
    assert_eq!(scene.outcome(60, "a").reason(), "ConstraintNotMet");
    let mut scene = two_placements(&others, 1);
    scene.labelled = vec![on_its_way];
    scene.waiting = ["a", "b"]
        .map(|name| waits(of_app(name, "web", &json!({}))))
        .to_vec();
    let plan = scene.plan(60);
    let outcomes: Vec<&str> = plan
        .decisions
        .iter()
        .map(|one| one.outcome.reason())
        .collect();
    assert_eq!(outcomes, ["Granted", "NoRoom"]);
}

#[test]
fn room_is_kept_for_a_large_pod_in_a_placement_that_its_constraints_permit() {
    let runs = of_app("runs", "web", &json!({})).on(AWAY);
    let mut scene = two_placements(&[runs], 2);
    let used = pod("used").of_app("used").granted("shop", "all", 0);
    scene.labelled = vec![used.on("burst-shop-neu")];
    let mut large = waits(of_app("large", "web", &near("podAntiAffinity", "web")));
    large.requests.cpu_milli = 2000;
    large.group_requests.cpu_milli = 2000;
    scene.waiting = vec![large];
    // `weu` has room and is not permitted, `neu` is permitted and has no room now.
    assert_eq!(scene.outcome(60, "large").reason(), "NoRoom");
    for name in ["b", "c", "d"] {
        let mut small = waits(of_app(name, "other", &json!({})));
        small.created = at(1);
        scene.waiting.push(small);
    }
    assert_eq!(granted(&scene.plan(60)), ["b", "c", "d"]);
    // After it has waited for long, the room in `neu` is kept for it, and that in `weu` is not.
    assert_eq!(granted(&scene.plan(500)), ["b", "c"]);
    // A placement that is closed is also named before the constraints of others.
    scene.placements[1].unavailable = Some("it is full".to_owned());
    assert_eq!(scene.outcome(60, "large").reason(), "PlacementClosed");
}
