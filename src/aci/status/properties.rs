//! Property tests: rules that hold for every pod and every answer of Azure.

use k8s_openapi::api::core::v1::{ContainerStatus, Pod, PodStatus};
use proptest::prelude::*;

use super::arbitrary::{group, pod, stored};
use super::*;
use crate::aci::events::pod_events;

/// The number of cases for each property.
const CASES: u32 = 500;

/// An owned version of [`GroupObservation`].
#[derive(Clone, Debug)]
enum SampleObservation {
    NotSubmitted,
    Refused,
    Waiting,
    Group(ContainerGroup),
    Vanished,
    Deleted(Option<ContainerGroup>),
}

fn observation() -> impl Strategy<Value = SampleObservation> {
    let read =
        || group().prop_map(|body| ContainerGroup::from_value(&body).expect("a group has a name"));
    prop_oneof![
        1 => Just(SampleObservation::NotSubmitted),
        1 => Just(SampleObservation::Refused),
        1 => Just(SampleObservation::Waiting),
        8 => read().prop_map(SampleObservation::Group),
        1 => Just(SampleObservation::Vanished),
        1 => prop::option::of(read()).prop_map(SampleObservation::Deleted),
    ]
}

fn at(second: i64) -> Timestamp {
    Timestamp::from_second(1_795_507_200 + second).expect("in range")
}

fn status(pod: &Pod, observation: &SampleObservation, second: i64) -> PodStatus {
    let refusals = [("spec.hostNetwork".to_owned(), "ACI has none".to_owned())];
    let observation = match observation {
        SampleObservation::NotSubmitted => GroupObservation::NotSubmitted,
        SampleObservation::Refused => GroupObservation::Rejected(&refusals),
        SampleObservation::Waiting => GroupObservation::Waiting {
            reason: "Throttled",
            message: "later",
        },
        SampleObservation::Group(group) => GroupObservation::Group(group),
        SampleObservation::Vanished => GroupObservation::Vanished,
        SampleObservation::Deleted(group) => GroupObservation::Deleted(group.as_ref()),
    };
    let facts = NodeFacts {
        host_ip: "10.1.0.1".parse().ok(),
        readiness: None,
        pre_stop: None,
    };
    pod_status(pod, &observation, &facts, at(second))
}

fn is_finished(status: &PodStatus) -> bool {
    matches!(status.phase.as_deref(), Some("Succeeded" | "Failed"))
}

/// Whether the API server would reject the new status (`ValidateContainerStateTransition`): a container that had
/// ended, and that its restart policy does not restart, has not ended in the new status.
fn revives(pod: &Pod, old: &PodStatus, new: &PodStatus) -> bool {
    let policy = pod
        .spec
        .as_ref()
        .and_then(|spec| spec.restart_policy.as_deref());
    let revived = |old: &ContainerStatus, new: &[ContainerStatus]| {
        let Some(end) = container_state::termination(old) else {
            return false;
        };
        let stays = policy == Some("Never") || (policy == Some("OnFailure") && end.exit_code == 0);
        let now = new.iter().find(|status| status.name == old.name);
        stays && now.is_some_and(|now| container_state::termination(now).is_none())
    };
    let lists = |status: &PodStatus| {
        [
            status.init_container_statuses.clone(),
            status.container_statuses.clone(),
        ]
    };
    let pairs = lists(old).into_iter().zip(lists(new));
    pairs.into_iter().any(|(old, new)| {
        // Of several containers with the same name, only the first is checked. Names in a real pod are unique.
        let (old, new) = (old.unwrap_or_default(), new.unwrap_or_default());
        let mut names = std::collections::BTreeSet::new();
        old.iter()
            .any(|old| names.insert(old.name.clone()) && revived(old, &new))
    })
}

fn names(statuses: Option<&Vec<ContainerStatus>>) -> Vec<&str> {
    statuses
        .into_iter()
        .flatten()
        .map(|status| status.name.as_str())
        .collect()
}

proptest! {
    #![proptest_config(ProptestConfig { cases: CASES, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn the_status_of_a_pod_only_advances(pod in pod(), observations in prop::collection::vec(observation(), 1..6)) {
        let mut pod = pod;
        for (step, observation) in (0i64..).zip(&observations) {
            let old = pod.status.clone().unwrap_or_default();
            let new = status(&pod, observation, step * 10);
            let spec = pod.spec.clone().unwrap_or_default();
            let wanted: Vec<_> = spec.containers.iter().map(|c| c.name.as_str()).collect();
            prop_assert_eq!(names(new.container_statuses.as_ref()), wanted);
            let init = spec.init_containers.unwrap_or_default();
            let wanted: Vec<_> = init.iter().map(|c| c.name.as_str()).collect();
            prop_assert_eq!(names(new.init_container_statuses.as_ref()), wanted);
            if is_finished(&old) {
                prop_assert_eq!(&new.phase, &old.phase);
            }
            if old.phase.as_deref() == Some("Running") {
                prop_assert_ne!(new.phase.as_deref(), Some("Pending"));
            }
            prop_assert!(!revives(&pod, &old, &new), "{:?}\n{:?}", old, new);
            let gone = matches!(observation, SampleObservation::Deleted(_) | SampleObservation::Vanished);
            let ended = is_finished(&new) && (gone || !is_finished(&old));
            let mut statuses = new.container_statuses.iter().flatten();
            prop_assert!(!ended || !statuses.any(|s| container_state::is_running(s) || s.ready));
            pod.status = Some(stored(&new));
        }
    }

    #[test]
    fn the_same_observation_does_not_change_the_status_again(pod in pod(), observation in observation()) {
        let mut pod = pod;
        let first = status(&pod, &observation, 0);
        prop_assert_eq!(&first, &status(&pod, &observation, 0), "deterministic");
        pod.status = Some(stored(&first));
        let second = status(&pod, &observation, 7);
        prop_assert!(is_same_status(&stored(&first), &second), "{:?}\n{:?}", first, second);
        prop_assert_eq!(&stored(&first), &stored(&second));
        prop_assert!(is_same_status(&first, &first));
    }

    #[test]
    fn a_patch_contains_no_fields_of_other_writers(pod in pod(), observation in observation()) {
        let patch = status_patch(&pod, &status(&pod, &observation, 0));
        let sent = patch["status"].as_object().expect("a status");
        prop_assert!(!sent.contains_key("qosClass"));
        let conditions = sent["conditions"].as_array().expect("conditions");
        for theirs in ["PodScheduled", "gate"] {
            prop_assert!(conditions.iter().all(|condition| condition["type"] != theirs));
        }
    }

    #[test]
    fn events_have_unique_and_stable_names(pod in pod(), body in group()) {
        let group = ContainerGroup::from_value(&body).expect("a group");
        let events = pod_events(&pod, &group);
        prop_assert_eq!(&events, &pod_events(&pod, &group));
        let names: std::collections::BTreeSet<_> = events.iter().map(|event| &event.name).collect();
        prop_assert_eq!(names.len(), events.len());
    }
}
