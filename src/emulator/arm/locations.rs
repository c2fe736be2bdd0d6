//! Information about a region: usages, cached images, capabilities; and the list of operations of the
//! provider.

use serde_json::{Value, json};

use super::response::ArmResponse;
use super::route::LocationList;
use crate::emulator::group::quota;
use crate::emulator::state::EmulatorState;

/// Some of the images that the service caches in every region.
const CACHED_IMAGES: [(&str, &str); 4] = [
    ("Linux", "ubuntu:22.04"),
    ("Linux", "alpine:3"),
    ("Linux", "nginx:latest"),
    ("Windows", "mcr.microsoft.com/windows/servercore:ltsc2019"),
];

/// Answers one of a region's list requests.
pub fn list(
    shared: &EmulatorState,
    subscription: &str,
    region: &str,
    list: LocationList,
) -> ArmResponse {
    ArmResponse::ok(match list {
        LocationList::Usage => usages(shared, subscription, region),
        LocationList::CachedImages => {
            let image = |(os, image): &(&str, &str)| json!({"osType": os, "image": image});
            json!({"value": CACHED_IMAGES.iter().map(image).collect::<Vec<_>>()})
        }
        LocationList::Capabilities => capabilities(region),
    })
}

/// The operations that a role can permit: the response of `Operations_List`.
pub fn operations() -> ArmResponse {
    let operations = [
        ("containerGroups/read", "Get Container Groups"),
        ("containerGroups/write", "Create or Update Container Groups"),
        ("containerGroups/delete", "Delete Container Groups"),
        ("containerGroups/restart/action", "Restart Container Groups"),
        ("containerGroups/start/action", "Start Container Groups"),
        ("containerGroups/stop/action", "Stop Container Groups"),
        (
            "containerGroups/containers/exec/action",
            "Exec into Container",
        ),
        (
            "containerGroups/containers/attach/action",
            "Attach to Container",
        ),
        ("containerGroups/containers/logs/read", "Get Container Logs"),
        ("locations/usages/read", "Get Usages"),
        ("locations/cachedImages/read", "Get Cached Images"),
        ("locations/capabilities/read", "Get Capabilities"),
        ("locations/operations/read", "Get Operation"),
    ];
    let to_json = |(name, description): &(&str, &str)| {
        json!({
            "name": format!("Microsoft.ContainerInstance/{name}"),
            "display": {
                "provider": "Microsoft Container Instance",
                "resource": name.split('/').next(),
                "operation": description,
                "description": description,
            },
            "origin": "User",
        })
    };
    ArmResponse::ok(json!({"value": operations.iter().map(to_json).collect::<Vec<_>>()}))
}

fn usages(shared: &EmulatorState, subscription: &str, region: &str) -> Value {
    let now = shared.clock.now();
    let mut store = shared.store();
    store.advance_all(now);
    let used = store.usages(subscription, region);
    let to_json = |name: &&str| {
        json!({
            "id": format!(
                "/subscriptions/{subscription}/providers/Microsoft.ContainerInstance/locations/{region}/usages/{name}"
            ),
            "unit": "Count",
            "currentValue": used.get(*name).copied().unwrap_or_default(),
            "limit": store.quota(name),
            "name": {"value": name, "localizedValue": localized(name)},
        })
    };
    json!({"value": quota::NAMES.iter().map(to_json).collect::<Vec<_>>()})
}

/// Splits a usage name into words: `StandardCores` becomes `Standard Cores`.
fn localized(name: &str) -> String {
    let mut text = String::new();
    for character in name.chars() {
        if character.is_uppercase() && text.ends_with(char::is_lowercase) {
            text.push(' ');
        }
        text.push(character);
    }
    text
}

fn capabilities(region: &str) -> Value {
    let one = |(os, address): (&str, &str)| {
        json!({
            "resourceType": "containerGroups",
            "osType": os,
            "location": region,
            "ipAddressType": address,
            "gpu": "None",
            "capabilities": {"maxMemoryInGB": 240.0, "maxCpu": 31.0, "maxGpuCount": 0.0},
        })
    };
    let all = [
        ("Linux", "Public"),
        ("Linux", "Private"),
        ("Windows", "Public"),
    ];
    json!({"value": all.map(one)})
}
