//! Pod conditions, with the kubelet's reasons and messages.
//!
//! In: the inputs of the status, the phase and the container statuses. Out: the node's conditions, followed by
//! those of other writers, unchanged. A transition time changes only together with the condition's status.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::{Container, ContainerStatus, PodCondition};

use super::phase::{FAILED, PhaseOutcome, SUCCEEDED};
use super::pre_stop::{PRE_STOP, PreStopProgress, PreStopRecord};
use super::{
    MAINTENANCE, NOT_FOUND, REPAIRING, STOPPED, StatusInput, container, container_state,
    whole_seconds,
};
use crate::aci::response::Provisioning;
use crate::k8s::containers::{container_statuses, has_sidecar, lasting_containers};

/// The types of the conditions that only a node's agent writes.
const OWN_CONDITIONS: [&str; 7] = [
    "PodReadyToStartContainers",
    "Initialized",
    "Ready",
    "ContainersReady",
    "PodResizePending",
    PROBES_REACH,
    PRE_STOP,
];
/// The type of the condition that says why probes of the node cannot decide; absent if they can.
pub const PROBES_REACH: &str = "burstpool.io/ProbesReach";
const DISRUPTION_TARGET: &str = "DisruptionTarget";

/// Whether this node writes the condition. `DisruptionTarget` has many writers; the node's own is recognized by its
/// reason.
pub fn is_own_condition(condition: &PodCondition) -> bool {
    OWN_CONDITIONS.contains(&condition.type_.as_str())
        || (condition.type_ == DISRUPTION_TARGET
            && [MAINTENANCE, NOT_FOUND, STOPPED]
                .map(Some)
                .contains(&condition.reason.as_deref()))
}

/// The value of a condition: status, reason and message.
struct ConditionValue(bool, Option<&'static str>, Option<String>);

impl ConditionValue {
    fn met() -> Self {
        Self(true, None, None)
    }

    fn unmet(reason: &'static str, message: String) -> Self {
        Self(
            false,
            Some(reason),
            Some(message).filter(|message| !message.is_empty()),
        )
    }
}

/// All conditions of the pod.
pub fn pod_conditions(
    case: &StatusInput,
    outcome: &PhaseOutcome,
    init: &[ContainerStatus],
    containers: &[ContainerStatus],
) -> Vec<PodCondition> {
    let phase = outcome.phase;
    let others: Vec<PodCondition> = live_conditions(case)
        .iter()
        .filter(|condition| !is_own_condition(condition))
        .cloned()
        .collect();
    let ready = containers_ready(case, phase, init, containers);
    let gated = ready_with_gates(case, &ready, &others);
    let mut conditions = vec![
        build_condition(
            case,
            OWN_CONDITIONS[0],
            has_sandbox(case, phase, init, containers),
        ),
        build_condition(
            case,
            OWN_CONDITIONS[1],
            initialized(case, phase, init, containers),
        ),
        build_condition(case, OWN_CONDITIONS[2], gated),
        build_condition(case, OWN_CONDITIONS[3], ready),
    ];
    if let Some(resize) = resize_pending(case) {
        conditions.push(build_condition(case, OWN_CONDITIONS[4], resize));
    }
    if let Some(blocked) = probes_reach(case, phase) {
        conditions.push(build_condition(case, PROBES_REACH, blocked));
    }
    if let Some(progress) = pre_stop(case) {
        conditions.push(build_condition(case, PRE_STOP, progress));
    }
    let is_disrupted = others
        .iter()
        .any(|condition| condition.type_ == DISRUPTION_TARGET);
    if let Some(value) = disruption_target(outcome, containers).filter(|_| !is_disrupted) {
        conditions.push(build_condition(case, DISRUPTION_TARGET, value));
    }
    conditions.extend(others);
    conditions
}

fn live_conditions<'a>(case: &StatusInput<'a>) -> &'a [PodCondition] {
    case.live.conditions.as_deref().unwrap_or_default()
}

fn build_condition(
    case: &StatusInput,
    kind: &str,
    ConditionValue(is_true, reason, message): ConditionValue,
) -> PodCondition {
    let status = if is_true { "True" } else { "False" };
    let old = live_conditions(case)
        .iter()
        .find(|old| old.type_ == kind && old.status == status);
    let since = old.and_then(|old| old.last_transition_time.clone());
    PodCondition {
        type_: kind.to_owned(),
        status: status.to_owned(),
        reason: reason.map(str::to_owned),
        message,
        last_transition_time: since.or_else(|| Some(whole_seconds(case.now))),
        observed_generation: case.observed_generation(),
        last_probe_time: None,
    }
}

/// `PodReadyToStartContainers`. For a kubelet, it means that the sandbox and its network exist. Here, it means that
/// Azure has assigned a machine: an image was pulled, a container has run, or the address is known.
fn has_sandbox(
    case: &StatusInput,
    phase: &str,
    init: &[ContainerStatus],
    containers: &[ContainerStatus],
) -> ConditionValue {
    let group = case.group().filter(|_| !case.is_gone());
    let has_address = group.is_some_and(|group| group.ip().is_some());
    let mut statuses = init.iter().chain(containers);
    let has_started = statuses
        .any(|status| container_state::has_run(status) || container::was_pulled(case, status));
    let is_over = matches!(phase, SUCCEEDED | FAILED);
    ConditionValue(!is_over && (has_address || has_started), None, None)
}

/// `Initialized`: the init containers have ended with exit code 0, and the sidecars have started. A sidecar that starts
/// again does not take the condition back.
fn initialized(
    case: &StatusInput,
    phase: &str,
    init: &[ContainerStatus],
    containers: &[ContainerStatus],
) -> ConditionValue {
    let is_incomplete = |status: &ContainerStatus| {
        if has_sidecar(case.spec, &status.name) {
            status.started != Some(true)
        } else {
            container_state::termination(status).is_none_or(|end| end.exit_code != 0)
        }
    };
    let was_met = |old: &PodCondition| old.type_ == OWN_CONDITIONS[1] && old.status == "True";
    let was_initialized = case.has_run()
        || containers.iter().any(container_state::has_run)
        || live_conditions(case).iter().any(was_met);
    let only_sidecars = init
        .iter()
        .all(|status| !is_incomplete(status) || has_sidecar(case.spec, &status.name));
    let names = container_names(init, is_incomplete);
    let is_met = names.is_empty() || (only_sidecars && was_initialized);
    if is_met {
        ConditionValue(true, (phase == SUCCEEDED).then_some("PodCompleted"), None)
    } else {
        ConditionValue::unmet(
            "ContainersNotInitialized",
            format!("containers with incomplete status: {names}"),
        )
    }
}

/// `ContainersReady`: the sidecars and the containers are ready.
fn containers_ready(
    case: &StatusInput,
    phase: &str,
    init: &[ContainerStatus],
    containers: &[ContainerStatus],
) -> ConditionValue {
    match phase {
        SUCCEEDED => return ConditionValue::unmet("PodCompleted", String::new()),
        FAILED => return ConditionValue::unmet("PodFailed", String::new()),
        _ => {}
    }
    if let Some(state) = case.unready_state() {
        let reason = if *state == Provisioning::Deleting {
            "Deleting"
        } else {
            REPAIRING
        };
        let message = format!("Azure says that the container group is {}", state.as_str());
        return ConditionValue::unmet(reason, message);
    }
    let sidecars = init.iter();
    let sidecars = sidecars.filter(|status| has_sidecar(case.spec, &status.name));
    let lasting: Vec<ContainerStatus> = sidecars.chain(containers).cloned().collect();
    let names = container_names(&lasting, |status| !status.ready);
    if names.is_empty() && !containers.is_empty() {
        ConditionValue::met()
    } else {
        ConditionValue::unmet(
            "ContainersNotReady",
            format!("containers with unready status: {names}"),
        )
    }
}

/// `Ready`: the containers are ready, and the condition of every readiness gate is True.
fn ready_with_gates(
    case: &StatusInput,
    ready: &ConditionValue,
    others: &[PodCondition],
) -> ConditionValue {
    let ConditionValue(true, ..) = ready else {
        return ConditionValue(ready.0, ready.1, ready.2.clone());
    };
    let problem = |kind: &String| {
        let status = others
            .iter()
            .find(|other| other.type_ == *kind)
            .map(|other| &other.status);
        match status.map(String::as_str) {
            Some("True") => None,
            Some(status) => Some(format!(
                "the status of pod readiness gate \"{kind}\" is not \"True\", but {status}"
            )),
            None => Some(format!(
                "corresponding condition of pod readiness gate \"{kind}\" does not exist."
            )),
        }
    };
    let gates = case.spec.readiness_gates.iter().flatten();
    let problems: Vec<String> = gates
        .filter_map(|gate| problem(&gate.condition_type))
        .collect();
    if problems.is_empty() {
        ConditionValue::met()
    } else {
        ConditionValue::unmet("ReadinessGatesNotReady", problems.join(", "))
    }
}

/// `PodResizePending`: an in-place resize (KEP-1287) is infeasible, because to change a container group ACI
/// restarts it or needs another one.
fn resize_pending(case: &StatusInput) -> Option<ConditionValue> {
    let statuses = container_statuses(case.live);
    let differs = |container: &&Container| {
        let mut statuses = statuses.clone();
        let status = statuses.find(|status| status.name == container.name);
        let Some(allocated) = status.and_then(|status| status.resources.as_ref()) else {
            return false;
        };
        let requested = container.resources.clone().unwrap_or_default();
        !is_same(requested.requests.as_ref(), allocated.requests.as_ref())
            || !is_same(requested.limits.as_ref(), allocated.limits.as_ref())
    };
    let resized: Vec<_> = lasting_containers(case.spec).filter(differs).collect();
    let names: Vec<_> = resized
        .iter()
        .map(|container| container.name.as_str())
        .collect();
    (!names.is_empty() && !case.is_finished()).then(|| {
        let message = format!(
            "Azure Container Instances cannot resize a running container: {}",
            names.join(", ")
        );
        ConditionValue(true, Some("Infeasible"), Some(message))
    })
}

fn is_same<T: PartialEq>(
    left: Option<&BTreeMap<String, T>>,
    right: Option<&BTreeMap<String, T>>,
) -> bool {
    match (left, right) {
        (Some(map), None) | (None, Some(map)) => map.is_empty(),
        (left, right) => left == right,
    }
}

/// [`PROBES_REACH`]: the node does not reach the pod, so the readiness of its containers is that of an earlier time.
fn probes_reach(case: &StatusInput, phase: &str) -> Option<ConditionValue> {
    if matches!(phase, SUCCEEDED | FAILED) || case.is_gone() {
        return None;
    }
    let containers = case.readiness?.values();
    let blocked: Vec<_> = containers
        .filter_map(|container| container.blocked.as_ref())
        .collect();
    let reason = blocked.first()?.reason;
    let mut messages: Vec<&str> = blocked.iter().map(|blocked| &*blocked.message).collect();
    messages.dedup();
    Some(ConditionValue::unmet(reason, messages.join("; ")))
}

/// [`PRE_STOP`]: how far the hooks are. When the group is gone, none runs.
fn pre_stop(case: &StatusInput) -> Option<ConditionValue> {
    let recorded = || PreStopRecord::of(case.pod).map(|record| record.progress);
    let progress: PreStopProgress = case.pre_stop.cloned().or_else(recorded)?;
    Some(match progress.message().filter(|_| !case.is_gone()) {
        Some(message) => ConditionValue::unmet("Running", message),
        None => ConditionValue(true, Some("Completed"), None),
    })
}

/// `DisruptionTarget`: the platform caused the failure, not the program. A Job's `podFailurePolicy` can ignore it.
fn disruption_target(
    outcome: &PhaseOutcome,
    containers: &[ContainerStatus],
) -> Option<ConditionValue> {
    if outcome.phase != FAILED {
        return None;
    }
    let reason = outcome.reason.as_deref();
    if let Some(reason) = [NOT_FOUND, STOPPED]
        .into_iter()
        .find(|known| reason == Some(*known))
    {
        return Some(ConditionValue(true, Some(reason), outcome.message.clone()));
    }
    let mut ends = containers.iter().filter_map(container_state::termination);
    let by_maintenance =
        ends.any(|end| container_state::MAINTENANCE_EXIT_CODES.contains(&end.exit_code));
    by_maintenance.then(|| {
        let message = "a container was ended by maintenance of Azure's platform".to_owned();
        ConditionValue(true, Some(MAINTENANCE), Some(message))
    })
}

/// The names of the matching containers, in the kubelet's format.
fn container_names(
    statuses: &[ContainerStatus],
    which: impl Fn(&ContainerStatus) -> bool,
) -> String {
    let names: Vec<_> = statuses
        .iter()
        .filter(|status| which(status))
        .map(|status| status.name.as_str())
        .collect();
    if names.is_empty() {
        String::new()
    } else {
        format!("[{}]", names.join(" "))
    }
}
