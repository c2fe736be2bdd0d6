//! Validates volumes and their mounts.

use std::collections::HashSet;

use super::{ValidationResult, is_dns_label, require};
use crate::emulator::group::model::{Container, Properties, Volume, secret_bytes};

/// The maximum number of volumes in a group (hard limit, quotas page 2025-11).
const MAX_VOLUMES: usize = 20;

/// Validates all volumes and mounts.
pub(super) fn check(properties: &Properties) -> ValidationResult {
    let volumes = properties.volumes();
    require(volumes.len() <= MAX_VOLUMES, "InvalidVolume", || {
        format!("The container group has more than {MAX_VOLUMES} volumes.")
    })?;
    let mut names = HashSet::new();
    for volume in volumes {
        let name = volume.name.as_deref().unwrap_or_default();
        require(
            is_dns_label(name, 5) && !name.contains("--"),
            "InvalidVolume",
            || {
                format!(
                    "The volume name '{name}' is invalid. It must be 5 to 63 lowercase letters, numbers \
                 and single hyphens, and begin and end with a letter or number."
                )
            },
        )?;
        require(names.insert(name), "InvalidVolume", || {
            format!("The volume name '{name}' is used more than once.")
        })?;
        kind(name, volume)?;
    }
    let containers = properties
        .init_containers()
        .iter()
        .chain(properties.containers());
    for container in containers {
        mounts(container, &names)?;
    }
    Ok(())
}

fn kind(name: &str, volume: &Volume) -> ValidationResult {
    let kinds = [
        volume.azure_file.is_some(),
        volume.empty_dir.is_some(),
        volume.secret.is_some(),
        volume.git_repo.is_some(),
        volume.secret_reference.is_some(),
    ];
    require(
        kinds.iter().filter(|set| **set).count() == 1,
        "InvalidVolume",
        || format!("The volume '{name}' must have exactly one kind."),
    )?;
    if let Some(files) = &volume.azure_file {
        let named = |text: &Option<String>| text.as_deref().is_some_and(|t| !t.is_empty());
        require(
            named(&files.share_name) && named(&files.storage_account_name),
            "InvalidVolume",
            || format!("The Azure file volume '{name}' needs shareName and storageAccountName."),
        )?;
    }
    if let Some(repository) = &volume.git_repo {
        require(
            repository
                .get("repository")
                .is_some_and(serde_json::Value::is_string),
            "InvalidVolume",
            || format!("The git repository volume '{name}' needs a repository."),
        )?;
    }
    for (key, value) in volume.secret.iter().flatten() {
        require(secret_bytes(value).is_some(), "InvalidVolume", || {
            format!("The value of the secret '{key}' in volume '{name}' is not base64.")
        })?;
        require(
            !key.is_empty() && !key.contains('/') && key != "." && key != "..",
            "InvalidVolume",
            || format!("The secret name '{key}' in volume '{name}' is not a file name."),
        )?;
    }
    Ok(())
}

fn mounts(container: &Container, volumes: &HashSet<&str>) -> ValidationResult {
    let mut paths = HashSet::new();
    for mount in container.mounts() {
        let refuse = |ok, why: String| {
            require(ok, "InvalidVolumeMount", || {
                format!(
                    "A volume mount of container '{}' is invalid: {why}.",
                    container.name()
                )
            })
        };
        let name = mount.name.as_deref().unwrap_or_default();
        let path = mount.mount_path.as_deref().unwrap_or_default();
        refuse(
            volumes.contains(name),
            format!("the volume '{name}' is not found"),
        )?;
        refuse(
            path.starts_with('/') && path.len() > 1 && !path.contains(':'),
            format!("the mount path '{path}' must be absolute and without ':'"),
        )?;
        refuse(
            paths.insert(path),
            format!("the mount path '{path}' is used twice"),
        )?;
    }
    Ok(())
}
