//! Validates the body of a PUT.
//!
//! In: a group's id and the body. Out: the service's 4xx error for the first invalid property. The
//! codes come from user reports, the service's documentation and its clients' sources. For some
//! documented limits no source has the code. There the emulator uses an invented name in the service's
//! style; [`ASSUMED_CODES`] lists these, so that nothing relies on them.

mod containers;
mod network;
mod resources;
mod volumes;

use std::collections::HashSet;

use super::id::GroupId;
use super::model::{GroupBody, Properties};
use super::run::GroupRestartPolicy;
use crate::emulator::arm::error::ArmFailure;

pub use resources::gpus;

/// Invented codes: the service documents the limit, but not the code.
pub const ASSUMED_CODES: [&str; 20] = [
    "ContainerGroupMissingContainers",
    "ContainerGroupTooManyContainers",
    "DuplicateContainerName",
    "InvalidContainerName",
    "MissingContainerImage",
    "InvalidEnvironmentVariable",
    "InvalidResourceRequest",
    "ContainerLimitLessThanRequest",
    "ContainerGroupResourceRequestTooLarge",
    "ContainerGroupResourceRequestTooSmall",
    "InvalidPort",
    "ReservedPort",
    "DuplicatePort",
    "InvalidIpAddress",
    "InvalidDnsConfig",
    "InvalidVolume",
    "InvalidVolumeMount",
    "InvalidProbe",
    "InvalidRestartPolicy",
    "InvalidSku",
];

/// The result of a check.
type ValidationResult = Result<(), ArmFailure>;

/// Fails with 400 and `code` unless `condition`.
fn require(condition: bool, code: &str, message: impl FnOnce() -> String) -> ValidationResult {
    if condition {
        Ok(())
    } else {
        Err(ArmFailure::bad_request(code, message()))
    }
}

/// Validates the body of a PUT of `id`.
pub fn validate(id: &GroupId, body: &GroupBody) -> ValidationResult {
    require(
        is_dns_label(&id.name, 1),
        "InvalidContainerGroupName",
        || {
            format!(
                "The container group name '{}' is invalid. It must be 1 to 63 lowercase letters, \
             numbers and hyphens, and begin and end with a letter or number.",
                id.name
            )
        },
    )?;
    require(
        body.location
            .as_deref()
            .is_some_and(|l| !l.trim().is_empty()),
        "LocationRequired",
        || "The location property is required for this definition.".to_owned(),
    )?;
    tags(body)?;
    let Some(properties) = &body.properties else {
        return Err(ArmFailure::bad_request(
            "InvalidRequestContent",
            "The request content was invalid: the property 'properties' is required.",
        ));
    };
    profile(properties)?;
    enums(properties)?;
    containers::check(properties)?;
    network::check(properties)?;
    volumes::check(properties)?;
    resources::check(properties)?;
    spot(properties)?;
    confidential(properties)?;
    registries(body, properties)?;
    images(id, properties)
}

/// The error for an image that cannot be pulled.
pub fn inaccessible(image: &str, group: &str) -> ArmFailure {
    let message = format!(
        "The image '{image}' in container group '{group}' is not accessible. Please check the image \
         and registry credential."
    );
    ArmFailure::bad_request("InaccessibleImage", message)
}

/// The message of a region without capacity for the group.
pub fn no_capacity(body: &GroupBody, region: &str) -> String {
    let properties = body.properties.clone().unwrap_or_default();
    let (cpu, memory) = properties.total();
    let network = if properties.is_in_subnet() {
        " virtual network"
    } else {
        ""
    };
    format!(
        "The requested resource is not available in the location '{region}' at this moment. Please \
         retry with a different resource request or in another location. Resource requested: \
         '{cpu}' CPU '{memory}' GB memory '{}' OS{network}",
        properties.os()
    )
}

/// The first property that differs although a PUT must not change it.
pub fn immutable_difference(old: &Properties, new: &Properties) -> Option<&'static str> {
    let sizes = |p: &Properties| {
        p.containers()
            .iter()
            .map(|c| (c.requests(), c.limits()))
            .collect::<Vec<_>>()
    };
    let ports = |p: &Properties| p.ip_address.as_ref().and_then(|a| a.ports.clone());
    if old.os() != new.os() {
        Some("osType")
    } else if old.restart_policy != new.restart_policy {
        Some("restartPolicy")
    } else if sizes(old) != sizes(new) {
        Some("resources")
    } else if ports(old) != ports(new) {
        Some("ipAddress.ports")
    } else {
        None
    }
}

/// Fails for images in a registry under `.invalid`, a domain that never exists (RFC 2606).
fn images(id: &GroupId, properties: &Properties) -> ValidationResult {
    let mut containers = properties
        .init_containers()
        .iter()
        .chain(properties.containers());
    let registry = |image: &str| {
        image
            .split(['/', ':'])
            .next()
            .unwrap_or_default()
            .to_owned()
    };
    let missing =
        containers.find(|c| c.image().contains('/') && registry(c.image()).ends_with(".invalid"));
    missing.map_or(Ok(()), |container| {
        Err(inaccessible(container.image(), &id.name))
    })
}

fn tags(body: &GroupBody) -> ValidationResult {
    let tags = body.tags.iter().flatten();
    require(tags.clone().count() <= 50, "TooManyTags", || {
        "The maximum number of tags on a resource is 50.".to_owned()
    })?;
    for (name, value) in tags {
        require(
            !name.is_empty() && name.len() <= 512,
            "InvalidTagName",
            || format!("The tag name '{name}' must be 1 to 512 characters long."),
        )?;
        require(
            !name.contains(['<', '>', '%', '&', '\\', '?', '/']),
            "InvalidTagNameCharacters",
            || {
                format!(
                    "The tag names '{name}' have reserved characters '<,>,%,&,\\,?,/' or control characters."
                )
            },
        )?;
        require(value.len() <= 256, "InvalidTagValueLength", || {
            format!("Tag value too large. The value of tag '{name}' exceeds 256 characters.")
        })?;
    }
    Ok(())
}

/// A profile supplies what the body leaves out. The emulator has no profiles, so every reference is a
/// 404.
fn profile(properties: &Properties) -> ValidationResult {
    let Some(profile) = &properties.container_group_profile else {
        return Ok(());
    };
    let id = profile.id.as_deref().unwrap_or_default();
    network::require_resource_id(id, "properties.containerGroupProfile.id")?;
    let parts: Vec<&str> = id.split('/').collect();
    let group = parts.get(4).copied().unwrap_or_default();
    let name = parts.last().copied().unwrap_or_default();
    let resource = format!("Microsoft.ContainerInstance/containerGroupProfiles/{name}");
    Err(ArmFailure::resource_not_found(&resource, group))
}

fn enums(properties: &Properties) -> ValidationResult {
    let is_one_of = |value: Option<&str>, known: &[&str]| {
        value.is_none_or(|value| known.iter().any(|k| k.eq_ignore_ascii_case(value)))
    };
    let os = properties.os_type.as_deref();
    require(
        os.is_some() && is_one_of(os, &["Linux", "Windows"]),
        "InvalidOsType",
        || {
            format!(
                "The 'osType' for container group is invalid. The value '{}' must be one of 'Windows,Linux'.",
                os.unwrap_or_default()
            )
        },
    )?;
    let policy = properties.restart_policy.as_deref();
    require(
        GroupRestartPolicy::of(policy).is_some(),
        "InvalidRestartPolicy",
        || {
            format!(
                "The 'restartPolicy' '{}' is invalid. It must be one of 'Always,OnFailure,Never'.",
                policy.unwrap_or_default()
            )
        },
    )?;
    let sku = properties.sku.as_deref();
    let skus = ["Standard", "Dedicated", "Confidential", "NotSpecified"];
    require(is_one_of(sku, &skus), "InvalidSku", || {
        format!(
            "The container group SKU '{}' is not supported.",
            sku.unwrap_or_default()
        )
    })?;
    let priority = properties.priority.as_deref();
    require(
        is_one_of(priority, &["Regular", "Spot"]),
        "PriorityNotSpecified",
        || {
            format!(
                "The container group priority '{}' is invalid. It must be one of 'Regular,Spot'.",
                priority.unwrap_or_default()
            )
        },
    )
}

fn spot(properties: &Properties) -> ValidationResult {
    if !properties.is_spot() {
        return Ok(());
    }
    let refuse = |ok, code, message: &str| require(ok, code, || message.to_owned());
    refuse(
        properties.ip_address.is_none() && !properties.is_in_subnet(),
        "SpotPriorityContainerGroupNotSupportedForInboundConnectivity",
        "Container groups of priority 'Spot' support neither an IP address nor a virtual network.",
    )?;
    let sku = properties.sku.as_deref().unwrap_or("Standard");
    refuse(
        sku.eq_ignore_ascii_case("Standard"),
        "SpotPriorityContainerGroupNotSupportedInSku",
        "Container groups of priority 'Spot' are supported in the SKU 'Standard' only.",
    )?;
    refuse(
        !resources::wants_gpu(properties),
        "SpotPriorityContainerGroupWithGPUResourcesNotSupported",
        "Container groups of priority 'Spot' do not support GPU resources.",
    )
}

fn confidential(properties: &Properties) -> ValidationResult {
    let is_confidential = properties
        .sku
        .as_deref()
        .is_some_and(|s| s.eq_ignore_ascii_case("Confidential"));
    require(
        !is_confidential || (properties.os() == "Linux" && !resources::wants_gpu(properties)),
        "ConfidentialContainerGroupSkuIsNotSupported",
        || {
            "The SKU 'Confidential' is supported for Linux container groups without GPU only."
                .to_owned()
        },
    )
}

fn registries(body: &GroupBody, properties: &Properties) -> ValidationResult {
    let known: HashSet<String> = body
        .identity
        .iter()
        .filter_map(|identity| identity.user_assigned_identities.as_ref())
        .flat_map(|identities| identities.keys().map(|id| id.to_lowercase()))
        .collect();
    for credential in properties.image_registry_credentials.iter().flatten() {
        let Some(identity) = &credential.identity else {
            continue;
        };
        require(
            known.contains(&identity.to_lowercase()),
            "InvalidImageRegistryIdentity",
            || {
                format!(
                    "The identity '{identity}' of the image registry '{}' is not one of the container group's.",
                    credential.server.as_deref().unwrap_or_default()
                )
            },
        )?;
    }
    Ok(())
}

/// Whether `name` has `min` to 63 characters: lower-case letters, digits and inner hyphens.
fn is_dns_label(name: &str, min: usize) -> bool {
    (min..=63).contains(&name.len())
        && name
            .bytes()
            .all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-')
        && !name.starts_with('-')
        && !name.ends_with('-')
}
