//! Validates containers: names, images, environment and probes.

use std::collections::HashSet;

use super::{ValidationResult, is_dns_label, require};
use crate::emulator::arm::error::ArmFailure;
use crate::emulator::group::model::{Container, ContainerProperties, Probe, Properties};

/// The maximum number of containers in a group, including init containers (hard limit, quotas page
/// 2025-11).
const MAX_CONTAINERS: usize = 60;

/// Checks all containers and init containers.
pub(super) fn check(properties: &Properties) -> ValidationResult {
    let (proper, init) = (properties.containers(), properties.init_containers());
    require(
        !proper.is_empty(),
        "ContainerGroupMissingContainers",
        || "The container group must have at least one container.".to_owned(),
    )?;
    require(
        proper.len() + init.len() <= MAX_CONTAINERS,
        "ContainerGroupTooManyContainers",
        || format!("The container group has more than {MAX_CONTAINERS} containers."),
    )?;
    require(
        properties.os() == "Linux" || proper.len() == 1,
        "InvalidOsType",
        || {
            "Container groups with more than one container are supported for the osType 'Linux' only.".to_owned()
        },
    )?;
    let mut names = HashSet::new();
    for container in init.iter().chain(proper) {
        let name = container.name();
        require(is_dns_label(name, 1), "InvalidContainerName", || {
            format!(
                "The container name '{name}' is invalid. It must be 1 to 63 lowercase letters, \
                 numbers and hyphens, and begin and end with a letter or number."
            )
        })?;
        require(names.insert(name), "DuplicateContainerName", || {
            format!("The container name '{name}' is used more than once in the container group.")
        })?;
        check_container(container)?;
    }
    Ok(())
}

fn check_container(container: &Container) -> ValidationResult {
    let name = container.name();
    let Some(properties) = &container.properties else {
        return Err(missing_image(name));
    };
    let image = properties.image.as_deref().unwrap_or_default();
    if image.trim().is_empty() {
        return Err(missing_image(name));
    }
    environment(name, properties)?;
    for (kind, probe) in [
        ("livenessProbe", &properties.liveness_probe),
        ("readinessProbe", &properties.readiness_probe),
    ] {
        if let Some(probe) = probe {
            self::probe(name, kind, probe)?;
        }
    }
    Ok(())
}

fn missing_image(name: &str) -> ArmFailure {
    let message = format!("The container '{name}' must have an image.");
    ArmFailure::bad_request("MissingContainerImage", message)
}

fn environment(container: &str, properties: &ContainerProperties) -> ValidationResult {
    let mut names = HashSet::new();
    for variable in properties.environment_variables.iter().flatten() {
        let name = variable.name.as_deref().unwrap_or_default();
        let plain = name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_');
        require(
            (1..=63).contains(&name.len()) && plain,
            "InvalidEnvironmentVariable",
            || {
                format!(
                    "The environment variable name '{name}' of container '{container}' is invalid. It \
                 must be 1 to 63 letters, numbers and underscores."
                )
            },
        )?;
        require(names.insert(name), "InvalidEnvironmentVariable", || {
            format!("The environment variable '{name}' of container '{container}' is set twice.")
        })?;
        let sources = [
            &variable.value,
            &variable.secure_value,
            &variable.secure_value_reference,
        ];
        let given = sources.iter().filter(|source| source.is_some()).count();
        require(given <= 1, "InvalidEnvironmentVariable", || {
            format!(
                "The environment variable '{name}' of container '{container}' has more than one value."
            )
        })?;
    }
    Ok(())
}

fn probe(container: &str, kind: &str, probe: &Probe) -> ValidationResult {
    let refuse = |ok, why: &str| {
        require(ok, "InvalidProbe", || {
            format!("The {kind} of container '{container}' is invalid: {why}.")
        })
    };
    let is_unsupported = probe.tcp_socket.is_some() || probe.grpc.is_some();
    refuse(!is_unsupported, "only 'exec' and 'httpGet' are supported")?;
    let kinds = usize::from(probe.exec.is_some()) + usize::from(probe.http_get.is_some());
    refuse(
        kinds == 1,
        "exactly one of 'exec' and 'httpGet' must be set",
    )?;
    if let Some(exec) = &probe.exec {
        refuse(
            exec.command.as_ref().is_some_and(|c| !c.is_empty()),
            "'exec' needs a command",
        )?;
    }
    if let Some(get) = &probe.http_get {
        refuse(
            get.port.is_some_and(|p| (1..=65535).contains(&p)),
            "'port' must be 1 to 65535",
        )?;
        let scheme = get.scheme.as_deref().unwrap_or("http").to_ascii_lowercase();
        refuse(
            ["http", "https"].contains(&scheme.as_str()),
            "'scheme' must be http or https",
        )?;
    }
    let is_in_range =
        |value: Option<i64>, min| value.is_none_or(|v| (min..=i64::from(i32::MAX)).contains(&v));
    refuse(
        is_in_range(probe.initial_delay_seconds, 0),
        "'initialDelaySeconds' must not be negative",
    )?;
    for (field, value) in [
        ("periodSeconds", probe.period_seconds),
        ("failureThreshold", probe.failure_threshold),
        ("successThreshold", probe.success_threshold),
        ("timeoutSeconds", probe.timeout_seconds),
    ] {
        refuse(
            is_in_range(value, 1),
            &format!("'{field}' must be at least 1"),
        )?;
    }
    Ok(())
}
