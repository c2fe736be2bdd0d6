//! Virtual networks and subnets, as far as clients of container groups need them.
//!
//! Every network and subnet exists unless a client deleted it. GET returns what PUT stored.

use http::StatusCode;
use serde_json::{Value, json};

use super::ArmCall;
use super::error::ArmFailure;
use super::groups::parse_body;
use super::response::ArmResponse;
use super::route::{CrudVerb, NetworkKind};
use crate::emulator::group::model::JsonObject;
use crate::emulator::state::EmulatorState;
use crate::emulator::store::GroupStore;

/// Handles an operation on a virtual network or a subnet.
pub fn network(
    shared: &EmulatorState,
    call: &ArmCall,
    id: &str,
    kind: NetworkKind,
    verb: CrudVerb,
) -> Result<ArmResponse, ArmFailure> {
    let key = id.to_lowercase();
    let mut store = shared.store();
    match verb {
        CrudVerb::Head | CrudVerb::Get => {
            require(&store, id).map_err(|_| missing(id))?;
            let kept = store.networks.get(&key).cloned().flatten();
            Ok(ArmResponse::ok(
                kept.unwrap_or_else(|| resource(id, kind, &JsonObject::new())),
            ))
        }
        CrudVerb::Put => {
            let body: JsonObject = parse_body(call)?;
            Ok(put(&mut store, resource(id, kind, &body), key))
        }
        CrudVerb::Delete => delete(&mut store, id, key),
    }
}

fn put(store: &mut GroupStore, resource: Value, key: String) -> ArmResponse {
    let known = store
        .networks
        .insert(key, Some(resource.clone()))
        .flatten()
        .is_some();
    let status = if known {
        StatusCode::OK
    } else {
        StatusCode::CREATED
    };
    ArmResponse::new(status, resource)
}

fn delete(store: &mut GroupStore, id: &str, key: String) -> Result<ArmResponse, ArmFailure> {
    let used = store.groups.values().any(|group| {
        let subnets = group
            .body
            .properties
            .iter()
            .flat_map(|p| p.subnet_ids.iter().flatten());
        subnets
            .filter_map(|s| s.id.as_deref())
            .any(|s| s.to_lowercase().starts_with(&key))
    });
    if used {
        return Err(ArmFailure::bad_request(
            "InUseSubnetCannotBeDeleted",
            format!("The subnet '{id}' is in use by container groups and cannot be deleted."),
        ));
    }
    let known = store
        .networks
        .insert(key, None)
        .is_none_or(|kept| kept.is_some());
    Ok(ArmResponse::empty(if known {
        StatusCode::OK
    } else {
        StatusCode::NO_CONTENT
    }))
}

/// Fails if a client deleted the subnet or its virtual network.
pub fn require(store: &GroupStore, subnet: &str) -> Result<(), ArmFailure> {
    let key = subnet.to_lowercase();
    let network = key.split("/subnets/").next().unwrap_or_default();
    let is_deleted = |id: &str| matches!(store.networks.get(id), Some(None));
    if is_deleted(&key) || is_deleted(network) {
        let message = format!("The virtual network of the subnet '{subnet}' was not found.");
        return Err(ArmFailure::bad_request("VirtualNetworkNotFound", message));
    }
    Ok(())
}

fn missing(id: &str) -> ArmFailure {
    let parts: Vec<&str> = id.split('/').collect();
    let group = parts.get(4).copied().unwrap_or_default();
    ArmFailure::resource_not_found(&parts.get(6..).unwrap_or_default().join("/"), group)
}

/// The resource with the fields that ARM and the network provider add. A subnet without delegations
/// gets one to container groups.
fn resource(id: &str, kind: NetworkKind, body: &JsonObject) -> Value {
    let mut properties = body
        .get("properties")
        .filter(|p| p.is_object())
        .cloned()
        .unwrap_or(json!({}));
    properties["provisioningState"] = "Succeeded".into();
    let name = id.rsplit('/').next().unwrap_or_default();
    let kind = match kind {
        NetworkKind::VirtualNetwork => {
            let space = json!({"addressPrefixes": ["10.0.0.0/16"]});
            properties
                .as_object_mut()
                .map(|p| p.entry("addressSpace").or_insert(space));
            "Microsoft.Network/virtualNetworks"
        }
        NetworkKind::Subnet => {
            let delegation = json!([{
                "name": "Microsoft.ContainerInstance.containerGroups",
                "properties": {"serviceName": "Microsoft.ContainerInstance/containerGroups"},
            }]);
            if let Some(properties) = properties.as_object_mut() {
                properties
                    .entry("addressPrefix")
                    .or_insert("10.0.0.0/16".into());
                properties.entry("delegations").or_insert(delegation);
            }
            "Microsoft.Network/virtualNetworks/subnets"
        }
    };
    let mut resource = json!({"id": id, "name": name, "type": kind, "properties": properties});
    for field in ["location", "tags"] {
        if let Some(value) = body.get(field) {
            resource[field] = value.clone();
        }
    }
    resource
}
