//! Tests: decisions from scales as the API server returns them.

use serde_json::json;

use super::*;

#[test]
fn what_a_rollout_surges_by_or_lacks_changes_no_replicas() {
    let spec = json!({"minReplicas": 2, "maxReplicas": 40, "triggers": ["requests"]});
    let spec: WorkloadScale = serde_json::from_value(spec).expect("a scale");
    let set = |value: f64, there: i32| {
        let wish = ReplicaProposal::PerReplica {
            value,
            threshold: 100.0,
        };
        let scale =
            json!({"metadata": {}, "spec": {"replicas": 20}, "status": {"replicas": there}});
        let scale: Scale = serde_json::from_value(scale).expect("a scale");
        let wishes = [("requests".to_owned(), wish)];
        let now = Timestamp::UNIX_EPOCH;
        let decided = decide(&spec, &wishes, &scale, &mut ScalingHistory::default(), now);
        decided.step.replicas
    };
    for there in [0, 5, 18, 20, 22, 25, 40] {
        for within in [1_800.0, 2_000.0, 2_200.0] {
            assert_eq!(set(within, there), 20, "{within} with {there}");
        }
        assert_eq!(set(2_201.0, there), 23, "beyond with {there}");
    }
}

#[test]
fn a_scale_that_leaves_replicas_out_has_none() {
    let spec = json!({"minReplicas": 2, "maxReplicas": 40, "triggers": ["hours"]});
    let spec: WorkloadScale = serde_json::from_value(spec).expect("a scale");
    let wishes = [("hours".to_owned(), ReplicaProposal::Replicas(5))];
    let now = Timestamp::UNIX_EPOCH;
    let decided = decide(
        &spec,
        &wishes,
        &Scale::default(),
        &mut ScalingHistory::default(),
        now,
    );
    assert_eq!((decided.current, decided.step.replicas), (0, 0));
    assert!(
        decided
            .step
            .limited_by
            .is_some_and(|why| why.contains("0 replicas"))
    );
}
