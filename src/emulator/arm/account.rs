//! Subscriptions, resource groups and the registration of the resource provider.
//!
//! Every subscription exists, and every resource group exists unless a client deleted it.

use std::sync::Arc;

use http::StatusCode;
use serde_json::{Value, json};

use super::Call;
use super::answer::Answer;
use super::entra::TENANT;
use super::error::ArmError;
use super::groups::{read, require_resource_group};
use super::route::Crud;
use super::version::VERSIONS;
use crate::emulator::group::id::GroupKey;
use crate::emulator::group::model::Object;
use crate::emulator::shared::Shared;
use crate::emulator::store::Store;

/// The only subscription that the emulator lists, for clients that do not have an id yet.
const SUBSCRIPTION: &str = "00000000-0000-0000-0000-000000000000";
/// The location of a resource group that no client created.
const REGION: &str = "westeurope";

/// Lists one subscription.
pub fn subscriptions() -> Answer {
    Answer::ok(
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
pub fn provider(subscription: &str) -> Answer {
    Answer::ok(json!({
        "id": format!("/subscriptions/{subscription}/providers/Microsoft.ContainerInstance"),
        "namespace": "Microsoft.ContainerInstance",
        "registrationState": "Registered",
        "resourceTypes": [{"resourceType": "containerGroups", "locations": [REGION], "apiVersions": VERSIONS}],
    }))
}

/// Lists the resource groups that a client created.
pub fn resource_groups(shared: &Shared, subscription: &str) -> Answer {
    let store = shared.store();
    let subscription = subscription.to_lowercase();
    let made = store
        .resource_groups
        .iter()
        .filter(|((owner, _), _)| *owner == subscription);
    Answer::ok(json!({"value": made.map(|(_, group)| group).collect::<Vec<_>>()}))
}

/// Handles an operation on a resource group.
pub fn resource_group(
    shared: &Arc<Shared>,
    call: &Call,
    subscription: &str,
    name: &str,
    verb: Crud,
) -> Result<Answer, ArmError> {
    let key = (subscription.to_lowercase(), name.to_lowercase());
    let mut store = shared.store();
    match verb {
        Crud::Head => Ok(match require_resource_group(&store, subscription, name) {
            Ok(()) => Answer::empty(StatusCode::NO_CONTENT),
            Err(_) => Answer::empty(StatusCode::NOT_FOUND),
        }),
        Crud::Get => {
            require_resource_group(&store, subscription, name)?;
            let kept = store.resource_groups.get(&key).cloned();
            Ok(Answer::ok(kept.unwrap_or_else(|| {
                group(subscription, name, &Object::new())
            })))
        }
        Crud::Put => {
            let group = group(subscription, name, &read::<Object>(call)?);
            store.deleted_resource_groups.remove(&key);
            let known = store.resource_groups.insert(key, group.clone()).is_some();
            let status = if known {
                StatusCode::OK
            } else {
                StatusCode::CREATED
            };
            Ok(Answer::new(status, group))
        }
        Crud::Delete => {
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
            Ok(Answer::empty(StatusCode::OK))
        }
    }
}

fn groups_of(store: &Store, (subscription, name): &(String, String)) -> Vec<GroupKey> {
    let all = store.groups.keys();
    all.filter(|key| key.subscription == *subscription && key.resource_group == *name)
        .cloned()
        .collect()
}

fn group(subscription: &str, name: &str, body: &Object) -> Value {
    json!({
        "id": format!("/subscriptions/{subscription}/resourceGroups/{name}"),
        "name": name,
        "type": "Microsoft.Resources/resourceGroups",
        "location": body.get("location").cloned().unwrap_or_else(|| REGION.into()),
        "tags": body.get("tags").cloned().unwrap_or_else(|| json!({})),
        "properties": {"provisioningState": "Succeeded"},
    })
}
