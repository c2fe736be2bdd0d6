//! Subscriptions, resource groups and the registration of the resource provider.
//!
//! Every subscription exists, and every resource group exists unless a client deleted it.

use std::sync::Arc;

use http::StatusCode;
use serde_json::{Value, json};

use super::ArmCall;
use super::entra::TENANT;
use super::error::ArmFailure;
use super::groups::{parse_body, require_resource_group};
use super::response::ArmResponse;
use super::route::CrudVerb;
use super::version::VERSIONS;
use crate::emulator::group::id::GroupKey;
use crate::emulator::group::model::JsonObject;
use crate::emulator::state::EmulatorState;
use crate::emulator::store::GroupStore;

/// The only subscription that the emulator lists, for clients that do not have an id yet.
const SUBSCRIPTION: &str = "00000000-0000-0000-0000-000000000000";
/// The location of a resource group that no client created.
const REGION: &str = "westeurope";

/// Lists one subscription.
pub fn subscriptions() -> ArmResponse {
    ArmResponse::ok(
        json!({"value": [subscription(SUBSCRIPTION)], "count": {"type": "Total", "value": 1}}),
    )
}

/// The JSON of a subscription.
pub fn subscription(id: &str) -> Value {
    json!({
        "id": format!("/subscriptions/{id}"),
        "subscriptionId": id,
        "tenantId": TENANT,
        "displayName": "Emulated subscription",
        "state": "Enabled",
        "authorizationSource": "RoleBased",
        "managedByTenants": [],
    })
}

/// The resource provider Microsoft.ContainerInstance, always registered.
pub fn provider(subscription: &str) -> ArmResponse {
    ArmResponse::ok(json!({
        "id": format!("/subscriptions/{subscription}/providers/Microsoft.ContainerInstance"),
        "namespace": "Microsoft.ContainerInstance",
        "registrationState": "Registered",
        "resourceTypes": [{"resourceType": "containerGroups", "locations": [REGION], "apiVersions": VERSIONS}],
    }))
}

/// Lists the resource groups that a client created.
pub fn resource_groups(shared: &EmulatorState, subscription: &str) -> ArmResponse {
    let store = shared.store();
    let subscription = subscription.to_lowercase();
    let created = store
        .resource_groups
        .iter()
        .filter(|((owner, _), _)| *owner == subscription);
    ArmResponse::ok(json!({"value": created.map(|(_, group)| group).collect::<Vec<_>>()}))
}

/// Handles an operation on a resource group.
pub fn resource_group(
    shared: &Arc<EmulatorState>,
    call: &ArmCall,
    subscription: &str,
    name: &str,
    verb: CrudVerb,
) -> Result<ArmResponse, ArmFailure> {
    let key = (subscription.to_lowercase(), name.to_lowercase());
    let mut store = shared.store();
    match verb {
        CrudVerb::Head => Ok(match require_resource_group(&store, subscription, name) {
            Ok(()) => ArmResponse::empty(StatusCode::NO_CONTENT),
            Err(_) => ArmResponse::empty(StatusCode::NOT_FOUND),
        }),
        CrudVerb::Get => {
            require_resource_group(&store, subscription, name)?;
            let stored = store.resource_groups.get(&key).cloned();
            Ok(ArmResponse::ok(stored.unwrap_or_else(|| {
                group(subscription, name, &JsonObject::new())
            })))
        }
        CrudVerb::Put => {
            let group = group(subscription, name, &parse_body::<JsonObject>(call)?);
            store.deleted_resource_groups.remove(&key);
            let existed = store.resource_groups.insert(key, group.clone()).is_some();
            let status = if existed {
                StatusCode::OK
            } else {
                StatusCode::CREATED
            };
            Ok(ArmResponse::new(status, group))
        }
        CrudVerb::Delete => {
            require_resource_group(&store, subscription, name)?;
            store.resource_groups.remove(&key);
            store.deleted_resource_groups.insert(key.clone());
            let (removed, now) = (groups_of(&store, &key), shared.clock.now());
            for group in &removed {
                store.remove(group, now);
            }
            drop(store);
            if let Some(engine) = &shared.engine {
                for group in removed {
                    engine.remove(shared, group);
                }
            }
            Ok(ArmResponse::empty(StatusCode::OK))
        }
    }
}

fn groups_of(store: &GroupStore, (subscription, name): &(String, String)) -> Vec<GroupKey> {
    let keys = store.groups.keys();
    keys.filter(|key| key.subscription == *subscription && key.resource_group == *name)
        .cloned()
        .collect()
}

fn group(subscription: &str, name: &str, body: &JsonObject) -> Value {
    json!({
        "id": format!("/subscriptions/{subscription}/resourceGroups/{name}"),
        "name": name,
        "type": "Microsoft.Resources/resourceGroups",
        "location": body.get("location").cloned().unwrap_or_else(|| REGION.into()),
        "tags": body.get("tags").cloned().unwrap_or_else(|| json!({})),
        "properties": {"provisioningState": "Succeeded"},
    })
}
