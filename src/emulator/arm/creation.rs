//! Creates and updates container groups: `ContainerGroups_CreateOrUpdate`.

use std::sync::Arc;

use http::StatusCode;
use jiff::Timestamp;
use uuid::Uuid;

use super::ArmCall;
use super::error::ArmFailure;
use super::groups::{operation_url, parse_body, require_resource_group, require_settled};
use super::response::ArmResponse;
use super::rights;
use super::route::region;
use super::throttle::GroupBudget;
use crate::emulator::engine::InaccessibleImage;
use crate::emulator::group::id::GroupId;
use crate::emulator::group::lifecycle::EmulatedGroup;
use crate::emulator::group::model::{GroupBody, Properties};
use crate::emulator::group::stage::{GroupStage, StageLatency};
use crate::emulator::group::{quota, validate, view};
use crate::emulator::state::EmulatorState;
use crate::emulator::store::{CapacityFailure, GroupStore, OperationKind};

/// Creates the group, or updates it if it exists.
pub async fn create_or_update(
    shared: &Arc<EmulatorState>,
    call: &ArmCall,
    id: GroupId,
) -> Result<ArmResponse, ArmFailure> {
    let body: GroupBody = parse_body(call)?;
    if let Some(engine) = &shared.engine {
        require_resource_group(&shared.store(), &id.subscription, &id.resource_group)?;
        validate::validate(&id, &body)?;
        let accessible = engine.accessible(&body).await;
        accessible.map_err(|InaccessibleImage { image }| {
            let message = format!(
                "The image '{image}' in container group '{}' is not accessible. Please check the \
                 image and registry credential.",
                id.name
            );
            ArmFailure::bad_request("InaccessibleImage", message)
        })?;
    }
    apply_put(shared, call, id, body)
}

fn apply_put(
    shared: &Arc<EmulatorState>,
    call: &ArmCall,
    id: GroupId,
    body: GroupBody,
) -> Result<ArmResponse, ArmFailure> {
    let (now, speed) = (shared.clock.now(), shared.clock.speed());
    let mut store = shared.store();
    let store = &mut *store;
    require_resource_group(store, &id.subscription, &id.resource_group)?;
    validate::validate(&id, &body)?;
    let place = region(body.location.as_deref().unwrap_or_default());
    rights::require_join(store, body.properties.as_ref())?;
    require_network(store, &body)?;
    store.advance_all(now);
    let old = store.groups.get(&id.key());
    if let Some(old) = old {
        store.timeline.update(&id.key(), |entry| entry.puts += 1);
        check_update(old, &body, &place)?;
        if old.body.properties == body.properties && old.stage != GroupStage::Stopped {
            return Ok(update_metadata(store, call, &id, body));
        }
    } else {
        check_quota(store, &id, &body, &place)?;
    }
    let limits = store.limits;
    let budget = store.throttle.group(
        &limits,
        (&id.subscription, &place),
        GroupBudget::Create,
        now,
        speed,
    )?;
    let lacks_capacity = take_capacity(store, &body, &place)?;
    let is_new = old_is_none(store, &id);
    let operation = store.begin_operation(&id, OperationKind::Deploy, now);
    let mut group = new_group(shared, store, id, body, place);
    group.lacks_capacity = lacks_capacity;
    group.deploy(now, operation);
    apply_scripts(store, &mut group);
    let answer = deploying(call, &group, is_new).with_headers(budget);
    insert(shared, store, group, is_new, now);
    Ok(answer)
}

/// The answer for a group that has begun to deploy.
fn deploying(call: &ArmCall, group: &EmulatedGroup, is_new: bool) -> ArmResponse {
    let status = if is_new {
        StatusCode::CREATED
    } else {
        StatusCode::OK
    };
    let url = |result| operation_url(call, group, group.operation, result);
    let answer = ArmResponse::new(status, view::created(group, call.version))
        .with_header("azure-asyncoperation", &url(false));
    if call.version.has_final_location() {
        answer
            .with_header("location", &url(true))
            .with_header("retry-after", "5")
    } else {
        answer
    }
}

fn old_is_none(store: &GroupStore, id: &GroupId) -> bool {
    !store.groups.contains_key(&id.key())
}

fn insert(
    shared: &Arc<EmulatorState>,
    store: &mut GroupStore,
    mut group: EmulatedGroup,
    is_new: bool,
    now: Timestamp,
) {
    let key = group.id.key();
    if is_new {
        store.timeline.record_create(&group.id, now);
    }
    if let Some(old) = store.groups.get(&key) {
        group.generation += old.generation;
    }
    let deploys = group.is_real;
    store.groups.insert(key.clone(), group);
    if deploys && let Some(engine) = &shared.engine {
        engine.deploy(shared, key);
    }
}

fn new_group(
    shared: &EmulatorState,
    store: &mut GroupStore,
    id: GroupId,
    body: GroupBody,
    place: String,
) -> EmulatedGroup {
    let latency = StageLatency::recorded(&body);
    let latency = shared
        .options
        .start_latency
        .map_or(latency, |started| latency.scaled_to(started));
    let private = body
        .properties
        .as_ref()
        .is_some_and(Properties::is_in_subnet);
    EmulatedGroup {
        id,
        body,
        region: place,
        deployed: Timestamp::UNIX_EPOCH,
        operation: Uuid::nil(),
        stage: GroupStage::Running,
        init: Vec::new(),
        containers: Vec::new(),
        events: Vec::new(),
        ip: None,
        next_ip: store.address(private),
        is_real: shared.engine.is_some(),
        lacks_capacity: false,
        latency,
        generation: 0,
        is_operation_open: false,
    }
}

/// Gives the group's containers the scripts that were set through the admin interface.
pub fn apply_scripts(store: &GroupStore, group: &mut EmulatedGroup) {
    if group.is_real {
        return;
    }
    let name = group.id.name.clone();
    for run in group.init.iter_mut().chain(&mut group.containers) {
        if let Some(script) = store.scripts.get(&(name.clone(), run.name.clone())) {
            run.script = script.clone();
        }
    }
}

/// Applies a PUT that changes nothing in `properties`: it replaces the body and restarts nothing.
fn update_metadata(
    store: &mut GroupStore,
    call: &ArmCall,
    id: &GroupId,
    body: GroupBody,
) -> ArmResponse {
    let Some(group) = store.groups.get_mut(&id.key()) else {
        return ArmResponse::empty(StatusCode::OK);
    };
    group.body = body;
    ArmResponse::ok(view::created(group, call.version))
}

fn check_update(
    existing: &EmulatedGroup,
    body: &GroupBody,
    region: &str,
) -> Result<(), ArmFailure> {
    require_settled(existing)?;
    let name = &existing.id.name;
    if existing.region != region {
        let message = format!(
            "The resource '{name}' already exists in location '{}' in resource group '{}'. A \
             resource with the same name cannot be created in location '{region}'. Please select a \
             new resource name.",
            existing.region, existing.id.resource_group
        );
        return Err(ArmFailure::conflict("InvalidResourceLocation", message));
    }
    let (Some(before), Some(after)) = (&existing.body.properties, &body.properties) else {
        return Ok(());
    };
    match validate::immutable_difference(before, after) {
        None => Ok(()),
        Some(property) => {
            let message = format!(
                "The updates on container group '{name}' are invalid. If you are going to update the \
                 {property} of a container group, please delete it first and then create a new one."
            );
            Err(ArmFailure::bad_request(
                "InvalidContainerGroupUpdate",
                message,
            ))
        }
    }
}

fn require_network(store: &GroupStore, body: &GroupBody) -> Result<(), ArmFailure> {
    let subnets = body
        .properties
        .iter()
        .flat_map(|p| p.subnet_ids.iter().flatten());
    for id in subnets.filter_map(|subnet| subnet.id.as_deref()) {
        super::network::require(store, id)?;
    }
    Ok(())
}

fn check_quota(
    store: &GroupStore,
    id: &GroupId,
    body: &GroupBody,
    region: &str,
) -> Result<(), ArmFailure> {
    let Some(properties) = &body.properties else {
        return Ok(());
    };
    let used = store.usages(&id.subscription, region);
    for (name, required) in quota::required_usage(properties) {
        let (limit, usage) = (
            store.quota(&name),
            used.get(&name).copied().unwrap_or_default(),
        );
        let required = crate::emulator::store::whole_cores(required);
        if usage + required > limit {
            let message = format!(
                "Resource type 'Microsoft.ContainerInstance/containerGroups' container group quota \
                 '{name}' exceeded in region '{region}'. Limit: '{limit}', Usage: '{usage}' \
                 Requested: '{required}'."
            );
            return Err(ArmFailure::bad_request(
                "ContainerGroupQuotaReached",
                message,
            ));
        }
    }
    Ok(())
}

/// Whether the region accepts the create but will fail it later for lack of capacity. Fails if the
/// region rejects the create itself.
fn take_capacity(
    store: &mut GroupStore,
    body: &GroupBody,
    region: &str,
) -> Result<bool, ArmFailure> {
    let Some((failure, remaining)) = store.capacity.get_mut(region) else {
        return Ok(false);
    };
    let failure = *failure;
    if let Some(remaining) = remaining {
        *remaining = remaining.saturating_sub(1);
        if *remaining == 0 {
            store.capacity.remove(region);
        }
    }
    match failure {
        CapacityFailure::Async => Ok(true),
        CapacityFailure::Sync => Err(ArmFailure::conflict(
            "ServiceUnavailable",
            validate::no_capacity(body, region),
        )),
    }
}
