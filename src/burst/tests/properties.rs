//! Properties of every plan, whatever the input.

use std::collections::{BTreeMap, BTreeSet};

use proptest::prelude::*;
use serde_json::json;

use crate::aci::translate::Unsupported;
use crate::api::MaxReplicas;
use crate::burst::facts::pod::{PodFacts, PodStage};
use crate::burst::fixtures::{PlanScene, at, pod, scales, target};
use crate::burst::outcome::PodOutcome;

const APPS: [&str; 2] = ["web", "db"];

/// A pod: its workload, its age in seconds, the cores it requests, and what is special about it.
fn some_pod() -> impl Strategy<Value = (usize, i64, i64, u8)> {
    (0..2_usize, 0..100_i64, 1..4_i64, 0..10_u8)
}

fn built(number: usize, (app, age, cores, matter): (usize, i64, i64, u8)) -> PodFacts {
    let mut pod = pod(&format!("p{number:03}")).of_app(APPS[app]);
    pod.created = at(100 - age);
    pod.requests.cpu_milli = cores * 1000;
    pod.stage = PodStage::Unschedulable(Some(at(100 - age)));
    match matter {
        0 => pod.stage = PodStage::Undecided,
        1 => pod.is_deleting = true,
        2 => pod.is_first_generation = false,
        3 => pod.is_nominated = true,
        4 => pod.scheduler = Some("volcano".to_owned()),
        _ => {}
    }
    pod
}

/// A granted pod that keeps other pods of its template off ACI: its grant has expired, or Azure refuses it. What
/// the scheduler or Azure reports about it concerns no other pod.
fn in_trouble(number: usize, app: &str, has_expired: bool) -> PodFacts {
    let mut pod = pod(&format!("t{number}"))
        .of_app(app)
        .granted("shop", app, 5);
    let said = Some(format!("{number} nodes"));
    if let Some(grant) = pod.grant.as_mut().filter(|_| has_expired) {
        (grant.is_expired, grant.refused) = (true, said);
        return pod;
    }
    let mut pod = pod.on("burst-shop-weu");
    if let PodStage::Bound(bound) = &mut pod.stage {
        (bound.has_started, bound.is_running, bound.refusal) = (false, false, said);
    }
    pod
}

prop_compose! {
    fn scene()(
        waiting in prop::collection::vec(some_pod(), 0..40),
        granted in prop::collection::vec((0..2_usize, 0..4_u8), 0..12),
        (max, own, weight) in (0..20_u32, 0..101_u32, 1..5_u32),
        (rate, capacity) in (1..20_u32, 0..30_i64),
        (desired, refused) in ((0..30_u64, 0..30_u64), 0..50_usize),
    ) -> PlanScene {
        let mut web = target("web");
        web["weight"] = json!(weight);
        web["spill"] = json!({"maxReplicas": format!("{own}%")});
        let spec = json!({"workloads": [web, target("db")],
            "spill": {"maxReplicas": max, "rate": {"pods": rate, "per": "1m"}}});
        let mut scene = PlanScene::new(&spec, &[]);
        scene.scales = scales(&[("web", desired.0, desired.0), ("db", desired.1, desired.1)]);
        scene.placements[0].allocatable.pods = capacity;
        scene.waiting = waiting.into_iter().enumerate().map(|(n, one)| built(n, one)).collect();
        for (number, (app, matter)) in granted.into_iter().enumerate() {
            let pod = pod(&format!("g{number}")).of_app(APPS[app]).granted("shop", APPS[app], 5);
            scene.labelled.push(match matter {
                0 => pod,
                1 => pod.on("home-1"),
                _ => pod.on("burst-shop-weu"),
            });
        }
        let refusal = Unsupported::new("spec.x", "no");
        scene.refused.insert(format!("p{refused:03}"), refusal);
        scene
    }
}

/// How many slots are in use: in the pool, and in each workload.
fn held(scene: &PlanScene) -> (u64, [u64; 2]) {
    let mut held = (0, [0; 2]);
    for pod in &scene.labelled {
        if pod.bound().is_none_or(|bound| bound.node != "home-1") {
            held.0 += 1;
            let app = APPS.iter().position(|app| pod.labels["app"] == *app);
            held.1[app.expect("a workload")] += 1;
        }
    }
    held
}

proptest! {
    #[test]
    fn no_plan_goes_above_a_limit_the_rate_or_the_room(mut scene in scene()) {
        let before = held(&scene);
        let plan = scene.plan(100);
        let count = plan.grants().count() as u64;
        let rate = u64::from(scene.pool.spec.spill.rate.pods);
        let recent = scene.labelled.len() as u64;
        scene.execute(&plan, 100);
        let after = held(&scene);
        let desired: u64 = APPS.iter().map(|app| {
            let key = ("shop".to_owned(), (*app).to_owned());
            scene.scales[&key].as_ref().expect("a scale").spec_replicas
        }).sum();
        prop_assert!(after.0 <= scene.pool.spec.spill.max_replicas.resolve(desired).max(before.0));
        let own = scene.pool.spec.workloads[0].spill.as_ref().and_then(|spill| spill.max_replicas);
        let web = ("shop".to_owned(), "web".to_owned());
        let web = scene.scales[&web].as_ref().expect("a scale").spec_replicas;
        let own = own.unwrap_or(MaxReplicas::Count(0)).resolve(web);
        prop_assert!(after.1[0] <= own.max(before.1[0]));
        // Earlier grants are of second 5: at second 100 they are older than a minute, and do not count against
        // the rate.
        prop_assert!(count <= rate, "{count} at once, {recent} before");
        prop_assert!(count == 0 || after.0 <= scene.placements[0].allocatable.pods.unsigned_abs());
    }

    #[test]
    fn the_same_is_planned_from_the_same_in_whatever_order_it_is_seen(
        mut scene in scene(),
        troubled in prop::collection::vec((0..2_usize, any::<bool>()), 0..4),
    ) {
        for (number, (app, has_expired)) in troubled.into_iter().enumerate() {
            scene.labelled.push(in_trouble(number, APPS[app], has_expired));
        }
        let plan = scene.plan(100);
        prop_assert_eq!(&plan, &scene.plan(100));
        let outcomes = |plan: &crate::burst::BurstPlan| -> BTreeMap<String, String> {
            let all = plan.decisions.iter();
            all.map(|one| (one.pod.uid.clone(), one.outcome.to_string())).collect()
        };
        scene.waiting.reverse();
        scene.labelled.reverse();
        let other = scene.plan(100);
        prop_assert_eq!(outcomes(&plan), outcomes(&other));
        prop_assert_eq!(plan.counts, other.counts);
        prop_assert_eq!(plan.workloads, other.workloads);
        prop_assert_eq!(plan.reservations, other.reservations);
    }

    #[test]
    fn a_plan_that_was_carried_out_is_not_planned_again(mut scene in scene()) {
        let plan = scene.plan(100);
        scene.execute(&plan, 100);
        let next = scene.plan(100);
        prop_assert_eq!(next.grants().count(), 0);
        prop_assert_eq!(next.refused_since_stamps.len(), 0);
        scene.execute(&next, 100);
        let last = scene.plan(100);
        prop_assert!(!last.must_write_reservations, "{:?}", last.reservations);
    }

    #[test]
    fn every_pod_that_waits_has_one_outcome_and_counts_once(scene in scene()) {
        let plan = scene.plan(100);
        let uids: BTreeSet<&str> = plan.decisions.iter().map(|one| one.pod.uid.as_str()).collect();
        prop_assert_eq!((plan.decisions.len(), uids.len()), (scene.waiting.len(), scene.waiting.len()));
        let ignored = plan.decisions.iter();
        let ignored = ignored.filter(|one| matches!(one.outcome, PodOutcome::Ignore(_))).count();
        let counts = plan.counts;
        let away = i64::try_from(held(&scene).0).expect("few");
        let all = counts.holding + counts.granted + counts.refused + counts.spilled - away;
        prop_assert_eq!(usize::try_from(all).expect("none is lost"), scene.waiting.len() - ignored);
    }

    #[test]
    fn nothing_is_granted_that_is_too_young_or_cannot_run(scene in scene()) {
        for decision in scene.plan(100).grants() {
            let pod = scene.waiting.iter().find(|pod| pod.id == decision.pod).expect("it waits");
            prop_assert!(pod.created <= at(85) && !pod.is_deleting && pod.is_first_generation);
            prop_assert!(pod.scheduler.is_none() && !scene.refused.contains_key(&pod.id.name));
            prop_assert!(matches!(pod.stage, PodStage::Unschedulable(_)));
        }
    }
}
