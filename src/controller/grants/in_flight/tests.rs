use serde_json::json;

use super::super::fixtures::{ScriptedServer, apply_patch, decision, executor, pool, term_counter};
use super::super::leadership::PoolLeaderState;
use super::*;
use crate::api::LossSet;
use crate::api::names::GRANTED_AT_ANNOTATION;
use crate::burst::decision::SlotState;
use crate::burst::leader_state::PatchOutcome;
use crate::burst::{BurstPlan, PodFacts, PodOutcome};

#[tokio::test]
async fn another_term_of_a_pool_is_planned_only_when_no_grant_is_in_flight() {
    let (own_pool, other_pool) = (pool("1", "us-1"), pool("1", "them-1"));
    let mut state = PoolLeaderState::new(&own_pool, &mut term_counter());
    // The pod has changed and does not wait now.
    let executor = executor(&own_pool, &[], &ScriptedServer::new().1);
    let decision = decision("web-1", SlotState::Reserved);
    state
        .in_flight
        .send(&decision, &executor, &mut state.leader_state);
    assert_eq!(
        state.leader_state.patch_outcome(&decision.pod),
        PatchOutcome::Pending
    );
    assert!(
        state.drain_results(&own_pool),
        "others may be granted meanwhile"
    );
    assert!(!state.drain_results(&other_pool));

    executor.parts.cache.changed.notified().await;
    assert!(state.drain_results(&other_pool));
    assert!(state.in_flight.is_idle());
}

#[tokio::test]
async fn cancelled_and_unwanted_grants_are_answered() {
    let own_pool = pool("1", "us-1");
    let mut state = PoolLeaderState::new(&own_pool, &mut term_counter());
    let executor = executor(&own_pool, &["web-1"], &ScriptedServer::new().1);
    executor.grant_sender.cancel.cancel();
    let decision = decision("web-1", SlotState::Reserved);
    state
        .in_flight
        .send(&decision, &executor, &mut state.leader_state);
    executor.parts.cache.changed.notified().await;
    assert!(state.drain_results(&own_pool) && state.in_flight.is_idle());
    assert_eq!(
        state.leader_state.patch_outcome(&decision.pod),
        PatchOutcome::Unknown
    );

    let grant = |pool: BurstPool| GrantRequest {
        parts: executor.parts.clone(),
        pool: Arc::new(pool),
        pod: None,
        decision: decision.clone(),
        notifier: executor.grant_sender.notifier.clone(),
    };
    assert!(grant(own_pool).is_still_wanted("shop"));
    assert!(!grant(pool("1", "them-1")).is_still_wanted("shop"));
    assert!(!grant(pool("1", "us-1")).is_still_wanted("another"));
}

#[tokio::test]
async fn a_grant_is_not_sent_if_the_pool_no_longer_accepts_what_the_pod_loses() {
    let accepting = |losses: &[&str]| {
        let mut pool = pool("1", "us-1");
        let web = json!({"name": "web", "selector": {"namespaceSelector": {}, "podSelector": {}}});
        pool.spec.workloads = vec![serde_json::from_value(web).expect("a workload")];
        pool.spec.spill = serde_json::from_value(json!({"accept": losses})).expect("limits");
        pool
    };
    let planned_with = accepting(&["fsGroup", "seccomp"]);
    let mut decision = decision("web-1", SlotState::Reserved);
    decision.outcome = PodOutcome::Grant {
        placement: "a".to_owned(),
        not_kept: LossSet::from_annotation("fsGroup"),
    };
    for (now, is_wanted) in [
        (planned_with.clone(), true),
        (accepting(&["fsGroup"]), true),
        (accepting(&["seccomp"]), false),
        (accepting(&[]), false),
        (pool("1", "us-1"), false),
    ] {
        // The pool in the cache is newer than that of the plan.
        let executor = executor(&now, &["web-1"], &ScriptedServer::new().1);
        let grant = GrantRequest {
            parts: executor.parts.clone(),
            pool: Arc::new(planned_with.clone()),
            pod: None,
            decision: decision.clone(),
            notifier: executor.grant_sender.notifier.clone(),
        };
        assert_eq!(grant.is_still_wanted("shop"), is_wanted, "{:?}", now.spec);
    }
}

#[tokio::test(start_paused = true)]
async fn a_grant_without_an_answer_gets_one_event_when_its_pod_shows_it() {
    let own_pool = pool("1", "us-1");
    let mut state = PoolLeaderState::new(&own_pool, &mut term_counter());
    let (mut server, client) = ScriptedServer::new();
    let mut executor = executor(&own_pool, &["done", "undone", "again"], &client);
    let mut labelled = std::collections::HashMap::new();
    for name in ["done", "undone", "again"] {
        let decision = decision(name, SlotState::Reserved);
        state
            .in_flight
            .send(&decision, &executor, &mut state.leader_state);
        let mut call = server.expect(&format!("PATCH pods/{name}")).await;
        if name == "again" {
            // The pod gets the grant of another writer.
            let annotations = &mut call.body[3]["value"];
            annotations[GRANTED_AT_ANNOTATION] = "2026-01-01T00:00:00Z".into();
        }
        let pod = apply_patch(name, &call.body);
        if name != "undone" {
            let facts = PodFacts::from_pod(&pod).expect("a pod");
            labelled.insert(name.to_owned(), Arc::new(facts));
        }
        drop(call);
        executor.parts.cache.changed.notified().await;
        assert!(state.drain_results(&own_pool));
    }
    executor.execute(&BurstPlan::default(), &mut state).await;
    assert_eq!(server.events().await, Vec::<String>::new());
    let mut snapshot = (*executor.snapshot).clone();
    snapshot.labelled = labelled;
    executor.snapshot = Arc::new(snapshot);
    for _ in 0..2 {
        executor.execute(&BurstPlan::default(), &mut state).await;
        assert_eq!(server.events().await, ["Granted done"]);
    }
}
