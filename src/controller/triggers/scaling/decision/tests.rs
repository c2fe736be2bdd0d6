//! Tests: decisions from scales as the API server returns them.

use serde_json::json;

use super::*;

#[test]
fn a_rollout_with_more_or_fewer_pods_changes_no_replicas() {
    let spec = json!({"minReplicas": 2, "maxReplicas": 40, "triggers": ["requests"]});
    let spec: WorkloadScale = serde_json::from_value(spec).expect("a scale");
    let replicas_for = |value: f64, status_replicas: i32| {
        let proposal = ReplicaProposal::PerReplica {
            value,
            threshold: 100.0,
        };
        let scale = json!({"metadata": {}, "spec": {"replicas": 20}, "status": {"replicas": status_replicas}});
        let scale: Scale = serde_json::from_value(scale).expect("a scale");
        let proposals = [("requests".to_owned(), proposal)];
        let now = Timestamp::UNIX_EPOCH;
        let decided = decide(
            &spec,
            &proposals,
            &scale,
            &mut ScalingHistory::default(),
            now,
        );
        decided.step.replicas
    };
    for status_replicas in [0, 5, 18, 20, 22, 25, 40] {
        for value in [1_800.0, 2_000.0, 2_200.0] {
            assert_eq!(
                replicas_for(value, status_replicas),
                20,
                "{value} with {status_replicas}"
            );
        }
        assert_eq!(
            replicas_for(2_201.0, status_replicas),
            23,
            "beyond with {status_replicas}"
        );
    }
}

#[test]
fn a_scale_that_leaves_replicas_out_has_none() {
    let spec = json!({"minReplicas": 2, "maxReplicas": 40, "triggers": ["hours"]});
    let spec: WorkloadScale = serde_json::from_value(spec).expect("a scale");
    let proposals = [("hours".to_owned(), ReplicaProposal::Replicas(5))];
    let now = Timestamp::UNIX_EPOCH;
    let decision = decide(
        &spec,
        &proposals,
        &Scale::default(),
        &mut ScalingHistory::default(),
        now,
    );
    assert_eq!((decision.current, decision.step.replicas), (0, 0));
    assert!(
        decision
            .step
            .limited_by
            .is_some_and(|why| why.contains("0 replicas"))
    );
}
