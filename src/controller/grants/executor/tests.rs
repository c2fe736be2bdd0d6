//! Tests: what is sent before and after the answer to a write of reservations, and the effect of each answer.

use jiff::Timestamp;
use kube::core::Status;
use serde_json::json;

use super::super::fixtures::{
    PendingCall, ScriptedServer, decision, executor, pool, reservation, term_counter,
};
use super::super::leadership::UNCONFIRMED_WRITE_TTL;
use super::pod_writes::answer_for_error;
use super::pool_writes::{WriteOutcome, failed_write_outcome, has_same_plan_inputs};
use super::*;
use crate::burst::decision::SlotState;
use crate::burst::leader_state::PatchOutcome;

const STATUS: &str = "PATCH burstpools/shop/status";
const READ: &str = "GET burstpools/shop";

/// A plan with grants of these pods: those in `reserved` have a reservation already, those in `wanted` need
/// one.
fn plan(reserved: &[&str], wanted: &[&str]) -> BurstPlan {
    let slots = [
        (reserved, SlotState::Reserved),
        (wanted, SlotState::ToReserve),
    ];
    let decisions = slots
        .iter()
        .flat_map(|(names, slot)| names.iter().map(|name| decision(name, *slot)));
    BurstPlan {
        decisions: decisions.collect(),
        must_write_reservations: !wanted.is_empty(),
        reservations: [reserved, wanted]
            .concat()
            .into_iter()
            .map(reservation)
            .collect(),
        ..BurstPlan::default()
    }
}

fn grants(call: &PendingCall, name: &str) -> bool {
    call.what == format!("PATCH pods/{name}")
}

fn version(call: &PendingCall) -> &str {
    let version = &call.body["metadata"]["resourceVersion"];
    version.as_str().expect("a version")
}

#[tokio::test(start_paused = true)]
async fn reserved_grants_are_sent_at_once_and_others_after_their_reservation_is_written() {
    let own_pool = pool("1", "us-1");
    let (mut server, client) = ScriptedServer::new();
    let (executor, plan) = (
        executor(&own_pool, &["a", "b"], &client),
        plan(&["a"], &["b"]),
    );
    let mut state = PoolLeaderState::new(&own_pool, &mut term_counter());
    let answers = async {
        let [write, a] = server.next_two_calls().await;
        assert!(
            write.what == STATUS && grants(&a, "a"),
            "{} {}",
            write.what,
            a.what
        );
        assert_eq!(
            write.body["status"]["reservations"],
            json!([reservation("a"), reservation("b")])
        );
        assert_eq!(
            (version(&write), &write.body["status"]["leader"]),
            ("1", &json!("us-1"))
        );
        a.respond_patched("a");
        server.expect_nothing().await;
        write.respond(&pool("2", "us-1"));
        let b = server.expect("PATCH pods/b").await;
        b.respond_patched("b");
    };
    let (again, ()) = tokio::join!(executor.execute(&plan, &mut state), answers);
    assert!(!again);
    assert_eq!(server.events().await, ["Granted a", "Granted b"]);
}

#[tokio::test(start_paused = true)]
async fn after_a_conflict_pods_are_granted_only_if_the_inputs_of_the_plan_are_the_same() {
    let mut changed = pool("2", "us-1");
    changed.metadata.generation = Some(2);
    let cases = [
        (Some(changed), None),
        (None, None),
        (Some(pool("2", "us-1")), Some(409)),
        (Some(pool("2", "us-1")), Some(200)),
    ];
    for (found, second) in cases {
        let own_pool = pool("1", "us-1");
        let (mut server, client) = ScriptedServer::new();
        let (executor, plan) = (
            executor(&own_pool, &["a", "b"], &client),
            plan(&[], &["a", "b"]),
        );
        let mut state = PoolLeaderState::new(&own_pool, &mut term_counter());
        let answers = async {
            server.expect(STATUS).await.respond_error(409);
            let read = server.expect(READ).await;
            match &found {
                Some(found) => read.respond(found),
                None => read.respond_error(404),
            }
            let Some(code) = second else { return };
            let write = server.expect(STATUS).await;
            assert_eq!(version(&write), "2");
            if code == 200 {
                write.respond(&pool("3", "us-1"));
            } else {
                write.respond_error(code);
            }
        };
        let (again, ()) = tokio::join!(executor.execute(&plan, &mut state), answers);
        if second == Some(200) {
            for name in ["a", "b"] {
                assert!(grants(&server.next_call().await, name));
            }
        }
        server.expect_nothing().await;
        assert_eq!(
            (again, state.in_flight.is_idle()),
            (second != Some(200), second != Some(200))
        );
        assert!(!state.unconfirmed_write.is_pending(&own_pool));
    }
}

#[tokio::test(start_paused = true)]
async fn the_result_of_one_grant_does_not_affect_the_others() {
    let own_pool = pool("1", "us-1");
    let answers = [
        ("a", 403),
        ("b", 422),
        ("c", 404),
        ("d", 409),
        ("e", 500),
        ("f", 200),
    ];
    let names = answers.map(|(name, _)| name);
    let (mut server, client) = ScriptedServer::new();
    let (executor, plan) = (executor(&own_pool, &names, &client), plan(&names, &[]));
    let mut state = PoolLeaderState::new(&own_pool, &mut term_counter());
    assert!(!executor.execute(&plan, &mut state).await);
    for (name, code) in answers {
        let call = server.expect(&format!("PATCH pods/{name}")).await;
        match code {
            200 => call.respond_patched(name),
            code => call.respond_error(code),
        }
    }
    executor.grant_sender.tasks.close();
    executor.grant_sender.tasks.wait().await;
    assert!(state.drain_results(&own_pool) && state.in_flight.is_idle());
    let attempts = names.map(|name| {
        state
            .leader_state
            .patch_outcome(&decision(name, SlotState::Reserved).pod)
    });
    let (undone, awaited) = (PatchOutcome::NotApplied, PatchOutcome::Pending);
    let all = [
        undone,
        undone,
        undone,
        awaited,
        PatchOutcome::Unknown,
        awaited,
    ];
    assert_eq!(attempts, all);
    assert_eq!(server.events().await, ["Granted f"]);
    let snapshot = executor.parts.cache.snapshot();
    assert_eq!(
        snapshot.labelled.keys().collect::<Vec<_>>(),
        ["f"],
        "it counts at once"
    );
}

#[tokio::test(start_paused = true)]
async fn pods_are_not_written_while_a_write_of_the_pool_is_unconfirmed() {
    let own_pool = pool("1", "us-1");
    let (mut server, client) = ScriptedServer::new();
    let mut executor = executor(&own_pool, &["a", "b"], &client);
    let mut state = PoolLeaderState::new(&own_pool, &mut term_counter());
    // The answer is lost, or says that the result is unknown.
    for code in [None, Some(500), Some(504)] {
        let answers = async {
            let write = server.expect(STATUS).await;
            if let Some(code) = code {
                write.respond_error(code);
            }
        };
        let plan = plan(&[], &["a"]);
        let (again, ()) = tokio::join!(executor.execute(&plan, &mut state), answers);
        assert!(
            again && state.in_flight.is_idle() && state.unconfirmed_write.is_pending(&own_pool),
            "{code:?}"
        );
        server.expect_nothing().await;
    }
    // The unconfirmed write may remove even an older reservation.
    let released = BurstPlan {
        releases: vec![decision("b", SlotState::None).pod],
        ..plan(&["a"], &[])
    };
    for _ in 0..2 {
        let read = async { server.expect(READ).await.respond(&own_pool) };
        let (again, ()) = tokio::join!(executor.execute(&released, &mut state), read);
        assert!(
            again && state.in_flight.is_idle() && state.unconfirmed_write.is_pending(&own_pool)
        );
        server.expect_nothing().await;
    }
    // The pool is read again after no API server can still process the write.
    tokio::time::advance(UNCONFIRMED_WRITE_TTL).await;
    let read = async { server.expect(READ).await.respond(&own_pool) };
    let (again, ()) = tokio::join!(executor.execute(&released, &mut state), read);
    assert!(again && state.in_flight.is_idle() && !state.unconfirmed_write.is_pending(&own_pool));
    // The same if the pool has another version.
    state.unconfirmed_write.set(&own_pool);
    executor.pool = std::sync::Arc::new(pool("2", "us-1"));
    let sent = async {
        let [a, release] = server.next_two_calls().await;
        assert!(grants(&a, "a"));
        release.respond_error(409);
    };
    let (again, ()) = tokio::join!(executor.execute(&released, &mut state), sent);
    assert!(again && !state.in_flight.is_idle());
}

#[test]
fn a_reservation_is_written_again_only_if_the_inputs_of_the_plan_are_the_same() {
    let pool = |generation: i64, leader: &str, reserved: &str, spilled: u32| -> BurstPool {
        let reservation = json!({"uid": reserved, "namespace": "default", "name": "web-1",
            "workload": "web", "holder": leader, "resourceVersion": "3"});
        let pool = json!({
            "apiVersion": "burstpool.io/v1alpha1", "kind": "BurstPool",
            "metadata": {"name": "shop", "uid": "u", "generation": generation},
            "spec": {"azure": {}, "placements": [{"name": "a", "region": "westeurope"}]},
            "status": {"leader": leader, "reservations": [reservation],
                "pods": {"spilled": spilled}},
        });
        serde_json::from_value(pool).expect("a pool")
    };
    let planned = pool(1, "us", "a", 3);
    assert!(has_same_plan_inputs(&planned, &pool(1, "us", "a", 4)));
    for other in [
        pool(2, "us", "a", 3),
        pool(1, "them", "a", 3),
        pool(1, "us", "b", 3),
    ] {
        assert!(!has_same_plan_inputs(&planned, &other));
    }
    let mut again = planned.clone();
    again.metadata.uid = Some("v".to_owned());
    assert!(!has_same_plan_inputs(&planned, &again));
}

#[test]
fn the_answer_to_a_patch_follows_from_its_status_code() {
    let answered =
        |code, reason: &str| answer_for_error(Status::failure("no", reason).with_code(code));
    assert_eq!(answered(409, "Conflict"), PodWriteResult::Conflict);
    assert_eq!(answered(404, "NotFound"), PodWriteResult::Gone);
    let page = answered(404, "Failed to parse error data");
    assert_eq!(page, PodWriteResult::Lost, "a proxy's");
    for code in [400, 403, 422] {
        assert_eq!(answered(code, ""), PodWriteResult::Denied("no".to_owned()));
    }
    for code in [401, 408, 429, 500, 503, 504] {
        assert_eq!(answered(code, ""), PodWriteResult::Lost, "{code}");
    }
}

#[test]
fn only_a_write_that_may_still_take_effect_is_unconfirmed() {
    for (code, expected) in [
        (400, WriteOutcome::Rejected),
        (401, WriteOutcome::Rejected),
        (403, WriteOutcome::Rejected),
        (408, WriteOutcome::Unknown),
        (422, WriteOutcome::Rejected),
        (429, WriteOutcome::Rejected),
        (500, WriteOutcome::Unknown),
        (503, WriteOutcome::Unknown),
        (504, WriteOutcome::Unknown),
    ] {
        let status = kube::core::Status::failure("", "").with_code(code);
        let error = kube::Error::Api(Box::new(status));
        assert_eq!(failed_write_outcome(&error), expected, "{code}");
    }
}

#[tokio::test(start_paused = true)]
async fn denied_writes_of_pods_and_of_the_pool_are_not_repeated_at_once() {
    let own_pool = pool("1", "us-1");
    let (mut server, client) = ScriptedServer::new();
    let executor = executor(&own_pool, &["a"], &client);
    let mut state = PoolLeaderState::new(&own_pool, &mut term_counter());
    let pod = decision("a", SlotState::None).pod;
    let stamped = BurstPlan {
        refused_since_stamps: vec![RefusedSinceStamp {
            pod: pod.clone(),
            since: Timestamp::UNIX_EPOCH,
        }],
        ..BurstPlan::default()
    };
    let answers = async { server.expect("PATCH pods/a").await.respond_error(403) };
    tokio::join!(executor.execute(&stamped, &mut state), answers);
    let pause = state
        .leader_state
        .write_retry_at(PodWrite::RefusedSince, &pod.uid);
    assert!(pause.is_some_and(|until| Timestamp::now() < until));

    let wanted = plan(&[], &["a"]);
    for pause in [1, 2, 4, 8] {
        let began = tokio::time::Instant::now();
        let answers = async { server.expect(STATUS).await.respond_error(422) };
        let (again, ()) = tokio::join!(executor.execute(&wanted, &mut state), answers);
        let waited = began.elapsed().as_secs();
        assert_eq!((again, waited), (true, pause));
    }
}

#[tokio::test(start_paused = true)]
async fn a_grant_that_a_webhook_strips_is_denied_or_incomplete() {
    let own_pool = pool("1", "us-1");
    for (removed, may_run) in [("metadata", true), ("spec", false)] {
        let (mut server, client) = ScriptedServer::new();
        let executor = executor(&own_pool, &["a"], &client);
        let mut state = PoolLeaderState::new(&own_pool, &mut term_counter());
        let answers = async {
            let call = server.expect("PATCH pods/a").await;
            let pod = super::super::fixtures::apply_patch("a", &call.body);
            let mut pod = serde_json::to_value(pod).expect("JSON");
            match removed {
                "metadata" => pod["metadata"]["labels"] = json!({}),
                _ => pod["spec"]["tolerations"] = json!([]),
            }
            call.respond(&pod);
        };
        let plan = plan(&["a"], &[]);
        tokio::join!(executor.execute(&plan, &mut state), answers);
        executor.parts.cache.changed.notified().await;
        assert!(state.drain_results(&own_pool));
        assert_eq!(state.leader_state.is_unmarked("a"), may_run, "{removed}");
        assert_eq!(
            state.leader_state.denial("a").is_some(),
            !may_run,
            "{removed}"
        );
        let events = server.events().await;
        assert_eq!(events == ["GrantIncomplete a"], may_run, "{events:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn an_expired_grant_is_reported_after_its_pod_is_marked_and_never_in_a_dry_run() {
    for (code, expected_events) in [(200, vec!["GrantExpired a"]), (409, vec![]), (403, vec![])] {
        let own_pool = pool("1", "us-1");
        let (mut server, client) = ScriptedServer::new();
        let executor = executor(&own_pool, &["a"], &client);
        let mut state = PoolLeaderState::new(&own_pool, &mut term_counter());
        let expiry = GrantExpiry {
            pod: decision("a", SlotState::None).pod,
            why: "no zone".to_owned(),
        };
        let mut plan = BurstPlan {
            expiries: vec![expiry.clone()],
            ..BurstPlan::default()
        };
        let answers = async {
            let call = server.expect("PATCH pods/a").await;
            assert!(call.body.to_string().contains("grant-expired-at"));
            if code == 200 {
                call.respond_patched("a");
            } else {
                call.respond_error(code);
            }
        };
        tokio::join!(executor.execute(&plan, &mut state), answers);
        assert_eq!(server.events().await, expected_events, "{code}");
        let paused = state
            .leader_state
            .write_retry_at(PodWrite::Expire, &expiry.pod.uid);
        assert_eq!(paused.is_some(), code != 200, "{code}");

        plan.is_dry_run = true;
        executor.execute(&plan, &mut state).await;
        server.expect_nothing().await;
    }
}
