//! What memory keeps, and for how long.

use super::*;
use crate::burst::fixtures::{at, pod, reservation};
use crate::burst::plan::BurstPlan;
use crate::burst::select::never_started::{NeverStarted, RescueAction};

fn tried(answers: &[PodWriteResult]) -> LeaderState {
    let mut memory = LeaderState::default();
    for answer in answers {
        memory.record_patch_sent(&pod("a").id);
        memory.record_grant_answer(&pod("a").id, answer.clone(), at(100));
    }
    memory
}

fn attempt(answers: &[PodWriteResult]) -> PatchOutcome {
    tried(answers).patch_outcome(&pod("a").id)
}

fn denied() -> PodWriteResult {
    PodWriteResult::Denied("no".to_owned())
}

#[test]
fn only_what_cannot_be_carried_out_any_more_is_none() {
    assert_eq!(attempt(&[]), PatchOutcome::NotApplied);
    assert_eq!(attempt(&[PodWriteResult::Granted]), PatchOutcome::Pending);
    assert_eq!(attempt(&[PodWriteResult::Conflict]), PatchOutcome::Pending);
    assert_eq!(attempt(&[PodWriteResult::Lost]), PatchOutcome::Unknown);
    assert_eq!(attempt(&[denied()]), PatchOutcome::NotApplied);
    assert_eq!(
        attempt(&[PodWriteResult::Lost, denied()]),
        PatchOutcome::Unknown,
        "the lost one may come"
    );
    assert_eq!(
        attempt(&[PodWriteResult::Lost, PodWriteResult::Conflict]),
        PatchOutcome::Pending
    );
}

#[test]
fn a_grant_on_its_way_counts_against_the_rate_also_when_its_pod_is_gone() {
    let mut memory = LeaderState::default();
    memory.record_patch_sent(&pod("a").id);
    memory.record_plan(&BurstPlan::default().record(), &HashSet::new(), at(100));
    let counts: Vec<_> = memory.grant_times(at(101)).collect();
    assert_eq!(counts, [("uid-a", at(101))]);
    memory.record_grant_answer(&pod("a").id, PodWriteResult::Granted, at(102));
    let counts: Vec<_> = memory.grant_times(at(103)).collect();
    assert_eq!(counts, [("uid-a", at(102))]);
}

#[test]
fn a_pod_that_was_said_to_be_gone_and_is_not_is_granted_again() {
    assert_eq!(attempt(&[PodWriteResult::Gone]), PatchOutcome::NotApplied);
    assert_eq!(attempt(&[PodWriteResult::Unsent]), PatchOutcome::NotApplied);
    assert_eq!(
        attempt(&[PodWriteResult::Lost, PodWriteResult::Unsent]),
        PatchOutcome::Unknown
    );
}

#[test]
fn a_grant_that_was_done_or_may_have_been_counts_against_the_rate() {
    let counts = |answer| tried(&[answer]).grant_times(at(100)).count();
    assert_eq!(
        [
            counts(PodWriteResult::Granted),
            counts(PodWriteResult::Lost)
        ],
        [1, 1]
    );
    assert_eq!(
        [
            counts(PodWriteResult::Conflict),
            counts(denied()),
            counts(PodWriteResult::Gone)
        ],
        [0; 3]
    );
}

#[test]
fn a_later_version_that_is_not_granted_ends_all_doubt() {
    let mut later = pod("a").id;
    later.resource_version = "2".to_owned();
    for answers in [
        vec![PodWriteResult::Lost],
        vec![PodWriteResult::Conflict],
        vec![PodWriteResult::Lost, denied()],
    ] {
        assert_eq!(
            tried(&answers).patch_outcome(&later),
            PatchOutcome::NotApplied,
            "{answers:?}"
        );
    }
}

#[test]
fn a_pod_whose_grant_is_denied_is_left_alone_for_longer_each_time() {
    let until = |times: usize| {
        let memory = tried(&vec![denied(); times]);
        let denial = memory.denial(&pod("a").id.uid).cloned();
        denial.expect("a denial").until.as_second() - 100
    };
    assert_eq!([until(1), until(2), until(3), until(20)], [10, 20, 40, 600]);
}

#[test]
fn memory_is_empty_after_all_pods_jobs_and_placements_are_gone() {
    let mut memory = LeaderState::default();
    for number in 0..50 {
        let pod = pod(&format!("pod-{number}"));
        memory.placement_health_mut(&format!("placement-{number}"));
        memory.record_patch_sent(&pod.id);
        memory.record_grant_answer(&pod.id, denied(), at(100));
        memory.record_unmarkable(&format!("workload-{number}"), "no".to_owned(), at(100));
        for write in [PodWrite::RefusedSince, PodWrite::Release, PodWrite::Delete] {
            memory.record_write(&pod.id, write, &denied(), at(100));
        }
        memory.record_grant_answer(&pod.id, PodWriteResult::Unmarked("no".to_owned()), at(100));
        memory.record_lookup(&reservation(&pod, "me"), None);
        memory.evicted_from(&format!("job-{number}"), at(100));
    }
    memory.record_plan(
        &BurstPlan {
            stuck: vec!["uid-a".to_owned()],
            expired: vec!["uid-b".to_owned()],
            waiting: [("uid-c".to_owned(), at(100))].into(),
            ..BurstPlan::default()
        }
        .record(),
        &HashSet::new(),
        at(100),
    );
    memory.retain_backends(|_| false);
    memory.record_plan(&BurstPlan::default().record(), &HashSet::new(), at(100_000));
    let LeaderState {
        hold_starts: refused,
        granted_at: granted,
        last_patches: sent,
        denials: denied,
        settled_reservations: settled,
        failed_writes: failed,
        unmarked_pods: unmarked,
        unmarkable_workloads: unmarkable,
        evicted,
        placement_health: backends,
        rejected_templates: rejected,
        stuck,
        expired,
        waiting,
        last_peak: _,
        reservations_written_at: _,
    } = memory;
    assert!(refused.is_empty() && granted.is_empty() && sent.is_empty() && denied.is_empty());
    assert!(settled.is_empty() && failed.is_empty() && backends.is_empty());
    assert!(unmarked.is_empty() && unmarkable.is_empty() && rejected.0.is_empty());
    assert!(evicted.is_empty() && stuck.is_empty() && expired.is_empty() && waiting.is_empty());
}

#[test]
fn what_is_settled_of_one_version_is_not_of_the_next() {
    let mut memory = LeaderState::default();
    memory.record_lookup(&reservation(&pod("a"), "me"), None);
    let later = reservation(&pod("a").at_version("2"), "me");
    assert!(!memory.is_settled(&later));
}

#[test]
fn a_pod_that_was_looked_for_is_settled_if_it_is_gone_replaced_changed_or_home() {
    let entry = reservation(&pod("a"), "me");
    let is_settled = |found: Option<PodFacts>| {
        let mut memory = LeaderState::default();
        memory.record_lookup(&entry, found.as_ref());
        memory.is_settled(&entry)
    };
    assert!(is_settled(None));
    assert!(is_settled(Some(pod("another"))));
    assert!(!is_settled(Some(pod("a"))));
    let changed = pod("a").at_version("2");
    assert!(is_settled(Some(changed.clone())));
    assert!(!is_settled(Some(changed.granted("shop", "web", 1))));
    assert!(is_settled(Some(pod("a").on("home-1"))));
    assert!(!is_settled(Some(
        pod("a").granted("shop", "web", 1).on("burst-shop-weu")
    )));
}

fn refused(names: &[&str], action: RescueAction) -> BurstPlan {
    let rescues = names.iter().map(|name| NeverStarted {
        pod: pod(name).id,
        action,
        owner: None,
        why: String::new(),
        template_fault: Some(("web-1/".to_owned(), "no".to_owned())),
    });
    BurstPlan {
        faults: rescues.collect(),
        ..BurstPlan::default()
    }
}

#[test]
fn ten_pods_that_azure_refuses_at_once_count_as_one_refusal() {
    let mut memory = LeaderState::default();
    let names = ["a", "b", "c", "d", "e", "f", "g", "h", "i", "j"];
    let plan = refused(&names, RescueAction::Delete);
    memory.record_plan(&plan.record(), &HashSet::new(), at(0));
    assert_eq!(
        memory.rejected_templates(at(601)).count(),
        0,
        "the first time, for ten minutes"
    );
}

#[test]
fn refused_pods_that_stay_do_not_pause_their_template_forever() {
    let mut memory = LeaderState::default();
    let one = refused(&["a"], RescueAction::Report);
    let two = refused(&["a", "b"], RescueAction::Report);
    let mut single = LeaderState::default();
    for second in 0..20_000 {
        single.record_plan(&one.record(), &HashSet::new(), at(second));
        memory.record_plan(&two.record(), &HashSet::new(), at(second));
    }
    assert_eq!(single.rejected_templates(at(20_000)).count(), 0, "one");
    assert_eq!(memory.rejected_templates(at(20_000)).count(), 0, "two");
}

#[test]
fn an_eviction_counts_for_its_job_until_the_jobs_status_counts_it() {
    let mut memory = LeaderState::default();
    memory.evicted_from("j", at(100));
    memory.record_plan(&BurstPlan::default().record(), &HashSet::new(), at(105));
    for (job, now, is_counting) in [
        ("j", 100, true),
        ("j", 109, true),
        ("j", 110, false),
        ("other", 100, false),
    ] {
        assert_eq!(memory.is_counting(job, at(now)), is_counting, "{job} {now}");
    }
}
