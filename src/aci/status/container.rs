//! Container statuses: one for every container of the spec, in the order of the spec.
//!
//! In: the inputs of the status. Out: `ContainerStatus`es, before the pod's phase is known. Then [`phase`](super::phase)
//! sets containers to terminated where the phase requires that.

use k8s_openapi::api::core::v1::{
    Container, ContainerState, ContainerStatus, ResourceRequirements,
};

use super::image_changes;
use super::{ContainerInput, PodRestartPolicy, StatusInput, container_state, waiting_reason};
use crate::aci::response::{self, ContainerGroup, ContainerInstanceView, Provisioning};
use crate::k8s::containers::{has_sidecar, is_sidecar, lasting_containers};

/// The statuses of the init containers, given those of the main containers, which start after them. A native sidecar
/// is an ordinary container of its group.
pub fn init_container_statuses(
    case: &StatusInput,
    containers: &[ContainerStatus],
) -> Vec<ContainerStatus> {
    let live = case
        .live
        .init_container_statuses
        .as_deref()
        .unwrap_or_default();
    let started = case.has_run() || containers.iter().any(container_state::has_run);
    let implies_success = started && !case.is_finished();
    let status = |container: &Container| {
        if is_sidecar(container) {
            return lasting_status(case, container, live, waiting_reason::POD_INITIALIZING);
        }
        let name = &container.name;
        let part = ContainerInput {
            container,
            group_container: case.group().and_then(|group| group.init_container(name)),
            live: live.iter().find(|status| status.name == *name),
        };
        let mut status = base_status(case, &part);
        fill_state(case, &part, waiting_reason::POD_INITIALIZING, &mut status);
        let is_reported = part
            .group_container
            .and_then(response::GroupContainer::instance_view)
            .is_some();
        if implies_success
            && !is_reported
            && container_state::termination(&status).is_none()
            && (was_started(case) || !container_state::is_running(&status))
        {
            // Main containers start only after all init containers have succeeded, whether Azure reports that or
            // not.
            let known = part
                .live
                .and_then(container_state::termination)
                .filter(|end| end.exit_code == 0);
            let success = response::ContainerRunView {
                exit_code: Some(0),
                ..response::ContainerRunView::default()
            };
            let end = known
                .cloned()
                .unwrap_or_else(|| container_state::run_termination(case, name, &success));
            (status.state, status.last_state) =
                (Some(container_state::terminated_state(end)), None);
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

/// Sets `ready`: an init container that is no sidecar is ready once it has ended with exit code 0.
pub fn set_init_ready(case: &StatusInput, init: &mut [ContainerStatus]) {
    let ends = |status: &&mut ContainerStatus| !has_sidecar(case.spec, &status.name);
    for status in init.iter_mut().filter(ends) {
        status.ready = container_state::termination(status).is_some_and(|end| end.exit_code == 0);
    }
}

/// The statuses of the main containers.
pub fn container_statuses(case: &StatusInput) -> Vec<ContainerStatus> {
    let live = case.live.container_statuses.as_deref().unwrap_or_default();
    let has_init = case
        .spec
        .init_containers
        .as_ref()
        .is_some_and(|init| !init.is_empty());
    let is_initializing =
        has_init && !containers_have_started(case) && !init_containers_have_succeeded(case);
    let usual = if is_initializing {
        waiting_reason::POD_INITIALIZING
    } else {
        waiting_reason::CONTAINER_CREATING
    };
    let containers = case.spec.containers.iter();
    containers
        .map(|container| lasting_status(case, container, live, usual))
        .collect()
}

/// The status of a container that lasts as long as the pod: a main container or a sidecar. `usual` is the reason while
/// it waits for no special reason.
fn lasting_status(
    case: &StatusInput,
    container: &Container,
    live: &[ContainerStatus],
    usual: &str,
) -> ContainerStatus {
    let name = &container.name;
    let part = ContainerInput {
        container,
        group_container: case.group().and_then(|group| group.container(name)),
        live: live.iter().find(|status| status.name == *name),
    };
    let mut status = base_status(case, &part);
    fill_state(case, &part, usual, &mut status);
    let probed = case.container_readiness(name);
    let is_running = container_state::is_running(&status);
    status.started = Some(is_running && probed.is_none_or(|probed| probed.has_started));
    status.ready = is_running
        && !case.is_finished()
        && probed.is_none_or(|probed| probed.is_ready)
        && is_ready_in_azure(case, container);
    set_allocated_resources(case, &part, &mut status);
    status
}

/// Whether a running container is ready, as far as Azure reports: it reports health for the whole group only. If
/// some containers have readiness probes that ACI runs, an unhealthy group makes only those containers not ready.
fn is_ready_in_azure(case: &StatusInput, container: &Container) -> bool {
    let probed = |container: &Container| {
        let by_node = case.container_readiness(&container.name);
        container.readiness_probe.is_some() && !by_node.is_some_and(|node| node.is_judged_by_node)
    };
    match case.unready_state() {
        None => true,
        Some(Provisioning::Unhealthy) if lasting_containers(case.spec).any(probed) => {
            !probed(container)
        }
        Some(_) => false,
    }
}

/// The fields of a container's status that do not depend on its state.
fn base_status(case: &StatusInput, part: &ContainerInput) -> ContainerStatus {
    let view = part
        .group_container
        .and_then(response::GroupContainer::instance_view);
    let live = part.live.filter(|_| !needs_new_group(case));
    let known = live.map(|live| live.image_id.clone());
    let pinned = unpinned_group_image(part).map(|(_, id)| id);
    let image_id = pinned.or_else(|| view.and_then(image_id)).or(known);
    ContainerStatus {
        name: part.container.name.clone(),
        image_id: image_id.unwrap_or_default(),
        ..ContainerStatus::default()
    }
}

/// If the group's image is pinned to a digest that burstpool has read: the image as the pod names it, and its
/// `imageID`.
fn unpinned_group_image(part: &ContainerInput) -> Option<(String, String)> {
    let image = part.group_container?.properties.image.as_ref()?;
    image_changes::unpinned_image(part.container, part.live, image)
}

/// The image that the container runs or ran, else the one of the spec. The spec's image may change later; the
/// group's does not.
fn current_image(part: &ContainerInput, status: &ContainerStatus) -> String {
    if let Some((image, _)) = unpinned_group_image(part) {
        return image;
    }
    let live_image = part
        .live
        .filter(|_| container_state::has_run(status))
        .map(|live| live.image.clone());
    let group_image = part
        .group_container
        .and_then(|seen| seen.properties.image.clone());
    let image = group_image.or(live_image).filter(|image| !image.is_empty());
    image
        .or_else(|| part.container.image.clone())
        .unwrap_or_default()
}

/// Sets the state, restart count, image, ID, and whether the container is started. A final live state wins, then the group's instance view, then, if the
/// group has none, the live state again.
fn fill_state(
    case: &StatusInput,
    part: &ContainerInput,
    usual: &str,
    status: &mut ContainerStatus,
) {
    let view = part
        .group_container
        .and_then(response::GroupContainer::instance_view);
    let live = part.live;
    if let Some(live) = live.filter(|live| is_final(case, live)) {
        copy_live_state(live, status);
    } else if let Some(view) = view {
        apply_instance_view(case, view, usual, status);
    } else if was_started(case) && live.is_none_or(is_default_waiting) {
        status.state = Some(container_state::running_state(
            &response::ContainerRunView::default(),
        ));
    } else if let Some(live) = live.filter(|live| keeps_live_state(case, live)) {
        copy_live_state(live, status);
    } else {
        status.state = Some(waiting_reason::container_state(case, None, usual));
        if let Some(live) = live.filter(|_| !needs_new_group(case)) {
            status.restart_count = live.restart_count;
            let last =
                container_state::termination(live).or(container_state::last_termination(live));
            status.last_state = last.cloned().map(container_state::terminated_state);
        }
    }
    status.started = Some(container_state::is_running(status));
    status.image = current_image(part, status);
}

/// Whether the live state of a container is final: the pod has ended, or the container has ended and its restart
/// policy does not restart it.
fn is_final(case: &StatusInput, live: &ContainerStatus) -> bool {
    let ended = container_state::termination(live).is_some_and(|end| match case.restart_policy {
        PodRestartPolicy::Never => true,
        PodRestartPolicy::OnFailure => end.exit_code == 0,
        PodRestartPolicy::Always => false,
    });
    ended || (case.is_finished() && live.state.is_some())
}

/// Whether to keep the live state of a container because no newer answer has instance views.
fn keeps_live_state(case: &StatusInput, live: &ContainerStatus) -> bool {
    let is_unchanged = |group: &ContainerGroup| {
        !group.has_instance_view()
            && live.state.is_some()
            && waiting_reason::group_problem(case).is_none()
    };
    let has_run = container_state::has_run(live) && !needs_new_group(case);
    match case.group() {
        Some(group) => is_unchanged(group) || (has_run && !group.has_instance_view()),
        None => has_run,
    }
}

/// Whether a LIST implies that the containers were started: provisioning succeeded, and with restart policy
/// `Always` they run until their group ends.
fn was_started(case: &StatusInput) -> bool {
    let started = |group: &ContainerGroup| {
        !group.has_instance_view() && group.provisioning() == Some(&Provisioning::Succeeded)
    };
    case.restart_policy == PodRestartPolicy::Always
        && !case.has_run()
        && case.group().is_some_and(started)
}

/// Whether the live status says only that the container is being created.
fn is_default_waiting(live: &ContainerStatus) -> bool {
    let waiting = live.state.as_ref().map(|state| &state.waiting);
    let reason = waiting.map(|waiting| waiting.as_ref().and_then(|w| w.reason.as_deref()));
    matches!(
        reason,
        None | Some(Some(
            waiting_reason::CONTAINER_CREATING | waiting_reason::POD_INITIALIZING
        ))
    )
}

/// Whether the live container statuses are obsolete because the pod gets a new group.
fn needs_new_group(case: &StatusInput) -> bool {
    matches!(case.observation, super::GroupObservation::Vanished)
        && !case.has_run()
        && !case.is_finished()
}

fn copy_live_state(live: &ContainerStatus, status: &mut ContainerStatus) {
    status.state.clone_from(&live.state);
    status.last_state = live
        .last_state
        .clone()
        .filter(|last| *last != ContainerState::default());
    status.restart_count = live.restart_count;
    status.container_id.clone_from(&live.container_id);
}

/// Copies what the group's instance view says about a container.
fn apply_instance_view(
    case: &StatusInput,
    view: &ContainerInstanceView,
    usual: &str,
    status: &mut ContainerStatus,
) {
    let name = status.name.clone();
    if let Some(first) = container_state::first_termination(case, &name, view) {
        status.container_id.clone_from(&first.container_id);
        status.state = Some(container_state::terminated_state(first));
        return;
    }
    let previous = container_state::previous_run(view);
    status.restart_count =
        i32::try_from(view.restart_count.unwrap_or_default().max(0)).unwrap_or(i32::MAX);
    status.last_state = previous.map(|run| {
        container_state::terminated_state(container_state::run_termination(case, &name, run))
    });
    let current = view.current_state.as_ref();
    let (state, run) = match current.map(|run| (run.kind(), run)) {
        Some((response::ContainerState::Running, run)) => {
            (container_state::running_state(run), Some(run))
        }
        Some((response::ContainerState::Terminated, run)) => (
            container_state::terminated_state(container_state::run_termination(case, &name, run)),
            Some(run),
        ),
        _ => (
            waiting_reason::container_state(case, Some(view), usual),
            previous,
        ),
    };
    status.state = Some(state);
    status.container_id = run.and_then(|run| container_state::container_id(case, &name, run));
}

/// Whether the image of a container was pulled. The ID of an image that burstpool has read before the group was created
/// does not show that.
pub fn was_pulled(case: &StatusInput, status: &ContainerStatus) -> bool {
    let name = &status.name;
    let seen = case
        .group()
        .and_then(|group| group.container(name).or_else(|| group.init_container(name)));
    let view = seen.and_then(response::GroupContainer::instance_view);
    let is_pinned = seen
        .and_then(|seen| seen.properties.image.as_ref())
        .is_some_and(|image| image.contains('@'));
    view.is_some_and(|view| image_id(view).is_some()) || !is_pinned && !status.image_id.is_empty()
}

/// The image by digest, from ACI's events: `Successfully pulled image "nginx@sha256:..."`.
fn image_id(view: &ContainerInstanceView) -> Option<String> {
    let quoted = |message: &str| Some(message.split_once('"')?.1.split_once('"')?.0.to_owned());
    let pulls = view
        .events
        .iter()
        .filter(|event| matches!(event.reason(), "Pulling" | "Pulled"));
    let mut images = pulls.rev().filter_map(|event| quoted(&event.message));
    images.find(|image| image.contains("@sha256:"))
}

/// Sets the allocated resources: the spec's resources at the time when the group was first seen. They never change
/// after that, so a resize shows as a difference to the spec (KEP-1287). A resize between the PUT and the first
/// answer goes unnoticed.
fn set_allocated_resources(
    case: &StatusInput,
    part: &ContainerInput,
    status: &mut ContainerStatus,
) {
    let live = part.live.filter(|_| !needs_new_group(case));
    if let Some(live) = live.filter(|live| live.resources.is_some()) {
        status
            .allocated_resources
            .clone_from(&live.allocated_resources);
        status.resources.clone_from(&live.resources);
    } else if let (Some(_), Some(requested)) = (case.group(), &part.container.resources) {
        let (limits, requests) = (requested.limits.clone(), requested.requests.clone());
        status.allocated_resources.clone_from(&requests);
        status.resources = Some(ResourceRequirements {
            limits,
            requests,
            claims: None,
        });
    }
}

fn containers_have_started(case: &StatusInput) -> bool {
    let containers = case
        .group()
        .map_or(&[][..], |group| &group.properties.containers);
    let has_run = |container: &response::GroupContainer| {
        let Some(view) = container.instance_view() else {
            return false;
        };
        let current = view
            .current_state
            .as_ref()
            .map(response::ContainerRunView::kind);
        container_state::previous_run(view).is_some()
            || view.restart_count.unwrap_or_default() > 0
            || current.is_some_and(|kind| kind != response::ContainerState::Waiting)
    };
    case.has_run() || was_started(case) || containers.iter().any(has_run)
}

/// Whether the group reports that all of its init containers ended with exit code 0.
fn init_containers_have_succeeded(case: &StatusInput) -> bool {
    let containers = case
        .group()
        .map_or(&[][..], |group| &group.properties.init_containers);
    let is_done = |container: &response::GroupContainer| {
        let run = container
            .instance_view()
            .and_then(|view| view.current_state.as_ref());
        run.is_some_and(|run| {
            run.kind() == response::ContainerState::Terminated && run.exit_code == Some(0)
        })
    };
    !containers.is_empty() && containers.iter().all(is_done)
}
