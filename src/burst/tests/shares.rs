//! How workloads share free slots and the grant rate.

use serde_json::json;

use crate::burst::facts::pod::PodStage;
use crate::burst::fixtures::{PlanScene, at, pod, scales, target};
use crate::burst::outcome::{BlockedBy, PodOutcome};

fn many(count: usize) -> Vec<String> {
    (0..count).map(|n| format!("p{n:04}")).collect()
}

fn names(all: &[String]) -> Vec<&str> {
    all.iter().map(String::as_str).collect()
}

#[test]
fn five_a_minute_are_five_in_each_minute_also_after_a_restart() {
    let spec = json!({"spill": {"rate": {"pods": 5, "per": "1m"}}});
    let mut scene = PlanScene::new(&spec, &names(&many(12)));
    for (second, count) in [(15, 5), (16, 0), (74, 0), (75, 5), (100, 0), (135, 2)] {
        let plan = scene.plan(second);
        assert_eq!(plan.grants().count(), count, "at second {second}");
        if count == 0 && second < 75 {
            let seconds = u64::try_from(75 - second).expect("later");
            assert_eq!(
                plan.replan_after,
                Some(std::time::Duration::from_secs(seconds))
            );
            assert_eq!(
                plan.decisions[0].outcome,
                PodOutcome::Blocked(BlockedBy::RateLimit(Some(at(75))))
            );
        }
        scene.execute(&plan, second);
        scene.leader_state = crate::burst::LeaderState::default();
    }
}

#[test]
fn workloads_share_by_weight_and_the_oldest_pods_go_first() {
    let mut heavy = target("web");
    heavy["weight"] = json!(3);
    let spec = json!({"workloads": [heavy, target("db")], "spill": {"maxReplicas": 40}});
    let all = many(40);
    let mut scene = PlanScene::new(&spec, &names(&all));
    scene.scales = scales(&[("web", 40, 40), ("db", 40, 40)]);
    scene
        .waiting
        .extend(all.iter().map(|name| pod(&format!("d{name}")).of_app("db")));
    for (age, pod) in scene.waiting.iter_mut().enumerate() {
        pod.created = at(-i64::try_from(age).expect("small"));
    }
    let plan = scene.plan(15);
    let of = |workload: &str| plan.grants().filter(|d| d.workload == workload).count();
    assert_eq!((of("web"), of("db")), (30, 10));
    let youngest = scene.outcome(15, "p0000");
    assert_eq!(youngest, PodOutcome::Blocked(BlockedBy::PoolLimit(40)));
}

#[test]
fn a_workload_with_short_lived_pods_does_not_take_the_whole_rate_forever() {
    let spec = json!({
        "workloads": [target("web"), target("job")],
        "spill": {"after": "0s", "maxReplicas": 10, "rate": {"pods": 1, "per": "1m"}},
    });
    // Two of the five slots of web's share are free. A job's pod comes and goes each minute.
    let mut scene = PlanScene::new(&spec, &["late"]).spilled("web", &["a", "b", "c"]);
    scene.scales = scales(&[("web", 4, 4), ("job", 1, 1)]);
    scene.waiting[0].created = at(30);
    scene.waiting[0].stage = PodStage::Unschedulable(Some(at(30)));
    let mut jobs = 0;
    while scene.waiting.iter().any(|pod| pod.id.name == "late") {
        jobs += 1;
        assert!(jobs < 10, "it waits forever");
        let second = jobs * 60;
        let mut job = pod(&format!("job-{jobs}")).of_app("job");
        (job.created, job.stage) = (at(second), PodStage::Unschedulable(Some(at(second))));
        scene.waiting.push(job);
        let plan = scene.plan(second);
        assert_eq!(plan.grants().count(), 1, "at {second}");
        scene.execute(&plan, second);
        for job in scene
            .labelled
            .iter_mut()
            .filter(|pod| pod.labels["app"] == "job")
        {
            job.stage = PodStage::Finished;
        }
    }
    assert_eq!(
        jobs, 6,
        "the workload with the fewest slots goes first, but for five minutes only"
    );
}

#[test]
fn a_workload_with_a_waiting_pod_for_each_free_slot_does_not_take_all_slots_forever() {
    let spec = json!({
        "workloads": [target("web"), target("job")],
        "spill": {"after": "0s", "maxReplicas": 4, "rate": {"pods": 1, "per": "1m"}},
    });
    // One of the two slots of web's share is free. Five pods of the job wait, and none stays.
    let mut scene = PlanScene::new(&spec, &["late"]).spilled("web", &["a"]);
    scene.scales = scales(&[("web", 2, 2), ("job", 5, 5)]);
    let refused = |name: &str, second| {
        let mut pod = pod(name).of_app("job");
        (pod.created, pod.stage) = (at(second), PodStage::Unschedulable(Some(at(second))));
        pod
    };
    let first = (0..5).map(|job| refused(&format!("job-0-{job}"), 1));
    scene.waiting.extend(first);
    let mut minute = 0;
    while scene.waiting.iter().any(|pod| pod.id.name == "late") {
        minute += 1;
        assert!(minute < 10, "it waits forever");
        let second = minute * 60;
        let plan = scene.plan(second);
        assert_eq!(plan.grants().count(), 1, "at {second}");
        scene.execute(&plan, second);
        let jobs = scene.labelled.iter_mut();
        for job in jobs.filter(|pod| pod.labels["app"] == "job") {
            job.stage = PodStage::Finished;
        }
        let job = refused(&format!("job-{minute}"), second);
        scene.waiting.push(job);
    }
    assert_eq!(
        minute, 5,
        "the workload with the fewest slots goes first for five minutes"
    );
}

#[test]
fn while_the_rate_is_used_up_a_pod_without_room_waits_for_room() {
    let rate = json!({"spill": {"rate": {"pods": 1, "per": "1m"}}});
    let mut scene = PlanScene::new(&rate, &["a", "b", "large"]);
    scene.waiting[2].requests.cpu_milli = 101_000;
    let reasons = |scene: &PlanScene, second| {
        let plan = scene.plan(second);
        let decisions = plan.decisions.iter();
        let reasons = decisions.map(|one| (one.pod.name.clone(), one.outcome.reason()));
        (reasons.collect::<Vec<_>>(), plan)
    };
    let of = |names: &[(&str, &'static str)]| -> Vec<(String, &'static str)> {
        let all = names.iter();
        all.map(|(name, reason)| ((*name).to_owned(), *reason))
            .collect()
    };
    let (first, plan) = reasons(&scene, 15);
    let waiting = [("b", "RateLimited"), ("large", "NoRoom")];
    assert_eq!(first, of(&[("a", "Granted"), waiting[0], waiting[1]]));
    scene.execute(&plan, 15);
    assert_eq!(reasons(&scene, 16).0, of(&waiting));
}
