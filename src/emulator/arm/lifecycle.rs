//! Operations on an existing container group: update tags, delete, start, stop, restart.

use std::sync::Arc;

use http::StatusCode;
use jiff::Timestamp;
use uuid::Uuid;

use super::ArmCall;
use super::creation::apply_scripts;
use super::error::ArmFailure;
use super::groups::{
    operation_url, parse_body, require_group, require_resource_group, require_settled,
};
use super::response::ArmResponse;
use super::route::GroupVerb;
use super::throttle::GroupBudget;
use crate::emulator::group::id::GroupId;
use crate::emulator::group::model::{Properties, TagsBody};
use crate::emulator::group::stage::GroupStage;
use crate::emulator::group::view;
use crate::emulator::state::EmulatorState;
use crate::emulator::store::{GroupStore, OperationKind};

/// Replaces the group's tags.
pub fn patch(
    shared: &EmulatorState,
    call: &ArmCall,
    id: &GroupId,
) -> Result<ArmResponse, ArmFailure> {
    let now = shared.clock.now();
    let change: TagsBody = parse_body(call)?;
    let mut store = shared.store();
    let group = require_group(&mut store, id, now)?;
    if let Some(tags) = change.tags {
        group.body.tags = Some(tags);
    }
    Ok(ArmResponse::ok(view::full(
        group,
        call.version,
        now,
        &shared.clock.shown_clock(),
    )))
}

/// Deletes the group.
pub fn delete(
    shared: &Arc<EmulatorState>,
    call: &ArmCall,
    id: &GroupId,
) -> Result<ArmResponse, ArmFailure> {
    let (answer, engine) = begin_delete(shared, call, id)?;
    if engine && let Some(engine) = &shared.engine {
        engine.remove(shared, id.key());
    }
    Ok(answer)
}

/// Decides a delete. The flag tells whether the engine has containers to remove.
fn begin_delete(
    shared: &EmulatorState,
    call: &ArmCall,
    id: &GroupId,
) -> Result<(ArmResponse, bool), ArmFailure> {
    let (now, speed) = (shared.clock.now(), shared.clock.speed());
    let mut store = shared.store();
    let store = &mut *store;
    require_resource_group(store, &id.subscription, &id.resource_group)?;
    let key = id.key();
    if store.is_lagging(&key, now) {
        return Ok((ArmResponse::empty(StatusCode::NO_CONTENT), false));
    }
    let Some(place) = store.group(&key, now).map(|group| group.region.clone()) else {
        return Ok((ArmResponse::empty(StatusCode::NO_CONTENT), false));
    };
    let limits = store.limits;
    let budget = store.throttle.group(
        &limits,
        (&id.subscription, &place),
        GroupBudget::Delete,
        now,
        speed,
    )?;
    store.timeline.update(&key, |entry| {
        entry.delete_received = entry.delete_received.or(Some(now));
    });
    let operation = delete_operation(store, id, now);
    let Some(group) = store.groups.get_mut(&key) else {
        return Ok((ArmResponse::empty(StatusCode::NO_CONTENT), false));
    };
    let (was_deleting, is_real) = (
        matches!(group.stage, GroupStage::Deleting { .. }),
        group.is_real,
    );
    if !was_deleting && group.delete(now, operation, is_real) {
        let body = view::full(group, call.version, now, &shared.clock.shown_clock());
        store.remove(&key, now);
        store.end_operation(operation, true, Vec::new());
        return Ok((ArmResponse::ok(body).with_headers(budget), false));
    }
    let url = |result| operation_url(call, group, operation, result);
    let answer = ArmResponse::empty(StatusCode::ACCEPTED)
        .with_header("azure-asyncoperation", &url(false))
        .with_header("location", &url(true))
        .with_headers(budget);
    Ok((answer, is_real && !was_deleting))
}

/// The operation that deletes the group: the one that runs, or a new one that ends a deployment.
fn delete_operation(store: &mut GroupStore, id: &GroupId, now: Timestamp) -> Uuid {
    let running = store
        .groups
        .get(&id.key())
        .map(|g| (g.operation, matches!(g.stage, GroupStage::Deleting { .. })));
    match running {
        Some((operation, true)) => operation,
        running => {
            if let Some((deploying, _)) = running {
                store.end_operation(deploying, false, Vec::new());
            }
            store.begin_operation(id, OperationKind::Delete, now)
        }
    }
}

/// Deploys a group again that is stopped or whose containers have all ended. Otherwise does nothing.
pub fn start(
    shared: &Arc<EmulatorState>,
    call: &ArmCall,
    id: &GroupId,
) -> Result<ArmResponse, ArmFailure> {
    let now = shared.clock.now();
    let mut store = shared.store();
    let store = &mut *store;
    let group = require_group(store, id, now)?;
    require_settled(group)?;
    if group.holds_cores() {
        return Ok(ArmResponse::empty(StatusCode::NO_CONTENT));
    }
    let private = group
        .body
        .properties
        .as_ref()
        .is_some_and(Properties::is_in_subnet);
    let (operation, address) = (
        store.begin_operation(id, OperationKind::Deploy, now),
        store.address(private),
    );
    let key = id.key();
    let Some(mut group) = store.groups.remove(&key) else {
        return Ok(ArmResponse::empty(StatusCode::NO_CONTENT));
    };
    group.next_ip = address;
    group.deploy(now, operation);
    apply_scripts(store, &mut group);
    let answer = ArmResponse::empty(StatusCode::ACCEPTED)
        .with_header(
            "azure-asyncoperation",
            &operation_url(call, &group, operation, false),
        )
        .with_header("location", &operation_url(call, &group, operation, true));
    let is_real = group.is_real;
    store.groups.insert(key.clone(), group);
    if is_real && let Some(engine) = &shared.engine {
        engine.deploy(shared, key);
    }
    Ok(answer)
}

/// Stops or restarts the group.
pub fn stop_or_restart(
    shared: &Arc<EmulatorState>,
    id: &GroupId,
    verb: GroupVerb,
) -> Result<ArmResponse, ArmFailure> {
    let now = shared.clock.now();
    let mut store = shared.store();
    let group = require_group(&mut store, id, now)?;
    require_settled(group)?;
    let is_real = group.is_real;
    match verb {
        GroupVerb::Stop => group.stop(now),
        _ => group.restart(now),
    }
    let (key, moving) = (id.key(), group.is_in_motion());
    drop(store);
    if is_real
        && moving
        && let Some(engine) = &shared.engine
    {
        match verb {
            GroupVerb::Stop => engine.stop(shared, key),
            _ => engine.restart(shared, key),
        }
    }
    Ok(ArmResponse::empty(StatusCode::NO_CONTENT))
}
