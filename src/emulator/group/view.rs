//! The service's JSON of a container group.
//!
//! In: a group, an API version, the time. Out: the request body with the service's additions; a GET
//! also has the instance view, a LIST never has it. The shapes are those of the recordings. Properties
//! that an API version does not have yet are left out.

use jiff::{RoundMode, Timestamp, TimestampRound, Unit};
use serde_json::{Value, json};

use super::lifecycle::{EmulatedGroup, PROVISIONING_TIMEOUT};
use super::model::Container;
use super::run::{ContainerEvent, EmulatedRun, RunState};
use super::stage::GroupStage;
use crate::emulator::arm::version::ApiVersion;
use crate::emulator::clock::ShownClock;

/// A time in a GET response: RFC 3339 with up to three fractional digits.
pub fn time(at: Timestamp) -> String {
    let round = TimestampRound::new()
        .smallest(Unit::Millisecond)
        .mode(RoundMode::Trunc);
    at.round(round).unwrap_or(at).to_string()
}

/// A time in an operation's response: RFC 3339 with seven fractional digits.
pub fn operation_time(at: Timestamp) -> String {
    format!(
        "{}.{:07}Z",
        at.strftime("%Y-%m-%dT%H:%M:%S"),
        at.subsec_nanosecond().max(0) / 100
    )
}

/// The response to a PUT: an empty instance view with the state `Pending`.
pub fn created(group: &EmulatedGroup, version: ApiVersion) -> Value {
    let mut answer = base(group, version, None);
    answer["properties"]["instanceView"] = json!({"events": [], "state": "Pending"});
    answer
}

/// The response to a GET, with the instance views.
pub fn full(
    group: &EmulatedGroup,
    version: ApiVersion,
    now: Timestamp,
    shown_clock: &ShownClock,
) -> Value {
    let mut answer = base(group, version, Some(now));
    answer["properties"]["instanceView"] =
        json!({"events": events(&group.events, shown_clock), "state": state(group)});
    let properties = &mut answer["properties"];
    add_instance_views(
        &mut properties["containers"],
        &group.containers,
        shown_clock,
    );
    add_instance_views(&mut properties["initContainers"], &group.init, shown_clock);
    answer
}

/// One element of a LIST: no instance views, neither the group's nor the containers'.
pub fn listed(group: &EmulatedGroup, version: ApiVersion, now: Timestamp) -> Value {
    base(group, version, Some(now))
}

/// The group's `instanceView.state`.
pub fn state(group: &EmulatedGroup) -> &'static str {
    match (&group.stage, group.ended()) {
        (GroupStage::Running, Some(true)) => "Succeeded",
        (GroupStage::Running, Some(false)) | (GroupStage::Failed, _) => "Failed",
        (GroupStage::Running, None) | (GroupStage::Stopping { .. }, _) => "Running",
        (GroupStage::Stopped, _) => "Stopped",
        _ => "Pending",
    }
}

/// The group's `provisioningState` at `now`. Without `now`, readiness is ignored.
pub fn provisioning(group: &EmulatedGroup, now: Option<Timestamp>) -> &'static str {
    let unready = now.is_some_and(|now| group.containers.iter().any(|run| run.is_unready(now)));
    match group.stage {
        GroupStage::Allocating { .. } => "Pending",
        GroupStage::WithoutCapacity { .. } | GroupStage::Failed => "Failed",
        GroupStage::Pulling { .. }
        | GroupStage::Initialising { .. }
        | GroupStage::Starting { .. } => "Creating",
        GroupStage::Running if unready => "Unhealthy",
        GroupStage::Deleting { .. } | GroupStage::Gone => "Deleting",
        GroupStage::Running | GroupStage::Stopping { .. } | GroupStage::Stopped => "Succeeded",
    }
}

/// The events of the group and of all its containers, for an operation's response.
pub fn all_events(group: &EmulatedGroup) -> Vec<ContainerEvent> {
    let runs = group.init.iter().chain(&group.containers);
    let of_runs = runs.flat_map(|run| &run.events);
    group.events.iter().chain(of_runs).cloned().collect()
}

/// Events in the form of instance views and operations.
pub fn events(events: &[ContainerEvent], shown_clock: &ShownClock) -> Value {
    let to_json = |event: &ContainerEvent| {
        json!({
            "count": event.count,
            "firstTimestamp": whole_seconds(shown_clock.shown(event.first)),
            "lastTimestamp": whole_seconds(shown_clock.shown(event.last)),
            "name": event.name,
            "message": event.message,
            "type": if event.warning { "Warning" } else { "Normal" },
        })
    };
    events.iter().map(to_json).collect()
}

fn whole_seconds(at: Timestamp) -> String {
    Timestamp::from_second(at.as_second())
        .unwrap_or(at)
        .to_string()
}

fn base(group: &EmulatedGroup, version: ApiVersion, now: Option<Timestamp>) -> Value {
    let mut properties = json!({});
    if let Some(spec) = &group.body.properties {
        properties = serde_json::to_value(spec).unwrap_or(properties);
        properties["containers"] = containers(spec.containers());
        if version.has_sku() {
            properties["initContainers"] = containers(spec.init_containers());
        }
        properties["osType"] = spec.os().into();
        properties["restartPolicy"] = format!("{:?}", group.policy()).into();
    }
    properties["provisioningState"] = provisioning(group, now).into();
    add_defaults(&mut properties, group, version);
    add_address(&mut properties, group, now.is_some());
    let mut resource = json!({
        "properties": properties,
        "id": group.id.to_string(),
        "name": group.id.name,
        "type": "Microsoft.ContainerInstance/containerGroups",
        "location": group.region,
        "tags": group.body.tags.clone().unwrap_or_default(),
    });
    if let Some(zones) = &group.body.zones {
        resource["zones"] = json!(zones);
    }
    if let Some(identity) = identity(group) {
        resource["identity"] = identity;
    }
    resource
}

fn add_defaults(properties: &mut Value, group: &EmulatedGroup, version: ApiVersion) {
    if version.has_sku() && properties.get("sku").is_none() {
        properties["sku"] = "Standard".into();
    }
    if version.has_provisioning_timeout() {
        let custom_timeout = group
            .body
            .properties
            .as_ref()
            .and_then(|p| p.provisioning_timeout_in_seconds);
        let timeout = custom_timeout.map_or(json!(PROVISIONING_TIMEOUT.as_secs()), |seconds| {
            json!(seconds)
        });
        properties["provisioningTimeoutInSeconds"] = timeout;
        properties["isCustomProvisioningTimeout"] = custom_timeout.is_some().into();
    } else if let Some(object) = properties.as_object_mut() {
        object.remove("provisioningTimeoutInSeconds");
    }
}

/// Adds the address. Before it is known, a private address is left out and a public one has no `ip`. A
/// group in a subnet has an address even without asking for one: Azure's virtual nodes rely on that for
/// their pods.
fn add_address(properties: &mut Value, group: &EmulatedGroup, with_private: bool) {
    let spec = group.body.properties.as_ref();
    let is_private = spec.is_some_and(super::model::Properties::is_in_subnet);
    if let Some(ip) = group.ip.filter(|_| is_private)
        && properties["ipAddress"].is_null()
    {
        properties["ipAddress"] = json!({"type": "Private", "ip": ip.to_string(), "ports": []});
    }
    let Some(address) = properties
        .get_mut("ipAddress")
        .and_then(Value::as_object_mut)
    else {
        return;
    };
    address.remove("ip");
    let label = address
        .get("dnsNameLabel")
        .and_then(Value::as_str)
        .map(str::to_owned);
    match label {
        Some(label) => {
            let name = format!("{label}.{}.azurecontainer.io", group.region);
            address.insert("fqdn".into(), name.into());
        }
        None => drop(address.remove("autoGeneratedDomainNameLabelScope")),
    }
    if let Some(ip) = group.ip {
        address.insert("ip".into(), ip.to_string().into());
    } else if !with_private && is_private {
        properties
            .as_object_mut()
            .map(|object| object.remove("ipAddress"));
    }
}

fn containers(list: &[Container]) -> Value {
    let to_json = |container: &Container| {
        let mut value = serde_json::to_value(container).unwrap_or_default();
        let properties = &mut value["properties"];
        if let Some(ports) = properties.get_mut("ports").and_then(Value::as_array_mut) {
            for port in ports
                .iter_mut()
                .filter(|port| port.get("protocol").is_none())
            {
                port["protocol"] = "TCP".into();
            }
        }
        for field in ["ports", "environmentVariables"] {
            if properties.get(field).is_none() {
                properties[field] = json!([]);
            }
        }
        value
    };
    list.iter().map(to_json).collect()
}

fn add_instance_views(containers: &mut Value, runs: &[EmulatedRun], shown_clock: &ShownClock) {
    let Some(containers) = containers.as_array_mut() else {
        return;
    };
    for (container, run) in containers.iter_mut().zip(runs) {
        let Some(current) = &run.current else {
            continue;
        };
        let mut view =
            json!({"restartCount": run.restarts, "currentState": run_state(current, shown_clock)});
        if let Some(previous) = &run.previous {
            view["previousState"] = run_state(previous, shown_clock);
        }
        if !run.events.is_empty() {
            view["events"] = events(&run.events, shown_clock);
        }
        container["properties"]["instanceView"] = view;
    }
}

fn run_state(state: &RunState, shown_clock: &ShownClock) -> Value {
    let time = |at: Timestamp| time(shown_clock.shown(at));
    match state {
        RunState::Waiting { detail } => json!({"state": "Waiting", "detailStatus": detail}),
        RunState::Running { since } => {
            json!({"state": "Running", "startTime": time(*since), "detailStatus": ""})
        }
        RunState::Terminated {
            since,
            finished,
            code,
        } => json!({
            "state": "Terminated",
            "startTime": time(*since),
            "exitCode": code,
            "finishTime": time(*finished),
            "detailStatus": if *code == 0 { "Completed" } else { "Error" },
        }),
    }
}

/// The group's identity, with principal and client ids that are derived from the group's id.
fn identity(group: &EmulatedGroup) -> Option<Value> {
    let requested = group.body.identity.as_ref()?;
    let derived_id = |salt: &str| {
        uuid::Uuid::new_v5(
            &uuid::Uuid::NAMESPACE_URL,
            format!("{salt}{}", group.id).as_bytes(),
        )
    };
    let kind = requested.kind.clone().unwrap_or_else(|| "None".to_owned());
    let mut identity = json!({"type": kind});
    if kind.contains("SystemAssigned") {
        identity["principalId"] = derived_id("principal").to_string().into();
        identity["tenantId"] = crate::emulator::arm::entra::TENANT.into();
    }
    if let Some(identities) = &requested.user_assigned_identities {
        for id in identities.keys() {
            identity["userAssignedIdentities"][id] = json!({
                "principalId": derived_id(id).to_string(),
                "clientId": derived_id(&format!("client{id}")).to_string(),
            });
        }
    }
    Some(identity)
}
