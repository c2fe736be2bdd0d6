//! The statuses of a pod's containers: every one of the spec, in the spec's order.
//!
//! In: the case. Out: `ContainerStatus`es, before the pod's phase is known; an end that the phase
//! brings with it is added afterwards ([`phase`](super::phase)).

use k8s_openapi::api::core::v1::{
    Container, ContainerState, ContainerStatus, ResourceRequirements,
};

use super::{Case, Part, Policy, run, waiting};
use crate::aci::view::{self, ContainerView, Group, Provisioning};

/// The statuses of the init containers, given those of the containers that wait for them.
pub fn init(case: &Case, containers: &[ContainerStatus]) -> Vec<ContainerStatus> {
    let live = case
        .live
        .init_container_statuses
        .as_deref()
        .unwrap_or_default();
    let started = case.ran() || containers.iter().any(run::has_run);
    let infers = started && !case.is_finished();
    let status = |container: &Container| {
        let name = &container.name;
        let part = Part {
            container,
            seen: case.group().and_then(|group| group.init_container(name)),
            live: live.iter().find(|status| status.name == *name),
        };
        let mut status = base(case, &part);
        fill(case, &part, waiting::INITIALIZING, &mut status);
        let is_told = part.seen.and_then(view::Container::view).is_some();
        if infers && !is_told && run::end_of(&status).is_none() && !run::is_running(&status) {
            // Containers start only after all init containers ended well, told or not.
            let known = part
                .live
                .and_then(run::end_of)
                .filter(|end| end.exit_code == 0);
            let untold = view::Run {
                exit_code: Some(0),
                ..view::Run::default()
            };
            let end = known
                .cloned()
                .unwrap_or_else(|| run::end(case, name, &untold));
            (status.state, status.last_state) = (Some(run::ended(end)), None);
        }
        status
    };
    case.spec
        .init_containers
        .iter()
        .flatten()
        .map(status)
        .collect()
}

/// An init container is ready once it has ended well.
pub fn set_ready(init: &mut [ContainerStatus]) {
    for status in init {
        status.ready = run::end_of(status).is_some_and(|end| end.exit_code == 0);
    }
}

/// The statuses of the containers.
pub fn main(case: &Case) -> Vec<ContainerStatus> {
    let live = case.live.container_statuses.as_deref().unwrap_or_default();
    let has_init = case
        .spec
        .init_containers
        .as_ref()
        .is_some_and(|init| !init.is_empty());
    let initialising = has_init && !mains_have_started(case) && !are_initialised(case);
    let usual = if initialising {
        waiting::INITIALIZING
    } else {
        waiting::CREATING
    };
    let status = |container: &Container| {
        let name = &container.name;
        let part = Part {
            container,
            seen: case.group().and_then(|group| group.container(name)),
            live: live.iter().find(|status| status.name == *name),
        };
        let mut status = base(case, &part);
        fill(case, &part, usual, &mut status);
        status.ready = run::is_running(&status) && !case.is_finished() && is_ready(case, container);
        allocate(case, &part, &mut status);
        status
    };
    case.spec.containers.iter().map(status).collect()
}

/// Whether a container that runs is ready, as far as the service shows it: it tells of the group only.
/// Where some containers have readiness probes, an unhealthy group is those containers' doing.
fn is_ready(case: &Case, container: &Container) -> bool {
    let probed = |container: &Container| container.readiness_probe.is_some();
    match case.disturbance() {
        None => true,
        Some(Provisioning::Unhealthy) if case.spec.containers.iter().any(probed) => {
            !probed(container)
        }
        Some(_) => false,
    }
}

/// What can be said of a container before its state is known.
fn base(case: &Case, part: &Part) -> ContainerStatus {
    let view = part.seen.and_then(view::Container::view);
    let live = part.live.filter(|_| !is_new(case));
    let known = live.map(|live| live.image_id.clone());
    ContainerStatus {
        name: part.container.name.clone(),
        image_id: view.and_then(image_id).or(known).unwrap_or_default(),
        ..ContainerStatus::default()
    }
}

/// The image that runs or ran, else the one that is to. A spec's image may change later; a group's
/// does not.
fn image(part: &Part, status: &ContainerStatus) -> String {
    let ran = part
        .live
        .filter(|_| run::has_run(status))
        .map(|live| live.image.clone());
    let runs = part.seen.and_then(|seen| seen.properties.image.clone());
    let known = runs.or(ran).filter(|image| !image.is_empty());
    known
        .or_else(|| part.container.image.clone())
        .unwrap_or_default()
}

/// States, restarts and id: from the live status where it is final, else from the group, else, where
/// the group tells nothing, from the live status again.
fn fill(case: &Case, part: &Part, usual: &str, status: &mut ContainerStatus) {
    let view = part.seen.and_then(view::Container::view);
    let live = part.live;
    if let Some(live) = live.filter(|live| is_final(case, live)) {
        keep(live, status);
    } else if let Some(view) = view {
        told(case, view, usual, status);
    } else if was_started(case) && live.is_none_or(is_usual) {
        status.state = Some(run::running(&view::Run::default()));
    } else if let Some(live) = live.filter(|live| is_untold(case, live)) {
        keep(live, status);
    } else {
        status.state = Some(waiting::state(case, None, usual));
        if let Some(live) = live.filter(|_| !is_new(case)) {
            status.restart_count = live.restart_count;
            let last = run::end_of(live).or(run::last_end_of(live));
            status.last_state = last.cloned().map(run::ended);
        }
    }
    status.started = Some(run::is_running(status));
    status.image = image(part, status);
}

/// Whether what the live status says of a container stands for ever: the pod has ended, or the
/// container has and is not started again.
fn is_final(case: &Case, live: &ContainerStatus) -> bool {
    let ended = run::end_of(live).is_some_and(|end| match case.policy {
        Policy::Never => true,
        Policy::OnFailure => end.exit_code == 0,
        Policy::Always => false,
    });
    ended || (case.is_finished() && live.state.is_some())
}

/// Whether the live status of a container stands since nothing newer is told: there is no answer with
/// instance views.
fn is_untold(case: &Case, live: &ContainerStatus) -> bool {
    let stands = |group: &Group| {
        !group.is_full() && live.state.is_some() && waiting::trouble(case).is_none()
    };
    let has_run = run::has_run(live) && !is_new(case);
    match case.group() {
        Some(group) => stands(group) || (has_run && !group.is_full()),
        None => has_run,
    }
}

/// Whether a LIST says that the containers were started, and nothing but their group's end stops them.
fn was_started(case: &Case) -> bool {
    let started =
        |group: &Group| !group.is_full() && group.provisioning() == Some(&Provisioning::Succeeded);
    case.policy == Policy::Always && !case.ran() && case.group().is_some_and(started)
}

/// Whether the live status says no more than that the container is being created.
fn is_usual(live: &ContainerStatus) -> bool {
    let waiting = live.state.as_ref().map(|state| &state.waiting);
    let reason = waiting.map(|waiting| waiting.as_ref().and_then(|w| w.reason.as_deref()));
    matches!(
        reason,
        None | Some(Some(waiting::CREATING | waiting::INITIALIZING))
    )
}

/// Whether nothing of the live statuses holds, since the pod gets a new group.
fn is_new(case: &Case) -> bool {
    matches!(case.seen, super::Seen::Vanished) && !case.ran() && !case.is_finished()
}

fn keep(live: &ContainerStatus, status: &mut ContainerStatus) {
    status.state.clone_from(&live.state);
    status.last_state = live
        .last_state
        .clone()
        .filter(|last| *last != ContainerState::default());
    status.restart_count = live.restart_count;
    status.container_id.clone_from(&live.container_id);
}

/// What the group tells of a container.
fn told(case: &Case, view: &ContainerView, usual: &str, status: &mut ContainerStatus) {
    let name = status.name.clone();
    if let Some(first) = run::first_end(case, &name, view) {
        status.container_id.clone_from(&first.container_id);
        status.state = Some(run::ended(first));
        return;
    }
    let previous = run::previous(view);
    status.restart_count =
        i32::try_from(view.restart_count.unwrap_or_default().max(0)).unwrap_or(i32::MAX);
    status.last_state = previous.map(|run| run::ended(run::end(case, &name, run)));
    let current = view.current_state.as_ref();
    let (state, run) = match current.map(|run| (run.kind(), run)) {
        Some((view::ContainerState::Running, run)) => (run::running(run), Some(run)),
        Some((view::ContainerState::Terminated, run)) => {
            (run::ended(run::end(case, &name, run)), Some(run))
        }
        _ => (waiting::state(case, Some(view), usual), previous),
    };
    status.state = Some(state);
    status.container_id = run.and_then(|run| run::id(case, &name, run));
}

/// The image by digest, as the service's events name it: `Successfully pulled image "nginx@sha256:..."`.
fn image_id(view: &ContainerView) -> Option<String> {
    let quoted = |message: &str| Some(message.split_once('"')?.1.split_once('"')?.0.to_owned());
    let pulls = view
        .events
        .iter()
        .filter(|event| matches!(event.word(), "Pulling" | "Pulled"));
    let mut images = pulls.rev().filter_map(|event| quoted(&event.message));
    images.find(|image| image.contains("@sha256:"))
}

/// What was allocated: the spec's resources when the group was first seen, for ever after. A resize
/// shows as a difference between the two (KEP-1287). One between PUT and first sight is not noticed.
fn allocate(case: &Case, part: &Part, status: &mut ContainerStatus) {
    let live = part.live.filter(|_| !is_new(case));
    if let Some(live) = live.filter(|live| live.resources.is_some()) {
        status
            .allocated_resources
            .clone_from(&live.allocated_resources);
        status.resources.clone_from(&live.resources);
    } else if let (Some(_), Some(asked)) = (case.group(), &part.container.resources) {
        let (limits, requests) = (asked.limits.clone(), asked.requests.clone());
        status.allocated_resources.clone_from(&requests);
        status.resources = Some(ResourceRequirements {
            limits,
            requests,
            claims: None,
        });
    }
}

fn mains_have_started(case: &Case) -> bool {
    let containers = case
        .group()
        .map_or(&[][..], |group| &group.properties.containers);
    let has_run = |container: &view::Container| {
        let Some(view) = container.view() else {
            return false;
        };
        let current = view.current_state.as_ref().map(view::Run::kind);
        run::previous(view).is_some()
            || view.restart_count.unwrap_or_default() > 0
            || current.is_some_and(|kind| kind != view::ContainerState::Waiting)
    };
    case.ran() || was_started(case) || containers.iter().any(has_run)
}

/// Whether the group says that its init containers have all ended well.
fn are_initialised(case: &Case) -> bool {
    let containers = case
        .group()
        .map_or(&[][..], |group| &group.properties.init_containers);
    let is_done = |container: &view::Container| {
        let run = container
            .view()
            .and_then(|view| view.current_state.as_ref());
        run.is_some_and(|run| {
            run.kind() == view::ContainerState::Terminated && run.exit_code == Some(0)
        })
    };
    !containers.is_empty() && containers.iter().all(is_done)
}
