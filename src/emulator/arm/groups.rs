//! Operations on container groups: read, list, follow long-running operations.

use std::sync::Arc;

use http::StatusCode;
use jiff::Timestamp;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use uuid::Uuid;

use super::error::ArmFailure;
use super::response::ArmResponse;
use super::route::GroupVerb;
use super::{ArmCall, creation, lifecycle};
use crate::emulator::group::id::{GroupId, GroupKey};
use crate::emulator::group::lifecycle::EmulatedGroup;
use crate::emulator::group::view;
use crate::emulator::state::EmulatorState;
use crate::emulator::store::{GroupStore, OperationKind};

/// The API version in the URLs of long-running operations, as recorded from the service.
const OPERATION_VERSION: &str = "2018-06-01";

/// Handles an operation on one group.
pub async fn group(
    shared: &Arc<EmulatorState>,
    call: &ArmCall,
    id: GroupId,
    verb: GroupVerb,
) -> Result<ArmResponse, ArmFailure> {
    match verb {
        GroupVerb::Get => get(shared, call, &id),
        GroupVerb::CreateOrUpdate => creation::create_or_update(shared, call, id).await,
        GroupVerb::Update => lifecycle::patch(shared, call, &id),
        GroupVerb::Delete => lifecycle::delete(shared, call, &id),
        GroupVerb::Start => lifecycle::start(shared, call, &id),
        GroupVerb::Restart | GroupVerb::Stop => lifecycle::stop_or_restart(shared, &id, verb),
        GroupVerb::OutboundEndpoints => {
            let mut store = shared.store();
            require_group(&mut store, &id, shared.clock.now())?;
            Ok(ArmResponse::ok(json!([])))
        }
    }
}

/// Lists the groups of a subscription or resource group, one page at a time.
pub fn list(
    shared: &EmulatorState,
    call: &ArmCall,
    subscription: &str,
    resource_group: Option<&str>,
) -> Result<ArmResponse, ArmFailure> {
    let now = shared.clock.now();
    let mut store = shared.store();
    if let Some(name) = resource_group {
        require_resource_group(&store, subscription, name)?;
    }
    store.advance_all(now);
    let from = call
        .query
        .get("$skiptoken")
        .map(|token| token.to_lowercase())
        .unwrap_or_default();
    let (subscription_key, group_key) = (
        subscription.to_lowercase(),
        resource_group.map(str::to_lowercase),
    );
    let position = |key: &GroupKey| format!("{}/{}", key.resource_group, key.name);
    let mut groups = store.groups.iter().filter(|(key, _)| {
        key.subscription == subscription_key
            && group_key
                .as_ref()
                .is_none_or(|group| *group == key.resource_group)
            && position(key) >= from
            && !store.is_lagging(key, now)
    });
    let page: Vec<Value> = groups
        .by_ref()
        .take(shared.options.page_size.max(1))
        .map(|(_, group)| view::listed(group, call.version, now))
        .collect();
    let mut answer = json!({"value": page});
    if let Some((next, _)) = groups.next() {
        let link = next_link(call, subscription, resource_group, &position(next));
        answer["nextLink"] = link.into();
    }
    Ok(ArmResponse::ok(answer))
}

fn next_link(
    call: &ArmCall,
    subscription: &str,
    resource_group: Option<&str>,
    position: &str,
) -> String {
    let scope = resource_group
        .map(|name| format!("/resourceGroups/{name}"))
        .unwrap_or_default();
    format!(
        "{}/subscriptions/{subscription}{scope}/providers/Microsoft.ContainerInstance/containerGroups\
         ?api-version={}&%24skiptoken={}",
        call.origin,
        call.version,
        position.replace('/', "%2F")
    )
}

/// The state of a long-running operation, or its result if `result` is set.
pub fn operation(
    shared: &EmulatorState,
    call: &ArmCall,
    id: &str,
    result: bool,
) -> Result<ArmResponse, ArmFailure> {
    let (now, shown_clock) = (shared.clock.now(), shared.clock.shown_clock());
    let mut store = shared.store();
    let missing = || {
        ArmFailure::new(
            StatusCode::NOT_FOUND,
            "NotFound",
            format!("The operation '{id}' was not found."),
        )
    };
    let uuid: Uuid = id.parse().map_err(|_| missing())?;
    let key = store.operations.get(&uuid).ok_or_else(missing)?.group.key();
    store.advance(&key, now);
    let operation = store.operations.get(&uuid).ok_or_else(missing)?;
    if result {
        let done = operation.ended.is_some();
        let group = store
            .groups
            .get(&key)
            .filter(|_| operation.kind == OperationKind::Deploy);
        return Ok(match group {
            _ if !done => ArmResponse::empty(StatusCode::ACCEPTED),
            Some(group) => ArmResponse::ok(view::full(group, call.version, now, &shown_clock)),
            None => ArmResponse::empty(StatusCode::NO_CONTENT),
        });
    }
    let running = || store.groups.get(&key).map(view::all_events);
    let (status, events) = match &operation.ended {
        None => ("Pending", running().unwrap_or_default()),
        Some((true, events)) => ("Succeeded", events.clone()),
        Some((false, events)) => ("Failed", events.clone()),
    };
    Ok(ArmResponse::ok(json!({
        "id": operation.group.to_string(),
        "status": status,
        "startTime": view::operation_time(shown_clock.shown(operation.started)),
        "properties": {"events": view::events(&events, &shown_clock)},
    })))
}

/// Parses a JSON body. An invalid body is a 400 that names the field.
pub fn parse_body<T: DeserializeOwned + Default>(call: &ArmCall) -> Result<T, ArmFailure> {
    let refuse = |why: String| {
        let message =
            format!("The request content was invalid and could not be deserialized: '{why}'.");
        ArmFailure::bad_request("InvalidRequestContent", message)
    };
    let value: Value = serde_json::from_slice(&call.body).map_err(|why| refuse(why.to_string()))?;
    if !value.is_object() {
        return Err(refuse("the content is not a JSON object".to_owned()));
    }
    serde_path_to_error::deserialize(value).map_err(|why| refuse(why.to_string()))
}

/// Fails with 404 if a client deleted the resource group.
pub fn require_resource_group(
    store: &GroupStore,
    subscription: &str,
    name: &str,
) -> Result<(), ArmFailure> {
    let key = (subscription.to_lowercase(), name.to_lowercase());
    if store.deleted_resource_groups.contains(&key) {
        let message = format!("Resource group '{name}' could not be found.");
        let error = ArmFailure::new(StatusCode::NOT_FOUND, "ResourceGroupNotFound", message);
        return Err(error.from_gateway());
    }
    Ok(())
}

/// The group, advanced to `now`. Fails with 404 if it does not exist or lags ([`GroupStore::is_lagging`]).
pub fn require_group<'a>(
    store: &'a mut GroupStore,
    id: &GroupId,
    now: Timestamp,
) -> Result<&'a mut EmulatedGroup, ArmFailure> {
    require_resource_group(store, &id.subscription, &id.resource_group)?;
    let resource = format!("Microsoft.ContainerInstance/containerGroups/{}", id.name);
    let missing = ArmFailure::resource_not_found(&resource, &id.resource_group);
    let key = id.key();
    if store.is_lagging(&key, now) {
        return Err(missing);
    }
    store.group(&key, now).ok_or(missing)
}

fn get(shared: &EmulatorState, call: &ArmCall, id: &GroupId) -> Result<ArmResponse, ArmFailure> {
    let (now, shown_clock) = (shared.clock.now(), shared.clock.shown_clock());
    let mut store = shared.store();
    let answer = view::full(
        require_group(&mut store, id, now)?,
        call.version,
        now,
        &shown_clock,
    );
    store.timeline.update(&id.key(), |entry| entry.gets += 1);
    Ok(ArmResponse::ok(answer))
}

/// Fails with 409 while the group is deploying, restarting, stopping or being deleted.
pub fn require_settled(group: &EmulatedGroup) -> Result<(), ArmFailure> {
    if !group.is_in_motion() {
        return Ok(());
    }
    let message = format!(
        "The container group '{}' is still transitioning, please retry later.",
        group.id.name
    );
    Err(ArmFailure::conflict("ContainerGroupTransitioning", message))
}

/// The URL of an operation's state, or of its result.
pub fn operation_url(
    call: &ArmCall,
    group: &EmulatedGroup,
    operation: Uuid,
    result: bool,
) -> String {
    let kind = if result {
        "operationResults"
    } else {
        "operations"
    };
    format!(
        "{}/subscriptions/{}/providers/Microsoft.ContainerInstance/locations/{}/{kind}/{operation}\
         ?api-version={OPERATION_VERSION}",
        call.origin, group.id.subscription, group.region
    )
}
