//! Validates CPU and memory of each container and of the group.

use super::{ValidationResult, require};
use crate::emulator::arm::error::ArmFailure;
use crate::emulator::group::model::{Amounts, Container, Properties};

/// Validates requests, limits and the group's totals.
pub(super) fn check(properties: &Properties) -> ValidationResult {
    for container in properties.containers() {
        requests(container)?;
    }
    let (cpu, memory) = properties.total();
    require(
        at_least(cpu, 1.0) && at_least(memory, 1.0),
        "ContainerGroupResourceRequestTooSmall",
        || {
            format!(
                "The container group requests {cpu} CPU and {memory} GB memory together. The minimum \
             for a container group is 1 CPU and 1 GB."
            )
        },
    )?;
    let (name, most_cpu, most_memory) = largest_size(properties);
    require(
        at_least(most_cpu, cpu) && at_least(most_memory, memory),
        "ContainerGroupResourceRequestTooLarge",
        || {
            format!(
                "The container group requests {cpu} CPU and {memory} GB memory together. The maximum \
             for '{name}' container groups is {most_cpu} CPU and {most_memory} GB."
            )
        },
    )?;
    for container in properties.containers() {
        limits(container, cpu, memory)?;
    }
    Ok(())
}

/// Whether any container requests a GPU.
pub(super) fn wants_gpu(properties: &Properties) -> bool {
    properties.containers().iter().any(|c| gpus(c).is_some())
}

/// The number and SKU of the GPUs that a container requests.
pub fn gpus(container: &Container) -> Option<(i64, String)> {
    let requests = container
        .properties
        .as_ref()?
        .resources
        .as_ref()?
        .requests
        .as_ref()?;
    let gpu = requests.gpu.as_ref()?;
    let sku = gpu.sku.clone().unwrap_or_else(|| "K80".to_owned());
    gpu.count
        .filter(|count| *count > 0)
        .map(|count| (count, sku))
}

/// Name and maximum CPU and memory (GB) of the group's kind. The service's pages disagree (31/240, or
/// 32/256 in its FAQ); the emulator uses the smaller values.
fn largest_size(properties: &Properties) -> (&'static str, f64, f64) {
    let confidential = properties
        .sku
        .as_deref()
        .is_some_and(|s| s.eq_ignore_ascii_case("Confidential"));
    if properties.is_spot() {
        ("Spot", 4.0, 16.0)
    } else if confidential {
        ("Confidential", 31.0, 180.0)
    } else {
        ("Standard", 31.0, 240.0)
    }
}

fn requests(container: &Container) -> ValidationResult {
    let name = container.name();
    let requests = container
        .properties
        .as_ref()
        .and_then(|p| p.resources.as_ref())
        .and_then(|r| r.requests.as_ref());
    let (Some(cpu), Some(memory)) = (
        requests.and_then(|r| r.cpu),
        requests.and_then(|r| r.memory_in_gb),
    ) else {
        let message = format!(
            "The container '{name}' must have resource requests with 'cpu' and 'memoryInGB'."
        );
        return Err(ArmFailure::bad_request("InvalidResourceRequest", message));
    };
    require(cpu > 0.0 && memory > 0.0, "InvalidResourceRequest", || {
        format!("The resource requests of container '{name}' must be greater than 0.")
    })?;
    steps(name, cpu, memory)
}

/// Checks that CPU is a multiple of 0.01 and memory a multiple of 0.1 GB.
fn steps(name: &str, cpu: f64, memory: f64) -> ValidationResult {
    require(is_multiple(cpu, 100.0), "InvalidResourceRequest", || {
        format!("The CPU '{cpu}' of container '{name}' is not a multiple of 0.01.")
    })?;
    require(is_multiple(memory, 10.0), "InvalidResourceRequest", || {
        format!("The memory '{memory}' GB of container '{name}' is not a multiple of 0.1 GB.")
    })
}

fn limits(container: &Container, total_cpu: f64, total_memory: f64) -> ValidationResult {
    let limits: Option<&Amounts> = container
        .properties
        .as_ref()
        .and_then(|p| p.resources.as_ref())
        .and_then(|r| r.limits.as_ref());
    if limits.is_none() {
        return Ok(());
    }
    let name = container.name();
    let ((cpu, memory), (most_cpu, most_memory)) = (container.requests(), container.limits());
    require(
        at_least(most_cpu, cpu) && at_least(most_memory, memory),
        "ContainerLimitLessThanRequest",
        || format!("The resource limits of container '{name}' must not be less than its requests."),
    )?;
    let fits = at_least(total_cpu, most_cpu) && at_least(total_memory, most_memory);
    require(
        fits,
        "ContainerLimitGreaterThanContainerGroupTotalRequest",
        || {
            format!(
                "The resource limits of container '{name}' ({most_cpu} CPU, {most_memory} GB) are greater \
             than what the container group requests in total ({total_cpu} CPU, {total_memory} GB)."
            )
        },
    )?;
    steps(name, most_cpu, most_memory)
}

fn at_least(have: f64, want: f64) -> bool {
    have >= want - 1e-9
}

fn is_multiple(value: f64, per_unit: f64) -> bool {
    let steps = value * per_unit;
    (steps - steps.round()).abs() < 1e-6
}
